//! A folder of a hub as one network: which family it is of, what it needs, what it can do, and the
//! one call that the model thread makes.

use aisemble_protocol::vision::Task;
use aisemble_weights::candle::{self, Device, Tensor};

use super::caption::{Caption, Captioner};
use super::classifier::Classifier;
use super::config::{ConfigError, Head, parse};
use super::pair::Pair;
use super::prepare::{Prepare, PrepareError};
use super::tensors::Named;
use super::words::WordsError;
use crate::compute::Map;
use crate::picture::Picture;
use crate::weights_file::{Tensors, WeightsError};

/// Files beside the weights.
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Why a folder of a hub is not served.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A file is needed and not pinned.
    #[error("the architecture needs {file}, and its digest under sha256")]
    NoFile {
        /// The file.
        file: &'static str,
    },
    /// Its configuration cannot be used.
    #[error("config.json cannot be used")]
    Config {
        /// Why.
        #[from]
        source: ConfigError,
    },
    /// It does not say how pictures are prepared.
    #[error("the preparation of pictures is not known")]
    Prepare {
        /// Why.
        #[from]
        source: PrepareError,
    },
    /// Its tokenizer cannot be used.
    #[error("the tokenizer cannot be used")]
    Words {
        /// Why.
        #[from]
        source: WordsError,
    },
    /// A tensor cannot be read.
    #[error("the weights cannot be read")]
    Weights {
        /// Why.
        #[from]
        source: WeightsError,
    },
    /// The tensors are not those of the network.
    #[error("the tensors are not those that config.json promises")]
    Network {
        /// Which one, and how it differs.
        #[from]
        source: candle::Error,
    },
    /// A tensor that the network learnt is missing.
    #[error("the file has no tensor {tensor:?} of one value that can be used")]
    Missing {
        /// The tensor.
        tensor: &'static str,
    },
    /// Pictures are prepared for another network.
    #[error("pictures are prepared as {given} x {given} pixels; the network takes {expected}")]
    Side {
        /// What the preparation gives.
        given: usize,
        /// What the network takes.
        expected: String,
    },
    /// The head has none or too many classes.
    #[error("the classifier has {found} classes; between 1 and {limit} are served")]
    Classes {
        /// How many.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// The names of classes are not one for each.
    #[error("id2label has {found} names that can be used; the model has {expected} classes")]
    Labels {
        /// Names.
        found: usize,
        /// Classes.
        expected: usize,
    },
}

/// The families that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Vision transformer.
    Vit,
    /// DINOv2, without registers.
    Dinov2,
    /// ResNet-18 to 152.
    Resnet,
    /// MobileNetV4, as timm has it.
    MobileNetV4,
    /// CLIP.
    Clip,
    /// SigLIP, of one size of pictures.
    Siglip,
    /// BLIP for captions.
    Blip,
}

impl Family {
    /// The name in configuration, and `model_type` in a hub's `config.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vit => "vit",
            Self::Dinov2 => "dinov2",
            Self::Resnet => "resnet",
            Self::MobileNetV4 => "mobilenetv4",
            Self::Clip => "clip",
            Self::Siglip => "siglip",
            Self::Blip => "blip",
        }
    }

    /// The kind of image processor that transformers takes for it.
    fn processor(self) -> Option<&'static str> {
        match self {
            Self::Vit => Some("ViT"),
            Self::Dinov2 => Some("Bit"),
            Self::Resnet => Some("ConvNext"),
            Self::MobileNetV4 => None,
            Self::Clip => Some("CLIP"),
            Self::Siglip => Some("Siglip"),
            Self::Blip => Some("Blip"),
        }
    }
}

/// The files beside the weights, as they are pinned; one that is not is empty.
#[derive(Debug, Default)]
pub struct Files {
    /// `config.json`.
    pub config: Vec<u8>,
    /// `preprocessor_config.json`.
    pub preprocessor: Vec<u8>,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
}

/// A network of a hub.
#[derive(Debug)]
pub struct Hub {
    network: Network,
    prepare: Prepare,
    labels: Vec<String>,
    parameters: u64,
}

#[derive(Debug)]
enum Network {
    Classifier(Classifier),
    Pair(Pair),
    Captioner(Captioner),
}

