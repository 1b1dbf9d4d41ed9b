//! BLIP: a picture becomes states that a decoder looks at while it writes, one token at a time.

use aisemble_weights::candle::{self, D, Device, IndexOp as _, Module as _, Tensor};
use candle_transformers::models::blip::{BlipForConditionalGeneration, Config, VisionConfig};
use candle_transformers::models::blip_text;
use serde::Deserialize;

use super::config::{Dimensions, check_patches, check_text, parse};
use super::network::{CONFIG, HubError};
use super::pair::side_is;
use super::tensors::Named;
use super::words::{Length, Words};
use crate::compute::Map;

/// A network that writes a sentence about a picture.
#[derive(Debug)]
pub struct Captioner {
    network: BlipForConditionalGeneration,
    /// Tokens to words.
    pub words: Words,
    begin: u32,
    end: u32,
    positions_max: usize,
}

/// `config.json` of `blip`; what it leaves out has transformers' defaults.
#[derive(Debug, Deserialize)]
struct BlipFile {
    text_config: BlipText,
    vision_config: BlipVision,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct BlipText {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: candle_nn::Activation,
    layer_norm_eps: f64,
    bos_token_id: u32,
    sep_token_id: u32,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct BlipVision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: candle_nn::Activation,
    layer_norm_eps: f64,
}

impl Default for BlipText {
    fn default() -> Self {
        Self {
            vocab_size: 30_524,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: candle_nn::Activation::Gelu,
            layer_norm_eps: 1e-12,
            bos_token_id: 30_522,
            sep_token_id: 102,
        }
    }
}

impl Default for BlipVision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 384,
            patch_size: 16,
            hidden_act: candle_nn::Activation::Gelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl BlipFile {
    fn checked(&self) -> Result<Config, HubError> {
        let (text, vision) = (&self.text_config, &self.vision_config);
        let (hidden, heads) = (text.hidden_size, text.num_attention_heads);
        let intermediate = text.intermediate_size;
        Dimensions { hidden, intermediate, layers: text.num_hidden_layers, heads }.check()?;
        let (hidden, heads) = (vision.hidden_size, vision.num_attention_heads);
        let intermediate = vision.intermediate_size;
        Dimensions { hidden, intermediate, layers: vision.num_hidden_layers, heads }.check()?;
        check_patches(vision.image_size, vision.patch_size, 3)?;
        check_text(text.vocab_size, text.max_position_embeddings)?;
        for id in [text.bos_token_id, text.sep_token_id] {
            if id as usize >= text.vocab_size {
                let vocabulary = text.vocab_size;
                return Err(super::words::WordsError::Vocabulary { id, vocabulary }.into());
            }
        }
        Ok(Config {
            text_config: blip_text::Config {
                vocab_size: text.vocab_size,
                hidden_size: text.hidden_size,
                encoder_hidden_size: vision.hidden_size,
                intermediate_size: text.intermediate_size,
                projection_dim: 0,
                num_hidden_layers: text.num_hidden_layers,
                num_attention_heads: text.num_attention_heads,
                max_position_embeddings: text.max_position_embeddings,
                hidden_act: text.hidden_act,
                layer_norm_eps: text.layer_norm_eps,
                is_decoder: true,
            },
            vision_config: VisionConfig {
                hidden_size: vision.hidden_size,
                intermediate_size: vision.intermediate_size,
                projection_dim: 0,
                num_hidden_layers: vision.num_hidden_layers,
                num_attention_heads: vision.num_attention_heads,
                image_size: vision.image_size,
                patch_size: vision.patch_size,
                hidden_act: vision.hidden_act,
                layer_norm_eps: vision.layer_norm_eps,
            },
            projection_dim: 0,
            image_text_hidden_size: 0,
        })
    }
}

impl Captioner {
    pub(super) fn blip(
        config: &[u8],
        tokenizer: &[u8],
        mut tensors: Named,
        side: usize,
    ) -> Result<Self, HubError> {
        let file: BlipFile = parse(CONFIG, config)?;
        let config = file.checked()?;
        side_is(side, config.vision_config.image_size)?;
        // Files may hold what is the same tensor once.
        let decoder = |of: &str| format!("text_decoder.{of}");
        tensors.tied(
            &decoder("cls.predictions.decoder.weight"),
            &decoder("bert.embeddings.word_embeddings.weight"),
        );
        let bias = "cls.predictions.bias";
        tensors.tied(&decoder(bias), &decoder("cls.predictions.decoder.bias"));
        let network = BlipForConditionalGeneration::new(&config, tensors.builder())?;
        let text = &file.text_config;
        let positions_max = text.max_position_embeddings;
        let length = Length::Filled(0);
        let words = Words::new(tokenizer, length, positions_max, text.vocab_size)?;
        let (begin, end) = (text.bos_token_id, text.sep_token_id);
        Ok(Self { network, words, begin, end, positions_max })
    }

    /// What the decoder looks at, `n x patches x width`, of `n x 3 x h x w`.
    pub(super) fn pictures(&self, pictures: &Tensor) -> candle::Result<Tensor> {
        self.network.vision_model().forward(pictures)
    }

    /// A caption with no word yet, of the states of one picture.
    ///
    /// # Errors
    /// When the states are not those of a picture.
    pub fn begin(&self, states: &Map) -> candle::Result<Caption> {
        let states = Tensor::from_slice(&states.data, (1, states.w, states.c), &Device::Cpu)?;
        // The tensors are shared; the copy has a memory of its own for this caption's tokens.
        let decoder = Box::new(self.network.clone());
        Ok(Caption { decoder, states, tokens: Vec::new(), next: self.begin, done: false })
    }

    /// Writes one more token: the likeliest. The caption is done with the end token, or with
    /// `tokens_max` of them.
    pub(super) fn advance(&self, caption: &mut Caption, tokens_max: usize) -> candle::Result<()> {
        let input = Tensor::from_slice(&[caption.next], (1, 1), &Device::Cpu)?;
        let logits = caption.decoder.text_decoder().forward(&input, &caption.states)?;
        let token = logits.i((0, 0))?.argmax(D::Minus1)?.to_scalar::<u32>()?;
        caption.next = token;
        if token == self.end {
            caption.done = true;
        } else {
            caption.tokens.push(token);
            let most = tokens_max.min(self.positions_max.saturating_sub(1));
            caption.done = caption.tokens.len() >= most;
        }
        Ok(())
    }
}

/// A caption that is being written.
pub struct Caption {
    decoder: Box<BlipForConditionalGeneration>,
    states: Tensor,
    tokens: Vec<u32>,
    next: u32,
    done: bool,
}

impl Caption {
    /// The tokens so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether it is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl std::fmt::Debug for Caption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caption").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
