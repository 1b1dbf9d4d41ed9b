//! CRAFT (Baek et al. 2019): where text is, letter by letter, and which letters belong together.
//!
//! A VGG16 with batch normalisation and a U-Net behind it give, at half the resolution, how likely
//! a pixel is near the middle of a letter (region) and between two letters of a word (affinity).
//! What [`interpret`](Craft::interpret) makes of the two maps is in [`super::text_boxes`].

use aisemble_weights::kernels::Pool;

use super::prepare;
use super::text_boxes::{TextBox, text_boxes};
use crate::compute::{
    Activation, Conv, ConvShape, Map, Padding, concat_channels, max_pool, resize_bilinear,
};
use crate::picture::{Picture, resize_linear};
use crate::weights_file::{BatchNorm, Tensors, WeightsError};

/// Sides are multiples of this.
const MULTIPLE: usize = 32;
/// Of batch normalisation.
const EPSILON: f32 = 1e-5;
/// Means and deviations of ImageNet's colours, for values 0 to 255.
const MEAN: [f32; 3] = [0.485 * 255.0, 0.456 * 255.0, 0.406 * 255.0];
const DEVIATION: [f32; 3] = [0.229 * 255.0, 0.224 * 255.0, 0.225 * 255.0];

/// A layer of the backbone: its number in the file, input and output channels.
type Layer = (usize, usize, usize);

/// The backbone, slice by slice; `true` before a layer = halve first. The last slice ends without
/// an activation; the results of all four go to the U-Net.
const SLICES: [&[(bool, Layer)]; 4] = [
    &[(false, (0, 3, 64)), (false, (3, 64, 64)), (true, (7, 64, 128)), (false, (10, 128, 128))],
    &[(true, (14, 128, 256)), (false, (17, 256, 256))],
    &[(false, (20, 256, 256)), (true, (24, 256, 512)), (false, (27, 512, 512))],
    &[(false, (30, 512, 512)), (true, (34, 512, 512)), (false, (37, 512, 512))],
];
/// Input (of both maps together), inner and output channels of the U-Net's steps.
const UP: [(usize, usize, usize); 4] =
    [(1536, 512, 256), (768, 256, 128), (384, 128, 64), (192, 64, 32)];
/// Kernel, input and output channels of the last layers, and their numbers in the file.
const LAST: [(usize, usize, usize, usize); 5] =
    [(0, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 16), (6, 1, 16, 16), (8, 1, 16, 2)];

/// The network.
#[derive(Debug)]
pub struct Craft {
    slices: Vec<Vec<(bool, Conv)>>,
    /// Dilated and 1 x 1, without batch normalisation.
    fifth: [Conv; 2],
    up: Vec<[Conv; 2]>,
    last: Vec<Conv>,
}

