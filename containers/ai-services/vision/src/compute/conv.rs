//! Convolutions: weights packed for the tiles once, the work handed out to the pool's threads.
#![expect(unsafe_code, reason = "lends the input and disjoint parts of the output to the tiles")]

use std::ops::Range;

use aisemble_weights::kernels::Pool;

use super::isa::Isa;
use super::map::Map;
use super::tile::{self, Tile};

/// Output pixels that a thread takes at once, dense convolutions: the weights are read once for
/// that many.
const CHUNK_PIXELS: usize = 96;
/// Pixels of a tile at most.
const ROWS_MAX: usize = 8;
/// What a thread takes at once of depthwise ones.
const CHUNK_PIXELS_DEPTHWISE: usize = 64;

/// What happens to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Not below 0.
    Relu,
    /// Not below 0, not above 6.
    Relu6,
}

impl Activation {
    fn limits(self) -> (f32, f32) {
        match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Relu6 => (0.0, 6.0),
        }
    }
}

/// Zeros around the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As many on each side.
    Even(usize),
    /// As TensorFlow's `SAME`: the output has one pixel for each stride begun, and of an odd
    /// number of zeros more lie below and on the right.
    Same,
}

/// The form of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Rows and columns of the kernel.
    pub kernel: (usize, usize),
    /// Steps of rows and columns.
    pub stride: usize,
    /// Distance of the kernel's taps.
    pub dilation: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// Whether each channel is on its own; `input` and `output` are then the same.
    pub depthwise: bool,
}

impl ConvShape {
    /// A 1 x 1 convolution, which is also a linear layer.
    #[must_use]
    pub fn pointwise(input: usize, output: usize) -> Self {
        let (kernel, padding) = ((1, 1), Padding::Even(0));
        Self { input, output, kernel, stride: 1, dilation: 1, padding, depthwise: false }
    }

    /// A square kernel of odd size with zeros that keep the size at stride 1.
    #[must_use]
    pub fn square(input: usize, output: usize, kernel: usize) -> Self {
        let padding = Padding::Even(kernel / 2);
        Self { kernel: (kernel, kernel), padding, ..Self::pointwise(input, output) }
    }

    /// The same on each of `channels` alone.
    #[must_use]
    pub fn depthwise(channels: usize, kernel: usize) -> Self {
        Self { depthwise: true, ..Self::square(channels, channels, kernel) }
    }

    /// The same with another stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The same with other zeros around.
    #[must_use]
    pub fn padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// The same with its taps apart.
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Rows (or columns) of the output, and zeros before the first, of `size` input ones.
    fn along(&self, size: usize, kernel: usize) -> (usize, usize) {
        let reach = (kernel - 1) * self.dilation + 1;
        match self.padding {
            Padding::Even(pad) => {
                ((size + 2 * pad).checked_sub(reach).map_or(0, |room| room / self.stride + 1), pad)
            }
            Padding::Same => {
                let output = size.div_ceil(self.stride);
                let needed = (output.saturating_sub(1)) * self.stride + reach;
                (output, needed.saturating_sub(size) / 2)
            }
        }
    }

    /// Rows and columns of the output of `h` x `w` input pixels.
    #[must_use]
    pub fn output_size(&self, h: usize, w: usize) -> (usize, usize) {
        (self.along(h, self.kernel.0).0, self.along(w, self.kernel.1).0)
    }
}

/// A convolution with its weights.
#[derive(Debug, Clone)]
pub struct Conv {
    shape: ConvShape,
    activation: Activation,
    isa: Isa,
    /// Dense: panel by panel, in each `taps * input` rows of a few vectors. Depthwise: `taps`
    /// rows of `output`.
    weights: Vec<f32>,
    /// Filled up with zeros to whole panels.
    bias: Vec<f32>,
}

impl Conv {
    /// Packs `weights` (`[output, input, rows, columns]` as PyTorch and ONNX have them; depthwise
    /// `[channels, 1, rows, columns]`) and `bias` (one an output channel, or empty).
    ///
    /// # Panics
    /// When the lengths do not fit the shape: loaders check shapes first.
    #[must_use]
    pub fn new(shape: ConvShape, weights: &[f32], bias: &[f32], activation: Activation) -> Self {
        Self::with_isa(Isa::best(), shape, weights, bias, activation)
    }

