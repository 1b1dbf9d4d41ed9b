//! ViT and DINOv2: patches through a transformer. A DINOv2 layer is one of ViT whose two outputs
//! are multiplied by learnt factors, and those become part of the linear layers before them.

use aisemble_weights::candle::{self, IndexOp as _, Module as _, Tensor};
use candle_nn::LayerNorm;
use candle_transformers::models::vit::{Config, Embeddings, Encoder};

use super::config::{ConfigError, VitConfig};
use super::network::HubError;
use super::positions;
use super::tensors::Named;

/// The transformer without its head.
#[derive(Debug)]
pub(super) struct Transformer {
    embeddings: Embeddings,
    encoder: Encoder,
    norm: LayerNorm,
    /// Whether the head looks at the mean of the patches, too.
    with_mean: bool,
}

/// What a picture is for the head and for who wants a vector.
pub(super) struct Looked {
    /// What the head takes.
    pub(super) pooled: Tensor,
    /// The embedding.
    pub(super) features: Tensor,
}

impl Transformer {
    /// A ViT for inputs of `side` pixels, which must be those that it was trained with.
    pub(super) fn vit(config: &VitConfig, tensors: &Named, side: usize) -> Result<Self, HubError> {
        if side != config.image_size {
            return Err(HubError::Side { given: side, expected: config.image_size.to_string() });
        }
        Ok(Self::new(&config.checked(side)?, tensors, false)?)
    }

    /// A DINOv2 for inputs of `side` pixels, a multiple of its patches'.
    pub(super) fn dinov2(
        config: &VitConfig,
        tensors: Named,
        side: usize,
    ) -> Result<Self, HubError> {
        let checked = config.checked(side)?;
        if !side.is_multiple_of(config.patch_size) {
            let expected = format!("a multiple of {}", config.patch_size);
            return Err(HubError::Side { given: side, expected });
        }
        let mut tensors = tensors.renamed(|name| Some(vit_name(name)));
        for layer in 0..checked.num_hidden_layers {
            let of = |part: &str| format!("encoder.layer.{layer}.{part}");
            tensors.fold(&of("layer_scale1.lambda1"), &of("attention.output.dense"))?;
            tensors.fold(&of("layer_scale2.lambda1"), &of("output.dense"))?;
        }
        let positions = "embeddings.position_embeddings";
        if let Some(trained) = tensors.get(positions) {
            let resized = positions::resized(trained, side / config.patch_size)?;
            tensors.insert(positions, resized);
        }
        Ok(Self::new(&checked, &tensors, true)?)
    }

    fn new(config: &Config, tensors: &Named, with_mean: bool) -> candle::Result<Self> {
        let vb = tensors.builder();
        let norm =
            candle_nn::layer_norm(config.hidden_size, config.layer_norm_eps, vb.pp("layernorm"))?;
        Ok(Self {
            embeddings: Embeddings::new(config, false, vb.pp("embeddings"))?,
            encoder: Encoder::new(config, vb.pp("encoder"))?,
            norm,
            with_mean,
        })
    }

    /// Values that the head takes, for each of the embedding.
    pub(super) fn pooled_per_feature(&self) -> usize {
        if self.with_mean { 2 } else { 1 }
    }

    /// `n x 3 x h x w` to what the class token became, layer normalisation included.
    pub(super) fn forward(&self, pictures: &Tensor) -> candle::Result<Looked> {
        let hidden = self.encoder.forward(&self.embeddings.forward(pictures, None, false)?)?;
        if !self.with_mean {
            let features = self.norm.forward(&hidden.i((.., 0))?.contiguous()?)?;
            return Ok(Looked { pooled: features.clone(), features });
        }
        let hidden = self.norm.forward(&hidden)?;
        let features = hidden.i((.., 0))?.contiguous()?;
        let mean = hidden.i((.., 1..))?.mean(1)?;
        Ok(Looked { pooled: Tensor::cat(&[&features, &mean], 1)?, features })
    }
}

/// What ViT calls the tensor that DINOv2 calls `name`.
fn vit_name(name: &str) -> String {
    let renamed = [
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ];
    let found = renamed.iter().find(|(from, _)| name.contains(from));
    found.map_or_else(|| name.to_owned(), |(from, to)| name.replacen(from, to, 1))
}

/// What a `config.json` of the family says.
pub(super) fn config(bytes: &[u8]) -> Result<VitConfig, ConfigError> {
    super::config::parse(super::network::CONFIG, bytes)
}