impl Craft {
    /// Takes the weights out of a file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the tensor.
    pub fn load(tensors: &Tensors<'_>) -> Result<Self, WeightsError> {
        let normed = |shape: ConvShape, name: String, number: usize, activation| {
            let norm = format!("{name}.{}", number + 1);
            let [scale, shift, mean, variance] =
                ["weight", "bias", "running_mean", "running_var"].map(|of| format!("{norm}.{of}"));
            let names = [&*scale, &*shift, &*mean, &*variance];
            let (weights, bias) =
                (format!("{name}.{number}.weight"), format!("{name}.{number}.bias"));
            let norm = BatchNorm { names, epsilon: EPSILON };
            tensors.conv(shape, &weights, &bias, Some(norm), activation)
        };
        let bare = |shape: ConvShape, name: &str, activation| {
            let (weights, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            tensors.conv(shape, &weights, &bias, None, activation)
        };
        let mut slices = Vec::with_capacity(SLICES.len());
        for (index, layers) in SLICES.iter().enumerate() {
            let mut slice = Vec::with_capacity(layers.len());
            for (at, (halve, (number, input, output))) in layers.iter().enumerate() {
                let ends = at + 1 == layers.len() && index + 1 == SLICES.len();
                let activation = if ends { Activation::None } else { Activation::Relu };
                let name = format!("module.basenet.slice{}", index + 1);
                let shape = ConvShape::square(*input, *output, 3);
                slice.push((*halve, normed(shape, name, *number, activation)?));
            }
            slices.push(slice);
        }
        let dilated = ConvShape::square(512, 1024, 3).padding(Padding::Even(6)).dilation(6);
        let fifth = [
            bare(dilated, "module.basenet.slice5.1", Activation::None)?,
            bare(ConvShape::pointwise(1024, 1024), "module.basenet.slice5.2", Activation::None)?,
        ];
        let mut up = Vec::with_capacity(UP.len());
        for (index, (input, inner, output)) in UP.into_iter().enumerate() {
            let name = || format!("module.upconv{}.conv", index + 1);
            up.push([
                normed(ConvShape::pointwise(input, inner), name(), 0, Activation::Relu)?,
                normed(ConvShape::square(inner, output, 3), name(), 3, Activation::Relu)?,
            ]);
        }
        let mut last = Vec::with_capacity(LAST.len());
        for (at, (number, kernel, input, output)) in LAST.into_iter().enumerate() {
            let ends = at + 1 == LAST.len();
            let activation = if ends { Activation::None } else { Activation::Relu };
            let shape = ConvShape::square(input, output, kernel);
            last.push(bare(shape, &format!("module.conv_cls.{number}"), activation)?);
        }
        Ok(Self { slices, fifth, up, last })
    }

    /// The picture as the network takes it, at most `side_max` pixels on the longer side, filled up
    /// with black to multiples of 32; and how many of its pixels a pixel of the picture is.
    #[must_use]
    pub fn prepare(picture: &Picture, side_max: usize) -> (Map, f32) {
        let (width, height, factor) = prepare::fit_within(picture, side_max);
        let resized = resize_linear(picture, width, height);
        let (w, h) = (width.next_multiple_of(MULTIPLE), height.next_multiple_of(MULTIPLE));
        let filled = crate::picture::crop(&resized, (0, 0), (w, h), [0; 3]);
        (prepare::normalize(&filled, MEAN, DEVIATION), factor as f32)
    }

    /// Region and affinity: `n` x `h`/2 x `w`/2 x 2.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map) -> Vec<Map> {
        let halves = |x: &Map| max_pool(x, (2, 2), (2, 2), (0, 0));
        let mut sources = Vec::with_capacity(self.slices.len());
        let mut x = x.clone();
        for slice in &self.slices {
            for (halve, conv) in slice {
                if *halve {
                    x = halves(&x);
                }
                x = conv.forward(pool, &x, None);
            }
            sources.push(x.clone());
        }
        // The fifth slice pools without an activation before it.
        let pooled = max_pool(&x, (3, 3), (1, 1), (1, 1));
        let mut y = self.fifth[1].forward(pool, &self.fifth[0].forward(pool, &pooled, None), None);
        for ([point, square], source) in self.up.iter().zip(sources.iter().rev()) {
            let resized = resize_bilinear(&y, source.h, source.w);
            let joined = concat_channels(&resized, source);
            y = square.forward(pool, &point.forward(pool, &joined, None), None);
        }
        for conv in &self.last {
            y = conv.forward(pool, &y, None);
        }
        vec![y]
    }

    /// The words of one picture's output, in pixels of the picture. `scale` is what
    /// [`prepare`](Self::prepare) gave.
    #[must_use]
    pub fn interpret(out: &Map, scale: f32) -> Vec<TextBox> {
        // The maps have half the resolution of the input.
        text_boxes(out).iter().map(|found| found.scaled(2.0 / scale)).collect()
    }

    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let slices = self.slices.iter().flatten().map(|(_, conv)| conv);
        slices.chain(&self.fifth).chain(self.up.iter().flatten()).chain(&self.last)
    }
}