    /// [`Conv::new`] for a given instruction set, which the machine must have.
    ///
    /// # Panics
    /// As [`Conv::new`], and when the machine has no such set.
    #[must_use]
    pub fn with_isa(
        isa: Isa,
        shape: ConvShape,
        weights: &[f32],
        bias: &[f32],
        activation: Activation,
    ) -> Self {
        assert!(Isa::available().contains(&isa), "the machine has this instruction set");
        let per_output = if shape.depthwise { 1 } else { shape.input };
        assert_eq!(
            weights.len(),
            shape.output * per_output * shape.taps(),
            "weights fit the shape"
        );
        assert!(bias.is_empty() || bias.len() == shape.output, "bias fits the shape");
        assert!(!shape.depthwise || shape.input == shape.output, "depthwise keeps its channels");
        assert!(shape.stride > 0 && shape.dilation > 0 && shape.taps() > 0 && shape.input > 0);
        let panel = tile::VECTORS * isa.width();
        let mut padded = vec![0.0; shape.output.next_multiple_of(panel)];
        padded[..bias.len()].copy_from_slice(bias);
        let weights = if shape.depthwise {
            pack_depthwise(&shape, weights)
        } else {
            pack_dense(&shape, isa, weights)
        };
        Self { shape, activation, isa, weights, bias: padded }
    }

    /// Its form.
    #[must_use]
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Weights and biases, without what packing filled up.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let per_output = if self.shape.depthwise { 1 } else { self.shape.input };
        self.shape.output * (per_output * self.shape.taps() + 1)
    }

    /// The convolution of `x`; `residual` has the output's shape and is added before the
    /// activation.
    ///
    /// # Panics
    /// When `x` has other channels, or `residual` another shape: networks are checked as a whole
    /// when they are loaded.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map, residual: Option<&Map>) -> Map {
        assert_eq!(x.c, self.shape.input, "the input has the convolution's channels");
        let ((h, top), (w, left)) = self.along(x.h, x.w);
        let mut out = Map::scratch(x.n, h, w, self.shape.output);
        if let Some(residual) = residual {
            assert_eq!(residual.shape(), out.shape(), "the residual has the output's shape");
        }
        let part = Part { data: &x.data, size: (x.n, x.h, x.w), pad: (top, left), output: (h, w) };
        self.run(pool, &part, &mut out.data, residual.map(|residual| residual.data.as_slice()));
        out
    }

    /// Rows and zeros before the first, columns and zeros before the first, of the output.
    fn along(&self, h: usize, w: usize) -> ((usize, usize), (usize, usize)) {
        (self.shape.along(h, self.shape.kernel.0), self.shape.along(w, self.shape.kernel.1))
    }

    fn run(&self, pool: &Pool, part: &Part<'_>, out: &mut [f32], residual: Option<&[f32]>) {
        let zeros = vec![0.0; self.shape.input];
        let pixels = part.size.0 * part.output.0 * part.output.1;
        debug_assert_eq!(out.len(), pixels * self.shape.output);
        let out = OutPointer(out.as_mut_ptr());
        let run = Run { conv: self, part, zeros: &zeros, out, residual };
        let chunk = if self.shape.depthwise { CHUNK_PIXELS_DEPTHWISE } else { CHUNK_PIXELS };
        pool.for_chunks(pixels, chunk, &|range| run.chunk(range));
    }
}

/// Panels of [`tile::VECTORS`] vectors: the last has as many as are needed.
fn pack_dense(shape: &ConvShape, isa: Isa, weights: &[f32]) -> Vec<f32> {
    let (taps, width) = (shape.taps(), isa.width());
    let mut packed = Vec::with_capacity(taps * shape.input * shape.output.next_multiple_of(width));
    let mut first = 0;
    while first < shape.output {
        let columns = panel_columns(shape.output - first, width);
        for tap in 0..taps {
            for channel in 0..shape.input {
                for column in first..first + columns {
                    let at = (column * shape.input + channel) * taps + tap;
                    packed.push(if column < shape.output { weights[at] } else { 0.0 });
                }
            }
        }
        first += columns;
    }
    packed
}

/// How wide the panel is that begins when `left` output channels are left.
fn panel_columns(left: usize, width: usize) -> usize {
    left.next_multiple_of(width).min(tile::VECTORS * width)
}

fn pack_depthwise(shape: &ConvShape, weights: &[f32]) -> Vec<f32> {
    let taps = shape.taps();
    let mut packed = Vec::with_capacity(weights.len());
    for tap in 0..taps {
        packed.extend((0..shape.output).map(|channel| weights[channel * taps + tap]));
    }
    packed
}

/// An input and what becomes of it.
struct Part<'a> {
    data: &'a [f32],
    /// Pictures, rows, columns.
    size: (usize, usize, usize),
    /// Zeros above and on the left.
    pad: (usize, usize),
    /// Rows and columns of the output, of each picture.
    output: (usize, usize),
}

/// The output, of which each thread writes its own pixels.
struct OutPointer(*mut f32);

// SAFETY: threads write disjoint ranges of pixels, and the map outlives the run.
unsafe impl Sync for OutPointer {}

/// One convolution of one input.
struct Run<'a> {
    conv: &'a Conv,
    part: &'a Part<'a>,
    /// What a tap outside the input reads.
    zeros: &'a [f32],
    out: OutPointer,
    residual: Option<&'a [f32]>,
}