impl Hub {
    /// Builds the network of a folder.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn load(family: Family, file: &Tensors<'_>, files: &Files) -> Result<Self, HubError> {
        let config = there(&files.config, CONFIG)?;
        let head: Head = parse(CONFIG, config)?;
        head.check(family.as_str())?;
        let prepare = match &head.pretrained_cfg {
            Some(cfg) if files.preprocessor.is_empty() => Prepare::from_timm(cfg)?,
            Some(_) | None => {
                let file = there(&files.preprocessor, PREPROCESSOR)?;
                Prepare::from_transformers(file, family.processor())?
            }
        };
        let tensors = Named::read(file)?;
        let (parameters, side) = (tensors.parameters(), prepare.side());
        let words = || there(&files.tokenizer, TOKENIZER);
        let network = match family {
            Family::Vit => Network::Classifier(Classifier::vit(config, tensors, side)?),
            Family::Dinov2 => Network::Classifier(Classifier::dinov2(config, tensors, side)?),
            Family::Resnet => Network::Classifier(Classifier::resnet(&head, config, tensors)?),
            Family::MobileNetV4 => Network::Classifier(Classifier::mobilenetv4(&head, &tensors)?),
            Family::Clip => Network::Pair(Pair::clip(config, words()?, &tensors, side)?),
            Family::Siglip => Network::Pair(Pair::siglip(config, words()?, &tensors, side)?),
            Family::Blip => Network::Captioner(Captioner::blip(config, words()?, tensors, side)?),
        };
        let labels = labels(&network, &head)?;
        Ok(Self { network, prepare, labels, parameters })
    }

    /// What it can do.
    #[must_use]
    pub fn tasks(&self) -> &'static [Task] {
        match &self.network {
            Network::Classifier(network) if network.classes() > 0 => &[Task::Classify, Task::Embed],
            Network::Classifier(_) => &[Task::Embed],
            Network::Pair(_) => &[Task::Embed, Task::ZeroShot],
            Network::Captioner(_) => &[Task::Caption],
        }
    }

    /// Values of its embedding, 0 when it has none.
    #[must_use]
    pub fn embedding(&self) -> usize {
        match &self.network {
            Network::Classifier(network) => network.features(),
            Network::Pair(network) => network.features(),
            Network::Captioner(_) => 0,
        }
    }

    /// Names of its classes, or numbers.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Weights and biases.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// How pictures become inputs.
    #[must_use]
    pub fn prepare(&self) -> &Prepare {
        &self.prepare
    }

    /// The input of a picture.
    #[must_use]
    pub fn input(&self, picture: &Picture) -> Map {
        self.prepare.input(picture)
    }

    /// The side that knows texts; none for who has none.
    #[must_use]
    pub fn pair(&self) -> Option<&Pair> {
        match &self.network {
            Network::Pair(network) => Some(network),
            Network::Classifier(_) | Network::Captioner(_) => None,
        }
    }

    /// The writer of captions.
    #[must_use]
    pub fn captioner(&self) -> Option<&Captioner> {
        match &self.network {
            Network::Captioner(network) => Some(network),
            Network::Classifier(_) | Network::Pair(_) => None,
        }
    }

    /// What comes out for a batch of pictures: logits (of no class without a head) and features,
    /// or a captioner's states.
    ///
    /// # Errors
    /// When the inputs are not those that [`input`](Self::input) makes.
    pub fn forward(&self, batch: &Map) -> candle::Result<Vec<Map>> {
        let (n, h, w, c) = batch.shape();
        let pictures = Tensor::from_slice(&batch.data, (n, h, w, c), &Device::Cpu)?;
        let pictures = pictures.permute((0, 3, 1, 2))?.contiguous()?;
        let none = || Map::zeros(n, 1, 1, 0);
        match &self.network {
            Network::Classifier(network) => {
                let of =
                    |found: Option<Tensor>| found.map_or_else(|| Ok(none()), |found| map(&found));
                network.forward(&pictures)?.map(of).into_iter().collect()
            }
            Network::Pair(network) => Ok(vec![none(), map(&network.pictures(&pictures)?)?]),
            Network::Captioner(network) => Ok(vec![map(&network.pictures(&pictures)?)?]),
        }
    }

    /// Vectors of texts of one length, one map each.
    ///
    /// # Errors
    /// When the lengths differ, or the network knows no texts.
    pub fn texts(&self, texts: &[&[u32]]) -> candle::Result<Vec<Map>> {
        let Some(pair) = self.pair() else {
            return Err(candle::Error::Msg("the network knows no texts".to_owned()));
        };
        let length = texts.first().map_or(0, |text| text.len());
        let tokens = Tensor::from_vec(texts.concat(), (texts.len(), length), &Device::Cpu)?;
        Ok(map(&pair.texts(&tokens)?)?.unstack())
    }

    /// One more token of a caption.
    ///
    /// # Errors
    /// When the network writes no captions.
    pub fn advance(&self, caption: &mut Caption, tokens_max: usize) -> candle::Result<()> {
        match self.captioner() {
            Some(network) => network.advance(caption, tokens_max),
            None => Err(candle::Error::Msg("the network writes no captions".to_owned())),
        }
    }
}

fn there<'a>(bytes: &'a [u8], file: &'static str) -> Result<&'a [u8], HubError> {
    if bytes.is_empty() { Err(HubError::NoFile { file }) } else { Ok(bytes) }
}

/// `n x c` as `n x 1 x 1 x c`, `n x w x c` as `n x 1 x w x c`.
fn map(tensor: &Tensor) -> candle::Result<Map> {
    let (n, w, c) = match *tensor.dims() {
        [n, c] => (n, 1, c),
        [n, w, c] => (n, w, c),
        _ => return Err(candle::Error::Msg("an output of another rank".to_owned())),
    };
    Ok(Map::new((n, 1, w, c), tensor.flatten_all()?.to_vec1()?))
}

fn labels(network: &Network, head: &Head) -> Result<Vec<String>, HubError> {
    let Network::Classifier(network) = network else { return Ok(Vec::new()) };
    let expected = network.classes();
    if head.id2label.is_empty() || expected == 0 {
        return Ok((0..expected).map(|class| class.to_string()).collect());
    }
    let labels = crate::catalog::ordered(&head.id2label, expected);
    labels.map_err(|found| HubError::Labels { found, expected })
}
