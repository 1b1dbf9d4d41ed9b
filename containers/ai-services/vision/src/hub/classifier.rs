//! Networks that give classes and a vector: a backbone, and a head where the folder has one.

use aisemble_weights::candle::{self, D, Module as _, ModuleT as _, Tensor};
use candle_nn::{Activation, BatchNorm, Conv2d, Conv2dConfig, Func, Linear};
use candle_transformers::models::mobilenetv4;

use super::config::Head;
use super::convolutional::{MobileNetV4, Resnet, resnet_names};
use super::network::HubError;
use super::tensors::Named;
use super::transformer::{self, Looked, Transformer};

/// Channels of MobileNetV4's last stage, and of its head's inner layer.
const MOBILE_FEATURES: usize = 960;
const MOBILE_INNER: usize = 1280;
/// Classes of a head.
const CLASSES_MAX: usize = 100_000;

/// A network with an embedding, and perhaps classes.
#[derive(Debug)]
pub struct Classifier {
    backbone: Backbone,
    head: Option<Linear>,
    features: usize,
    classes: usize,
}

#[derive(Debug)]
enum Backbone {
    Transformer(Transformer),
    Resnet(Func<'static>),
    MobileNetV4 { features: Func<'static>, inner: Option<Inner> },
}

/// The layer between MobileNetV4's features and its classes.
#[derive(Debug)]
struct Inner {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Classifier {
    pub(super) fn vit(bytes: &[u8], tensors: Named, side: usize) -> Result<Self, HubError> {
        let config = transformer::config(bytes)?;
        let tensors = tensors.renamed(|name| Some(without(name, "vit.")));
        let backbone = Transformer::vit(&config, &tensors, side)?;
        Self::of_transformer(backbone, &tensors)
    }

    pub(super) fn dinov2(bytes: &[u8], tensors: Named, side: usize) -> Result<Self, HubError> {
        let config = transformer::config(bytes)?;
        let mut tensors = tensors.renamed(|name| Some(without(name, "dinov2.")));
        let mut heads = Named::default();
        for name in ["classifier.weight", "classifier.bias", "layernorm.weight"] {
            if let Some(tensor) = tensors.get(name).cloned() {
                heads.insert(name, tensor);
            }
        }
        let backbone = Transformer::dinov2(&config, std::mem::take(&mut tensors), side)?;
        Self::of_transformer(backbone, &heads)
    }

    fn of_transformer(backbone: Transformer, tensors: &Named) -> Result<Self, HubError> {
        let features = tensors.get("layernorm.weight").map_or(0, Tensor::elem_count);
        let pooled = features * backbone.pooled_per_feature();
        let (head, classes) = linear(tensors, "classifier", pooled)?;
        Ok(Self { backbone: Backbone::Transformer(backbone), head, features, classes })
    }

    pub(super) fn resnet(head: &Head, bytes: &[u8], tensors: Named) -> Result<Self, HubError> {
        let kind = Resnet::read(head, bytes)?;
        let tensors = resnet_names(tensors);
        let backbone = Backbone::Resnet(kind.build(tensors.builder())?);
        let features = kind.features();
        let (head, classes) = linear(&tensors, "fc", features)?;
        Ok(Self { backbone, head, features, classes })
    }

    pub(super) fn mobilenetv4(head: &Head, tensors: &Named) -> Result<Self, HubError> {
        let kind = MobileNetV4::read(head)?;
        let vb = tensors.builder();
        let features = mobilenetv4::mobilenetv4_no_final_layer(&kind.config(), vb.clone())?;
        let (head, classes) = linear(tensors, "classifier", MOBILE_INNER)?;
        let inner = match head {
            Some(_) => Some(Inner {
                conv: candle_nn::conv2d_no_bias(
                    MOBILE_FEATURES,
                    MOBILE_INNER,
                    1,
                    Conv2dConfig::default(),
                    vb.pp("conv_head"),
                )?,
                norm: candle_nn::batch_norm(MOBILE_INNER, 1e-5, vb.pp("norm_head"))?,
            }),
            None => None,
        };
        let backbone = Backbone::MobileNetV4 { features, inner };
        Ok(Self { backbone, head, features: MOBILE_FEATURES, classes })
    }

    /// Values of the embedding.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    /// Classes; 0 without a head.
    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// Logits (`n x 0` without a head) and features of `n x 3 x h x w`.
    pub(super) fn forward(&self, pictures: &Tensor) -> candle::Result<[Option<Tensor>; 2]> {
        let Looked { pooled, features } = match &self.backbone {
            Backbone::Transformer(network) => network.forward(pictures)?,
            Backbone::Resnet(network) => {
                let features = network.forward(pictures)?;
                Looked { pooled: features.clone(), features }
            }
            Backbone::MobileNetV4 { features, inner } => {
                let features = features.forward(pictures)?;
                let pooled = match inner {
                    Some(Inner { conv, norm }) => {
                        let x = norm.forward_t(&conv.forward(&features)?, false)?;
                        Activation::Relu.forward(&x)?.flatten_from(1)?
                    }
                    None => features.clone(),
                };
                Looked { pooled, features: features.flatten_from(1)? }
            }
        };
        let logits = self.head.as_ref().map(|head| head.forward(&pooled)).transpose()?;
        debug_assert_eq!(features.dim(D::Minus1)?, self.features);
        Ok([logits, Some(features)])
    }
}

/// The linear layer of that name for inputs of `width`, and how many outputs it has; none where
/// the file has no such layer.
fn linear(tensors: &Named, name: &str, width: usize) -> Result<(Option<Linear>, usize), HubError> {
    let Some(weight) = tensors.get(&format!("{name}.weight")) else { return Ok((None, 0)) };
    let classes = weight.dims().first().copied().unwrap_or(0);
    if classes == 0 || classes > CLASSES_MAX {
        return Err(HubError::Classes { found: classes, limit: CLASSES_MAX });
    }
    let layer = candle_nn::linear(width, classes, tensors.builder().pp(name))?;
    Ok((Some(layer), classes))
}

fn without(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}
