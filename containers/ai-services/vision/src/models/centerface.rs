//! CenterFace (Xu et al. 2019): faces as points, with a box and five landmarks for each.
//!
//! A MobileNetV2 and a pyramid of four levels give, at a quarter of the resolution, how likely a
//! face's centre is here, how large the face is, where exactly the centre lies, and where eyes,
//! nose and mouth are. The input is RGB from 0 to 255, its sides multiples of 32.

use aisemble_weights::kernels::Pool;

use super::boxes::{Candidate, Rect, suppress};
use super::inverted_residual::InvertedResidual;
use super::prepare;
use crate::compute::{Activation, Conv, ConvShape, Map, add_assign, sigmoid};
use crate::picture::{Picture, resize_linear};
use crate::weights_file::{BatchNorm, Tensors, WeightsError};

/// The longer side that is looked at, pixels: larger pictures are made smaller.
const SIDE_MAX: usize = 1280;
/// Sides are multiples of this.
const MULTIPLE: usize = 32;
/// Pixels of the input for one of the output.
const STRIDE: f32 = 4.0;
/// Least score when the caller names none.
pub const SCORE_MIN: f32 = 0.5;
/// Overlap when the caller names none.
pub const NMS_IOU: f32 = 0.3;
/// Faces of a picture that are told at most.
const FACES_MAX: usize = 500;
/// Points of a face.
const LANDMARKS: usize = 5;
/// Heat, size, offset, landmarks.
const OUTPUTS: usize = 1 + 2 + 2 + 2 * LANDMARKS;
/// Channels of the pyramid.
const NECK: usize = 24;
/// Of batch normalisation behind the transposed convolutions.
const EPSILON: f32 = 1e-3;
/// Input and output channels and stride of each block.
const BLOCKS: [(usize, usize, usize); 16] = [
    (16, 24, 2),
    (24, 24, 1),
    (24, 32, 2),
    (32, 32, 1),
    (32, 32, 1),
    (32, 64, 2),
    (64, 64, 1),
    (64, 64, 1),
    (64, 64, 1),
    (64, 96, 1),
    (96, 96, 1),
    (96, 96, 1),
    (96, 160, 2),
    (160, 160, 1),
    (160, 160, 1),
    (160, 320, 1),
];
/// Blocks whose results the pyramid takes, the coarsest first.
const TAPS: [usize; 4] = [15, 11, 4, 1];
/// The ONNX file numbers its tensors: the first convolution's weights; each next one's are 4 on,
/// its bias 2 behind its weights.
const FIRST_TENSOR: usize = 542;

/// The network.
#[derive(Debug)]
pub struct CenterFace {
    stem: Conv,
    first: InvertedResidual,
    blocks: Vec<InvertedResidual>,
    /// To the pyramid's channels, in the order of [`TAPS`].
    lateral: [Conv; 4],
    /// From one level to the next finer one: 1 x 1 to four pixels.
    up: [Conv; 3],
    smooth: Conv,
    heads: Conv,
}

/// A face, in pixels of the picture that was prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundFace {
    /// 0 to 1.
    pub score: f32,
    /// Where.
    pub bounds: Rect,
    /// x and y of eyes, nose, corners of the mouth.
    pub landmarks: [(f32, f32); LANDMARKS],
}

impl CenterFace {
    /// Takes the weights out of a file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the tensor.
    pub fn load(tensors: &Tensors<'_>) -> Result<Self, WeightsError> {
        let mut number = FIRST_TENSOR;
        let mut next = |shape: ConvShape, activation| {
            let (weights, bias) = (number.to_string(), (number + 2).to_string());
            number += 4;
            tensors.conv(shape, &weights, &bias, None, activation)
        };
        let relu = Activation::Relu;
        let stem = next(ConvShape::square(3, 32, 3).stride(2), relu)?;
        let first = InvertedResidual {
            expand: None,
            depthwise: next(ConvShape::depthwise(32, 3), relu)?,
            project: next(ConvShape::pointwise(32, 16), Activation::None)?,
        };
        let mut blocks = Vec::with_capacity(BLOCKS.len());
        for (input, output, stride) in BLOCKS {
            let inner = input * 6;
            blocks.push(InvertedResidual {
                expand: Some(next(ConvShape::pointwise(input, inner), relu)?),
                depthwise: next(ConvShape::depthwise(inner, 3).stride(stride), relu)?,
                project: next(ConvShape::pointwise(inner, output), Activation::None)?,
            });
        }
        let mut lateral = |tap: usize| next(ConvShape::pointwise(BLOCKS[tap].1, NECK), relu);
        let lateral = [lateral(TAPS[0])?, lateral(TAPS[1])?, lateral(TAPS[2])?, lateral(TAPS[3])?];
        let smooth = next(ConvShape::square(NECK, NECK, 3), relu)?;
        let up = [up_conv(tensors, 2)?, up_conv(tensors, 1)?, up_conv(tensors, 0)?];
        Ok(Self { stem, first, blocks, lateral, up, smooth, heads: heads(tensors)? })
    }

    /// The picture as the network takes it, and how many of its pixels a pixel of the picture is,
    /// across and down.
    #[must_use]
    pub fn prepare(picture: &Picture) -> (Map, (f32, f32)) {
        let (width, height, _) = prepare::fit_within(picture, SIDE_MAX);
        let (w, h) = (width.next_multiple_of(MULTIPLE), height.next_multiple_of(MULTIPLE));
        let scale = (w as f32 / picture.width as f32, h as f32 / picture.height as f32);
        let resized = resize_linear(picture, w, h);
        (prepare::normalize(&resized, [0.0; 3], [1.0; 3]), scale)
    }