impl Run<'_> {
    /// Computes the output pixels of `range`.
    fn chunk(&self, range: Range<usize>) {
        let rows_max =
            if self.conv.shape.depthwise { tile::DEPTHWISE_ROWS } else { self.conv.isa.rows() };
        // Tiles of nearly the same size: a short last one would cost nearly as much as a full one.
        let tiles = range.len().div_ceil(rows_max);
        let mut inputs = Vec::with_capacity(range.len() * self.conv.shape.taps());
        let mut bounds = Vec::with_capacity(tiles);
        for index in 0..tiles {
            let first = range.start + range.len() * index / tiles;
            let last = range.start + range.len() * (index + 1) / tiles;
            let begin = inputs.len();
            self.push_inputs(first..last, &mut inputs);
            bounds.push((first..last, begin..inputs.len()));
        }
        if self.conv.shape.depthwise {
            for (pixels, pointers) in bounds {
                self.depthwise(&pixels, &inputs[pointers]);
            }
        } else {
            self.dense(&bounds, &inputs);
        }
    }

    /// For each tap of the kernel the pointers of all `pixels`.
    fn push_inputs(&self, pixels: Range<usize>, inputs: &mut Vec<*const f32>) {
        let (shape, part) = (&self.conv.shape, self.part);
        let ((_, x_h, x_w), (h, w)) = (part.size, part.output);
        let mut begins = [(0, 0, 0); ROWS_MAX];
        let count = pixels.len();
        // One division for the first; the others follow it.
        let (mut n, mut oy, mut ox) =
            (pixels.start / (h * w), pixels.start / w % h, pixels.start % w);
        for slot in &mut begins[..count] {
            *slot = (n * x_h, oy * shape.stride, ox * shape.stride);
            ox += 1;
            if ox == w {
                (ox, oy) = (0, oy + 1);
                if oy == h {
                    (oy, n) = (0, n + 1);
                }
            }
        }
        let begins = &begins[..count];
        let outside = self.zeros.as_ptr();
        for ky in 0..shape.kernel.0 {
            for kx in 0..shape.kernel.1 {
                let (down, across) = (ky * shape.dilation, kx * shape.dilation);
                inputs.extend(begins.iter().map(|(first, y, column)| {
                    // Wrapped around when it lies before the first: then it is too large, too.
                    let y = (y + down).wrapping_sub(part.pad.0);
                    let column = (column + across).wrapping_sub(part.pad.1);
                    if y < x_h && column < x_w {
                        let at = ((first + y) * x_w + column) * shape.input;
                        debug_assert!(at + shape.input <= part.data.len());
                        // SAFETY: row and column are inside the input.
                        unsafe { part.data.as_ptr().add(at) }
                    } else {
                        outside
                    }
                }));
            }
        }
    }

    fn dense(&self, bounds: &[(Range<usize>, Range<usize>)], inputs: &[*const f32]) {
        let (conv, shape) = (self.conv, &self.conv.shape);
        let width = conv.isa.width();
        let (mut first, mut weights_at) = (0, 0);
        while first < shape.output {
            let columns = panel_columns(shape.output - first, width);
            for (pixels, pointers) in bounds {
                let at = pixels.start * shape.output + first;
                let tile = Tile {
                    inputs: &inputs[pointers.clone()],
                    rows: pixels.len(),
                    channels: shape.input,
                    weights: conv.weights[weights_at..].as_ptr(),
                    weights_stride: 0,
                    bias: conv.bias[first..].as_ptr(),
                    // SAFETY: `at` is inside the output; this thread alone writes these pixels.
                    out: unsafe { self.out.0.add(at) },
                    out_stride: shape.output,
                    residual: self.residual.map_or(std::ptr::null(), |all| all[at..].as_ptr()),
                    columns: columns.min(shape.output - first),
                    limits: conv.activation.limits(),
                };
                // SAFETY: the set was checked when the convolution was made; pointers come from
                // slices that hold whole pixels, panels and rows of the output.
                unsafe { tile::dense(conv.isa, &tile) };
            }
            weights_at += columns * shape.input * shape.taps();
            first += columns;
        }
    }

    fn depthwise(&self, pixels: &Range<usize>, inputs: &[*const f32]) {
        let (conv, shape) = (self.conv, &self.conv.shape);
        let at = pixels.start * shape.output;
        let tile = Tile {
            inputs,
            rows: pixels.len(),
            channels: shape.input,
            weights: conv.weights.as_ptr(),
            weights_stride: shape.output,
            bias: conv.bias.as_ptr(),
            // SAFETY: `at` is inside the output; this thread alone writes these pixels.
            out: unsafe { self.out.0.add(at) },
            out_stride: shape.output,
            residual: self.residual.map_or(std::ptr::null(), |all| all[at..].as_ptr()),
            columns: shape.output,
            limits: conv.activation.limits(),
        };
        // SAFETY: as in `dense`.
        unsafe { tile::depthwise(conv.isa, &tile) };
    }
}
