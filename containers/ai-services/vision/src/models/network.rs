//! Any of the networks: what a model section's `architecture` names, and the one call that the
//! model thread makes.

use std::fmt;

use aisemble_protocol::vision::Task;
use aisemble_weights::candle;
use aisemble_weights::kernels::Pool;
use serde::{Deserialize, Serialize};

use super::{CenterFace, Craft, Crnn, EfficientNetLite0, SsdLite};
use crate::compute::{Conv, Map};
use crate::hub::{Family, Files, Hub, HubError};
use crate::weights_file::{Tensors, WeightsError};

/// The networks that are known, as configuration names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// Classes of ImageNet, embeddings.
    #[serde(rename = "efficientnet-lite0")]
    EfficientNetLite0,
    /// Faces.
    #[serde(rename = "centerface")]
    CenterFace,
    /// Persons.
    #[serde(rename = "ssdlite-person")]
    SsdLite,
    /// Where text is.
    #[serde(rename = "craft")]
    Craft,
    /// What it says.
    #[serde(rename = "crnn")]
    Crnn,
    /// A hub's vision transformer: embeddings, perhaps classes.
    #[serde(rename = "vit")]
    Vit,
    /// A hub's DINOv2: embeddings, perhaps classes.
    #[serde(rename = "dinov2")]
    Dinov2,
    /// A hub's ResNet: embeddings, perhaps classes.
    #[serde(rename = "resnet")]
    Resnet,
    /// A hub's MobileNetV4: embeddings, perhaps classes.
    #[serde(rename = "mobilenetv4")]
    MobileNetV4,
    /// A hub's CLIP: embeddings, labels of the caller.
    #[serde(rename = "clip")]
    Clip,
    /// A hub's SigLIP: embeddings, labels of the caller.
    #[serde(rename = "siglip")]
    Siglip,
    /// A hub's BLIP: captions.
    #[serde(rename = "blip")]
    Blip,
}

impl Architecture {
    /// The family of a hub that it is of; none for those of packages.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        match self {
            Self::EfficientNetLite0
            | Self::CenterFace
            | Self::SsdLite
            | Self::Craft
            | Self::Crnn => None,
            Self::Vit => Some(Family::Vit),
            Self::Dinov2 => Some(Family::Dinov2),
            Self::Resnet => Some(Family::Resnet),
            Self::MobileNetV4 => Some(Family::MobileNetV4),
            Self::Clip => Some(Family::Clip),
            Self::Siglip => Some(Family::Siglip),
            Self::Blip => Some(Family::Blip),
        }
    }

    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EfficientNetLite0 => "efficientnet-lite0",
            Self::CenterFace => "centerface",
            Self::SsdLite => "ssdlite-person",
            Self::Craft => "craft",
            Self::Crnn => "crnn",
            Self::Vit => Family::Vit.as_str(),
            Self::Dinov2 => Family::Dinov2.as_str(),
            Self::Resnet => Family::Resnet.as_str(),
            Self::MobileNetV4 => Family::MobileNetV4.as_str(),
            Self::Clip => Family::Clip.as_str(),
            Self::Siglip => Family::Siglip.as_str(),
            Self::Blip => Family::Blip.as_str(),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A model's files do not make a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The weights of a package's network.
    #[error("model.safetensors cannot be used")]
    Weights {
        /// Why.
        #[from]
        source: WeightsError,
    },
    /// The folder of a hub's network.
    #[error("the folder is not one that is served")]
    Hub {
        /// Why.
        #[from]
        source: HubError,
    },
}

/// A network with its weights.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful for the life of the process")]
pub enum Network {
    /// See [`EfficientNetLite0`].
    EfficientNetLite0(EfficientNetLite0),
    /// See [`CenterFace`].
    CenterFace(CenterFace),
    /// See [`SsdLite`].
    SsdLite(SsdLite),
    /// See [`Craft`].
    Craft(Craft),
    /// See [`Crnn`].
    Crnn(Crnn),
    /// See [`Hub`].
    Hub(Hub),
}

