//! CRNN (Shi et al. 2015) in EasyOCR's second generation: a line of English text, letter by letter.
//!
//! Convolutions turn a grey line of 64 pixels' height into columns, two layers of LSTM in both
//! directions look left and right, and each column says a letter or nothing (CTC). The line is
//! filled up on its right with its last column to a multiple of 64.

use aisemble_weights::kernels::Pool;

use super::text_lines::Line;
use crate::compute::{Activation, Conv, ConvShape, Lstm, Map, Padding, max_pool, softmax};
use crate::picture::{Picture, linear};
use crate::weights_file::{BatchNorm, Tensors, WeightsError};

/// Rows of the input.
const HEIGHT: usize = 64;
/// The widest input, columns: a longer line is squeezed.
const WIDTH_MAX: usize = 64 * 64;
/// Of batch normalisation.
const EPSILON: f32 = 1e-5;
/// Units of a direction.
const UNITS: usize = 256;
/// What a column may say: nothing, then these.
const LETTERS: &str = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €\
                       ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Least score when the caller names none.
pub const SCORE_MIN: f32 = 0.1;

/// The network.
#[derive(Debug)]
pub struct Crnn {
    convolutions: Vec<Conv>,
    layers: Vec<Layer>,
    prediction: Conv,
    letters: Vec<char>,
}

/// One layer of LSTM in both directions, and what makes one of them again.
#[derive(Debug)]
struct Layer {
    forwards: Lstm,
    backwards: Lstm,
    linear: Conv,
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadLine {
    /// What it says.
    pub text: String,
    /// 0 to 1.
    pub score: f32,
}

impl Crnn {
    /// Takes the weights out of a file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the tensor.
    pub fn load(tensors: &Tensors<'_>) -> Result<Self, WeightsError> {
        let name =
            |number: usize, of: &str| format!("module.FeatureExtraction.ConvNet.{number}.{of}");
        let relu = Activation::Relu;
        let plain = |number: usize, shape: ConvShape| {
            tensors.conv(shape, &name(number, "weight"), &name(number, "bias"), None, relu)
        };
        let normed = |number: usize, shape: ConvShape| {
            let [scale, shift, mean, variance] =
                ["weight", "bias", "running_mean", "running_var"].map(|of| name(number + 1, of));
            let names = [&*scale, &*shift, &*mean, &*variance];
            let norm = BatchNorm { names, epsilon: EPSILON };
            tensors.conv(shape, &name(number, "weight"), "", Some(norm), relu)
        };
        let square = ConvShape::square;
        let convolutions = vec![
            plain(0, square(1, 32, 3))?,
            plain(3, square(32, 64, 3))?,
            plain(6, square(64, 128, 3))?,
            plain(8, square(128, 128, 3))?,
            normed(11, square(128, 256, 3))?,
            normed(14, square(256, 256, 3))?,
            plain(18, square(256, 256, 2).padding(Padding::Even(0)))?,
        ];
        let letters: Vec<char> = LETTERS.chars().collect();
        let classes = letters.len() + 1;
        Ok(Self {
            convolutions,
            layers: vec![Layer::load(tensors, 0)?, Layer::load(tensors, 1)?],
            prediction: tensors.linear(
                (UNITS, classes),
                "module.Prediction.weight",
                "module.Prediction.bias",
            )?,
            letters,
        })
    }

    /// A line of the picture as the network takes it: 1 x 64 x a multiple of 64 x 1. `grey` is the
    /// picture's. `None` when nothing of the line lies in the picture.
    #[must_use]
    pub fn prepare(picture: &Picture, grey: &[u8], line: &Line) -> Option<Map> {
        let (pixels, width, height) = if line.upright {
            cut(picture, grey, line)?
        } else {
            cut_slanting(picture, grey, line)?
        };
        // A line that stands is read as if it lay: EasyOCR makes it as wide as it is tall.
        let ratio = (width as f64 / height as f64).max(height as f64 / width as f64);
        let resized = ((HEIGHT as f64 * ratio) as usize).clamp(1, WIDTH_MAX);
        let (w, h) = if width < height { (HEIGHT, resized) } else { (resized, HEIGHT) };
        let first = linear(&pixels, (width, height), (w, h), 1);
        let line = if h == HEIGHT { first } else { linear(&first, (w, h), (HEIGHT, HEIGHT), 1) };
        let w = if h == HEIGHT { w } else { HEIGHT };
        let columns = (ratio.ceil() as usize * HEIGHT).clamp(w, WIDTH_MAX);
        let mut data = Vec::with_capacity(HEIGHT * columns);
        for row in line.chunks_exact(w) {
            let last = row.last().copied().unwrap_or_default();
            let filled = row.iter().copied().chain(std::iter::repeat(last)).take(columns);
            data.extend(filled.map(|value| f32::from(value) / 127.5 - 1.0));
        }
        Some(Map::new((1, HEIGHT, columns, 1), data))
    }

    /// How likely each letter is in each column: `n` x 1 x columns x letters, before softmax.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map) -> Vec<Map> {
        let mut x = self.convolutions[0].forward(pool, x, None);
        for (index, conv) in self.convolutions.iter().enumerate().skip(1) {
            // Halved in both directions twice, then only the rows.
            x = match index {
                1 | 2 => max_pool(&x, (2, 2), (2, 2), (0, 0)),
                4 | 6 => max_pool(&x, (2, 1), (2, 1), (0, 0)),
                _ => x,
            };
            x = conv.forward(pool, &x, None);
        }
        let mut x = mean_rows(&x);
        for layer in &self.layers {
            x = layer.forward(pool, &x);
        }
        vec![self.prediction.forward(pool, &x, None)]
    }

