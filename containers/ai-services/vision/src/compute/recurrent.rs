//! A recurrent layer: LSTM as PyTorch computes it, gates in the order input, forget, cell, output.

use aisemble_weights::kernels::Pool;

use super::conv::{Activation, Conv, ConvShape};
use super::map::Map;
use super::ops::sigmoid;

/// One direction of an LSTM layer.
#[derive(Debug, Clone)]
pub struct Lstm {
    input: Conv,
    hidden: Conv,
    width: usize,
}

impl Lstm {
    /// `weights_input` is `[4 * width, features]`, `weights_hidden` `[4 * width, width]`, each
    /// bias `[4 * width]`.
    ///
    /// # Panics
    /// When the lengths do not fit: loaders check shapes first.
    #[must_use]
    pub fn new(
        (features, width): (usize, usize),
        weights_input: &[f32],
        weights_hidden: &[f32],
        bias_input: &[f32],
        bias_hidden: &[f32],
    ) -> Self {
        let bias: Vec<f32> = bias_input.iter().zip(bias_hidden).map(|(a, b)| a + b).collect();
        let linear = |input, weights, bias: &[f32]| {
            Conv::new(ConvShape::pointwise(input, 4 * width), weights, bias, Activation::None)
        };
        let input = linear(features, weights_input, &bias);
        Self { input, hidden: linear(width, weights_hidden, &[]), width }
    }

    /// Its two products, for counting.
    pub fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        [&self.input, &self.hidden].into_iter()
    }

    /// Runs over the columns of `x` (`n` x 1 x steps x features), from the last to the first when
    /// `backwards`; gives `n` x 1 x steps x width.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map, backwards: bool) -> Map {
        let (n, steps, width) = (x.n, x.w, self.width);
        let gates = self.input.forward(pool, x, None);
        let mut out = Map::zeros(n, 1, steps, width);
        let mut hidden = Map::zeros(n, 1, 1, width);
        let mut cell = vec![0.0; n * width];
        let mut given = Map::zeros(n, 1, 1, 4 * width);
        for step in 0..steps {
            let at = if backwards { steps - 1 - step } else { step };
            for (index, given) in given.data.chunks_exact_mut(4 * width).enumerate() {
                let from = (index * steps + at) * 4 * width;
                given.copy_from_slice(&gates.data[from..from + 4 * width]);
            }
            let sums = self.hidden.forward(pool, &hidden, Some(&given));
            for index in 0..n {
                let sums = &sums.data[index * 4 * width..(index + 1) * 4 * width];
                let to = (index * steps + at) * width;
                let hidden = &mut hidden.data[index * width..(index + 1) * width];
                turn(sums, &mut cell[index * width..(index + 1) * width], hidden);
                out.data[to..to + width].copy_from_slice(hidden);
            }
        }
        out
    }
}

/// One step of one sequence.
fn turn(sums: &[f32], cell: &mut [f32], hidden: &mut [f32]) {
    let width = cell.len();
    for (unit, (cell, hidden)) in cell.iter_mut().zip(hidden).enumerate() {
        let gate = |index: usize| sums[index * width + unit];
        *cell = sigmoid(gate(1)) * *cell + sigmoid(gate(0)) * gate(2).tanh();
        *hidden = sigmoid(gate(3)) * cell.tanh();
    }
}