impl Network {
    /// Takes the weights of a network out of a file; a hub's needs the files beside it.
    ///
    /// # Errors
    /// [`NetworkError`] naming the tensor or the key.
    pub fn load(
        architecture: Architecture,
        tensors: &Tensors<'_>,
        files: &Files,
    ) -> Result<Self, NetworkError> {
        let hub = |family| Hub::load(family, tensors, files).map(Self::Hub);
        Ok(match architecture {
            Architecture::EfficientNetLite0 => {
                Self::EfficientNetLite0(EfficientNetLite0::load(tensors)?)
            }
            Architecture::CenterFace => Self::CenterFace(CenterFace::load(tensors)?),
            Architecture::SsdLite => Self::SsdLite(SsdLite::load(tensors)?),
            Architecture::Craft => Self::Craft(Craft::load(tensors)?),
            Architecture::Crnn => Self::Crnn(Crnn::load(tensors)?),
            Architecture::Vit => hub(Family::Vit)?,
            Architecture::Dinov2 => hub(Family::Dinov2)?,
            Architecture::Resnet => hub(Family::Resnet)?,
            Architecture::MobileNetV4 => hub(Family::MobileNetV4)?,
            Architecture::Clip => hub(Family::Clip)?,
            Architecture::Siglip => hub(Family::Siglip)?,
            Architecture::Blip => hub(Family::Blip)?,
        })
    }

    /// What it is for. Reading text takes both `craft` and `crnn`.
    #[must_use]
    pub fn tasks(&self) -> &'static [Task] {
        match self {
            Self::EfficientNetLite0(_) => &[Task::Classify, Task::Embed],
            Self::CenterFace(_) => &[Task::Faces],
            Self::SsdLite(_) => &[Task::Detect],
            Self::Craft(_) | Self::Crnn(_) => &[Task::Ocr],
            Self::Hub(network) => network.tasks(),
        }
    }

    /// Values of its embedding, 0 when it has none.
    #[must_use]
    pub fn embedding(&self) -> usize {
        match self {
            Self::EfficientNetLite0(_) => super::efficientnet::FEATURES,
            Self::CenterFace(_) | Self::SsdLite(_) | Self::Craft(_) | Self::Crnn(_) => 0,
            Self::Hub(network) => network.embedding(),
        }
    }

    /// Names of its classes where no file names them, or numbers.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        match self {
            Self::EfficientNetLite0(_) => {
                (0..super::efficientnet::CLASSES).map(|class| class.to_string()).collect()
            }
            Self::SsdLite(_) => super::defaults::DETECT_LABELS.map(str::to_owned).to_vec(),
            Self::CenterFace(_) | Self::Craft(_) | Self::Crnn(_) => Vec::new(),
            Self::Hub(network) => network.labels().to_vec(),
        }
    }

    /// The maps that come out for a batch of inputs of one size; each has the batch's `n`.
    ///
    /// # Errors
    /// When a hub's network gets what it does not take.
    pub fn forward(&self, pool: &Pool, batch: &Map) -> candle::Result<Vec<Map>> {
        Ok(match self {
            Self::EfficientNetLite0(network) => network.forward(pool, batch),
            Self::CenterFace(network) => network.forward(pool, batch),
            Self::SsdLite(network) => network.forward(pool, batch),
            Self::Craft(network) => network.forward(pool, batch),
            Self::Crnn(network) => network.forward(pool, batch),
            Self::Hub(network) => network.forward(batch)?,
        })
    }

    /// Weights and biases, as packed.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let sum = |convolutions: &mut dyn Iterator<Item = &Conv>| {
            convolutions.map(|conv| conv.parameters() as u64).sum()
        };
        match self {
            Self::EfficientNetLite0(network) => sum(&mut network.convolutions()),
            Self::CenterFace(network) => sum(&mut network.convolutions()),
            Self::SsdLite(network) => sum(&mut network.convolutions()),
            Self::Craft(network) => sum(&mut network.convolutions()),
            Self::Crnn(network) => sum(&mut network.convolutions()),
            Self::Hub(network) => network.parameters(),
        }
    }
}