    /// The text of one line's output: in each column the likeliest letter, without repeats and
    /// without nothing.
    #[must_use]
    pub fn interpret(&self, out: &Map) -> ReadLine {
        let (mut text, mut before, mut product, mut said) = (String::new(), 0, 1.0_f64, 0_u32);
        for column in out.data.chunks_exact(out.c) {
            let mut scores = column.to_vec();
            softmax(&mut scores);
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            let best = best.unwrap_or(0);
            if best != 0 {
                product *= f64::from(scores[best]);
                said += 1;
                if best != before {
                    text.extend(self.letters.get(best - 1));
                }
            }
            before = best;
        }
        // EasyOCR's mean: the product over all columns that say something, to the power of 2 by
        // the root of their number.
        let score = if said == 0 { 0.0 } else { product.powf(2.0 / f64::from(said).sqrt()) };
        ReadLine { text, score: score as f32 }
    }

    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let linear = self.layers.iter().flat_map(Layer::convolutions);
        self.convolutions.iter().chain([&self.prediction]).chain(linear)
    }
}

impl Layer {
    fn load(tensors: &Tensors<'_>, index: usize) -> Result<Self, WeightsError> {
        let name = |of: &str| format!("module.SequenceModeling.{index}.{of}");
        let direction = |suffix: &str| {
            let gates = 4 * UNITS;
            let values = |of: &str, dims: &[usize]| {
                tensors.values(&name(&format!("rnn.{of}_l0{suffix}")), dims)
            };
            Ok::<_, WeightsError>(Lstm::new(
                (UNITS, UNITS),
                &values("weight_ih", &[gates, UNITS])?,
                &values("weight_hh", &[gates, UNITS])?,
                &values("bias_ih", &[gates])?,
                &values("bias_hh", &[gates])?,
            ))
        };
        let (weight, bias) = (name("linear.weight"), name("linear.bias"));
        Ok(Self {
            forwards: direction("")?,
            backwards: direction("_reverse")?,
            linear: tensors.linear((2 * UNITS, UNITS), &weight, &bias)?,
        })
    }

    fn forward(&self, pool: &Pool, x: &Map) -> Map {
        let forwards = self.forwards.forward(pool, x, false);
        let backwards = self.backwards.forward(pool, x, true);
        let both = crate::compute::concat_channels(&forwards, &backwards);
        self.linear.forward(pool, &both, None)
    }

    fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let recurrent = self.forwards.convolutions().chain(self.backwards.convolutions());
        recurrent.chain([&self.linear])
    }
}

/// The mean over rows: `n` x 1 x `w` x `c`.
fn mean_rows(x: &Map) -> Map {
    let mut out = Map::zeros(x.n, 1, x.w, x.c);
    let row = x.w * x.c;
    for (n, out) in out.data.chunks_exact_mut(row.max(1)).enumerate() {
        for values in x.picture(n).chunks_exact(row.max(1)) {
            for (out, value) in out.iter_mut().zip(values) {
                *out += value / x.h as f32;
            }
        }
    }
    out
}

type GreyPart = (Vec<u8>, usize, usize);

/// The pixels of an upright line, cut to the picture.
fn cut(picture: &Picture, grey: &[u8], line: &Line) -> Option<GreyPart> {
    let (left, top, right, bottom) = line.bounds();
    let inside = |at: f32, size: usize| (at.max(0.0) as usize).min(size);
    let (left, right) = (inside(left, picture.width), inside(right, picture.width));
    let (top, bottom) = (inside(top, picture.height), inside(bottom, picture.height));
    if left >= right || top >= bottom {
        return None;
    }
    let rows = (top..bottom).map(|y| &grey[y * picture.width + left..y * picture.width + right]);
    Some((rows.collect::<Vec<_>>().concat(), right - left, bottom - top))
}

/// The pixels of a slanting line, turned upright: each is interpolated between four.
fn cut_slanting(picture: &Picture, grey: &[u8], line: &Line) -> Option<GreyPart> {
    let [a, b, _, d] = line.corners;
    let distance = |a: (f32, f32), b: (f32, f32)| (a.0 - b.0).hypot(a.1 - b.1);
    let size = |length: f32, limit: usize| (length as usize).clamp(1, limit * 2);
    let width = size(distance(a, b), picture.width + picture.height);
    let height = size(distance(a, d), picture.width + picture.height);
    if !line.corners.iter().all(|(x, y)| x.is_finite() && y.is_finite()) {
        return None;
    }
    let mut pixels = Vec::with_capacity(width * height);
    for row in 0..height {
        for column in 0..width {
            let (u, v) = (column as f32 / width as f32, row as f32 / height as f32);
            let x = a.0 + (b.0 - a.0) * u + (d.0 - a.0) * v;
            let y = a.1 + (b.1 - a.1) * u + (d.1 - a.1) * v;
            pixels.push(between(picture, grey, x, y));
        }
    }
    Some((pixels, width, height))
}

/// The grey value at a place between pixels; outside the picture the nearest one.
fn between(picture: &Picture, grey: &[u8], x: f32, y: f32) -> u8 {
    let (x, y) =
        (x.clamp(0.0, (picture.width - 1) as f32), y.clamp(0.0, (picture.height - 1) as f32));
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(picture.width - 1), (y0 + 1).min(picture.height - 1));
    let value = |x: usize, y: usize| f32::from(grey[y * picture.width + x]);
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let upper = value(x0, y0) * (1.0 - fx) + value(x1, y0) * fx;
    let lower = value(x0, y1) * (1.0 - fx) + value(x1, y1) * fx;
    (upper * (1.0 - fy) + lower * fy).round() as u8
}
