//! EfficientNet-Lite0 (TensorFlow's, as converted to PyTorch): 1,000 classes of ImageNet, and the
//! mean of the last features as an embedding.
//!
//! Against EfficientNet-B0: no squeeze-and-excitation, ReLU6, and TensorFlow's `SAME` padding. The
//! picture is resized to 256 pixels on its shorter side (bicubic), 224 x 224 are cut out of the
//! middle, and values are `(x - 127) / 128`.

use aisemble_weights::kernels::Pool;

use super::inverted_residual::InvertedResidual;
use super::prepare;
use crate::compute::{Activation, Conv, ConvShape, Map, Padding, mean_pixels};
use crate::picture::{Filter, Picture};
use crate::weights_file::{BatchNorm, Tensors, WeightsError};

/// Pixels of a side of the input.
const SIDE: usize = 224;
/// Pixels of the shorter side before the middle is cut out.
const SIDE_RESIZED: usize = 256;
/// Classes.
pub(super) const CLASSES: usize = 1000;
/// Values of the embedding.
pub(super) const FEATURES: usize = 1280;
/// Of batch normalisation.
const EPSILON: f32 = 1e-3;
/// Repeats, kernel, stride of the first, expansion, output channels.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

/// The network.
#[derive(Debug)]
pub struct EfficientNetLite0 {
    stem: Conv,
    blocks: Vec<InvertedResidual>,
    head: Conv,
    classifier: Conv,
}

impl EfficientNetLite0 {
    /// Takes the weights out of a file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the tensor.
    pub fn load(tensors: &Tensors<'_>) -> Result<Self, WeightsError> {
        let conv = |shape: ConvShape, weights: String, norm: String, activation| {
            let [scale, shift, mean, variance] =
                ["weight", "bias", "running_mean", "running_var"].map(|of| format!("{norm}.{of}"));
            let names = [&*scale, &*shift, &*mean, &*variance];
            let norm = BatchNorm { names, epsilon: EPSILON };
            let shape = shape.padding(Padding::Same);
            tensors.conv(shape, &format!("{weights}.weight"), "", Some(norm), activation)
        };
        let stem = conv(
            ConvShape::square(3, 32, 3).stride(2),
            "_conv_stem".to_owned(),
            "_bn0".to_owned(),
            Activation::Relu6,
        )?;
        let (mut blocks, mut input) = (Vec::new(), 32);
        for (repeats, kernel, stride, expansion, output) in STAGES {
            for repeat in 0..repeats {
                let name = |of: &str| format!("_blocks.{}.{of}", blocks.len());
                let inner = input * expansion;
                let expand = (expansion > 1).then(|| {
                    let shape = ConvShape::pointwise(input, inner);
                    conv(shape, name("_expand_conv"), name("_bn0"), Activation::Relu6)
                });
                let stride = if repeat == 0 { stride } else { 1 };
                let shape = ConvShape::depthwise(inner, kernel).stride(stride);
                let depthwise =
                    conv(shape, name("_depthwise_conv"), name("_bn1"), Activation::Relu6)?;
                let shape = ConvShape::pointwise(inner, output);
                let project = conv(shape, name("_project_conv"), name("_bn2"), Activation::None)?;
                blocks.push(InvertedResidual { expand: expand.transpose()?, depthwise, project });
                input = output;
            }
        }
        let shape = ConvShape::pointwise(input, FEATURES);
        let head = conv(shape, "_conv_head".to_owned(), "_bn1".to_owned(), Activation::Relu6)?;
        let classifier = tensors.linear((FEATURES, CLASSES), "_fc.weight", "_fc.bias")?;
        Ok(Self { stem, blocks, head, classifier })
    }

    /// The picture as the network takes it: 1 x 224 x 224 x 3.
    #[must_use]
    pub fn prepare(picture: &Picture) -> Map {
        let middle = prepare::resize_and_crop(picture, SIDE_RESIZED, SIDE, Filter::Bicubic);
        prepare::normalize(&middle, [127.0; 3], [128.0; 3])
    }

    /// Logits and features, each `n` x 1 x 1.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map) -> Vec<Map> {
        let mut x = self.stem.forward(pool, x, None);
        for block in &self.blocks {
            x = block.forward(pool, &x);
        }
        let features = mean_pixels(&self.head.forward(pool, &x, None));
        vec![self.classifier.forward(pool, &features, None), features]
    }

    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let blocks = self.blocks.iter().flat_map(InvertedResidual::convolutions);
        [&self.stem, &self.head, &self.classifier].into_iter().chain(blocks)
    }
}