    /// Heat (before the sigmoid), size, offset and landmarks: `n` x `h`/4 x `w`/4 x 15.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map) -> Vec<Map> {
        let mut x = self.first.forward(pool, &self.stem.forward(pool, x, None));
        let mut levels = Vec::with_capacity(TAPS.len());
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(pool, &x);
            if let Some(level) = TAPS.iter().position(|tap| *tap == index) {
                levels.push(self.lateral[level].forward(pool, &x, None));
            }
        }
        // The finest was pushed first.
        let mut merged = levels.pop().unwrap_or(x);
        for up in &self.up {
            let mut finer = four_pixels(&up.forward(pool, &merged, None));
            if let Some(level) = levels.pop() {
                add_assign(&mut finer, &level);
            }
            merged = finer;
        }
        let smooth = self.smooth.forward(pool, &merged, None);
        vec![self.heads.forward(pool, &smooth, None)]
    }

    /// The faces of one picture's output, best first. `scale` is what [`prepare`](Self::prepare)
    /// gave.
    #[must_use]
    pub fn interpret(out: &Map, scale: (f32, f32), score_min: f32, nms_iou: f32) -> Vec<FoundFace> {
        let (width, height) = (out.w as f32 * STRIDE, out.h as f32 * STRIDE);
        let mut candidates = Vec::new();
        for (at, cell) in out.data.chunks_exact(OUTPUTS).enumerate() {
            let score = sigmoid(cell[0]);
            if score <= score_min || !score.is_finite() {
                continue;
            }
            let (row, column) = ((at / out.w) as f32, (at % out.w) as f32);
            let (tall, wide) = (cell[1].exp() * STRIDE, cell[2].exp() * STRIDE);
            let left = ((column + cell[4] + 0.5) * STRIDE - wide / 2.0).clamp(0.0, width);
            let top = ((row + cell[3] + 0.5) * STRIDE - tall / 2.0).clamp(0.0, height);
            let bounds = Rect {
                left,
                top,
                right: (left + wide).min(width),
                bottom: (top + tall).min(height),
            };
            let landmarks = std::array::from_fn(|point| {
                (cell[5 + 2 * point + 1] * wide + left, cell[5 + 2 * point] * tall + top)
            });
            candidates.push(Candidate { score, bounds, extra: landmarks });
        }
        let face = |found: Candidate<[(f32, f32); LANDMARKS]>| FoundFace {
            score: found.score,
            bounds: found.bounds.scaled(scale),
            landmarks: found.extra.map(|(x, y)| (x / scale.0, y / scale.1)),
        };
        suppress(candidates, nms_iou, FACES_MAX).into_iter().map(face).collect()
    }

    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let blocks = self.blocks.iter().chain([&self.first]);
        let blocks = blocks.flat_map(InvertedResidual::convolutions);
        let rest = [&self.stem, &self.smooth, &self.heads].into_iter();
        blocks.chain(rest).chain(&self.lateral).chain(&self.up)
    }
}

/// A transposed convolution of 2 x 2 with stride 2: each pixel gives four that no other one
/// touches, so it is a 1 x 1 convolution to four times the channels, and [`four_pixels`].
fn up_conv(tensors: &Tensors<'_>, level: usize) -> Result<Conv, WeightsError> {
    let name = |of: &str| format!("neck.deconv_layers.{level}.{of}");
    let weights = tensors.values(&name("conv.weight"), &[NECK, NECK, 2, 2])?;
    let [scale, shift, mean, variance] =
        ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"].map(name);
    let norm = BatchNorm { names: [&*scale, &*shift, &*mean, &*variance], epsilon: EPSILON };
    let factors = tensors.fold_factors(norm, NECK)?;
    let (mut turned, mut bias) = (Vec::with_capacity(weights.len()), Vec::new());
    for corner in 0..4 {
        for (output, (factor, mean, shift)) in factors.iter().enumerate() {
            turned.extend((0..NECK).map(|i| weights[(i * NECK + output) * 4 + corner] * factor));
            bias.push(shift - mean * factor);
        }
    }
    Ok(Conv::new(ConvShape::pointwise(NECK, 4 * NECK), &turned, &bias, Activation::Relu))
}

/// The four groups of channels as four pixels: above left, above right, below left, below right.
fn four_pixels(x: &Map) -> Map {
    let channels = x.c / 4;
    let mut out = Map::zeros(x.n, x.h * 2, x.w * 2, channels);
    for (at, pixel) in x.data.chunks_exact(x.c).enumerate() {
        let (row, column) = (at / x.w, at % x.w);
        for (corner, values) in pixel.chunks_exact(channels).enumerate() {
            let to = (row * 2 + corner / 2) * x.w * 2 + column * 2 + corner % 2;
            out.data[to * channels..(to + 1) * channels].copy_from_slice(values);
        }
    }
    out
}

/// The four heads as one convolution.
fn heads(tensors: &Tensors<'_>) -> Result<Conv, WeightsError> {
    let (mut weights, mut bias) = (Vec::new(), Vec::new());
    for (head, outputs) in [("pos", 1), ("reg", 2), ("off", 2), ("lm", 2 * LANDMARKS)] {
        let name = |of: &str| format!("head.{head}_conv.{of}");
        weights.extend(tensors.values(&name("weight"), &[outputs, NECK, 1, 1])?);
        bias.extend(tensors.values(&name("bias"), &[outputs])?);
    }
    Ok(Conv::new(ConvShape::pointwise(NECK, OUTPUTS), &weights, &bias, Activation::None))
}
