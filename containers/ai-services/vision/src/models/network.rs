//! Any of the networks: what a model section's `architecture` names, and the one call that the
//! model thread makes.

use std::fmt;

use aisemble_protocol::vision::Task;
use aisemble_weights::kernels::Pool;
use serde::{Deserialize, Serialize};

use super::{CenterFace, Craft, Crnn, EfficientNetLite0, SsdLite};
use crate::compute::{Conv, Map};
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
}

impl Architecture {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::EfficientNetLite0, Self::CenterFace, Self::SsdLite, Self::Craft, Self::Crnn];

    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EfficientNetLite0 => "efficientnet-lite0",
            Self::CenterFace => "centerface",
            Self::SsdLite => "ssdlite-person",
            Self::Craft => "craft",
            Self::Crnn => "crnn",
        }
    }

    /// What it is for. Reading text takes both `craft` and `crnn`.
    #[must_use]
    pub fn tasks(self) -> &'static [Task] {
        match self {
            Self::EfficientNetLite0 => &[Task::Classify, Task::Embed],
            Self::CenterFace => &[Task::Faces],
            Self::SsdLite => &[Task::Detect],
            Self::Craft | Self::Crnn => &[Task::Ocr],
        }
    }

    /// Values of its embedding, 0 when it has none.
    #[must_use]
    pub fn embedding(self) -> usize {
        match self {
            Self::EfficientNetLite0 => super::efficientnet::FEATURES,
            Self::CenterFace | Self::SsdLite | Self::Craft | Self::Crnn => 0,
        }
    }

    /// Classes of its classifier, 0 when it has none.
    #[must_use]
    pub fn classes(self) -> usize {
        match self {
            Self::EfficientNetLite0 => super::efficientnet::CLASSES,
            Self::CenterFace | Self::SsdLite | Self::Craft | Self::Crnn => 0,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
}

impl Network {
    /// Takes the weights of a network out of a file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the tensor.
    pub fn load(architecture: Architecture, tensors: &Tensors<'_>) -> Result<Self, WeightsError> {
        Ok(match architecture {
            Architecture::EfficientNetLite0 => {
                Self::EfficientNetLite0(EfficientNetLite0::load(tensors)?)
            }
            Architecture::CenterFace => Self::CenterFace(CenterFace::load(tensors)?),
            Architecture::SsdLite => Self::SsdLite(SsdLite::load(tensors)?),
            Architecture::Craft => Self::Craft(Craft::load(tensors)?),
            Architecture::Crnn => Self::Crnn(Crnn::load(tensors)?),
        })
    }

    /// The maps that come out for a batch of inputs of one size; each has the batch's `n`.
    #[must_use]
    pub fn forward(&self, pool: &Pool, batch: &Map) -> Vec<Map> {
        match self {
            Self::EfficientNetLite0(network) => network.forward(pool, batch),
            Self::CenterFace(network) => network.forward(pool, batch),
            Self::SsdLite(network) => network.forward(pool, batch),
            Self::Craft(network) => network.forward(pool, batch),
            Self::Crnn(network) => network.forward(pool, batch),
        }
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
        }
    }
}
