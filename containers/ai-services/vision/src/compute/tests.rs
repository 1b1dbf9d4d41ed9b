//! Every instruction set against plain definitions.

use aisemble_weights::kernels::Pool;

use super::*;

/// Numbers that look random and are the same each time.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A convolution as its definition says.
fn plain(shape: &ConvShape, weights: &[f32], bias: &[f32], x: &Map, residual: Option<&Map>) -> Map {
    let (h, w) = shape.output_size(x.h, x.w);
    let mut out = Map::zeros(x.n, h, w, shape.output);
    let before = |size: usize, out: usize, kernel: usize| match shape.padding {
        Padding::Even(pad) => pad as isize,
        Padding::Same => {
            let reach = (kernel - 1) * shape.dilation + 1;
            let all = ((out - 1) * shape.stride + reach).saturating_sub(size);
            (all / 2) as isize
        }
    };
    let (top, left) = (before(x.h, h, shape.kernel.0), before(x.w, w, shape.kernel.1));
    for at in 0..out.data.len() {
        let (pixel, oc) = (at / shape.output, at % shape.output);
        let (n, oy, ox) = (pixel / (h * w), pixel / w % h, pixel % w);
        let mut sum = f64::from(bias.get(oc).copied().unwrap_or(0.0));
        for ky in 0..shape.kernel.0 {
            for kx in 0..shape.kernel.1 {
                let y = (oy * shape.stride + ky * shape.dilation) as isize - top;
                let column = (ox * shape.stride + kx * shape.dilation) as isize - left;
                if y < 0 || column < 0 || y >= x.h as isize || column >= x.w as isize {
                    continue;
                }
                let from = ((n * x.h + y as usize) * x.w + column as usize) * x.c;
                let channels = if shape.depthwise { oc..oc + 1 } else { 0..x.c };
                let per_output = channels.len();
                for (i, channel) in channels.enumerate() {
                    let tap = ky * shape.kernel.1 + kx;
                    let taps = shape.kernel.0 * shape.kernel.1;
                    let weight = weights[(oc * per_output + i) * taps + tap];
                    sum += f64::from(weight) * f64::from(x.data[from + channel]);
                }
            }
        }
        out.data[at] = (sum + residual.map_or(0.0, |r| f64::from(r.data[at]))) as f32;
    }
    out
}

fn check(shape: ConvShape, (n, h, w): (usize, usize, usize), activation: Activation) {
    let pool = Pool::new(Some(2)).unwrap();
    let x = Map::new((n, h, w, shape.input), values(n * h * w * shape.input, 1));
    let per_output = if shape.depthwise { 1 } else { shape.input };
    let weights = values(shape.output * per_output * shape.kernel.0 * shape.kernel.1, 2);
    let bias = values(shape.output, 3);
    let (oh, ow) = shape.output_size(h, w);
    let residual = Map::new((n, oh, ow, shape.output), values(n * oh * ow * shape.output, 4));
    for residual in [None, Some(&residual)] {
        let expected = plain(&shape, &weights, &bias, &x, residual);
        for isa in Isa::available() {
            let conv = Conv::with_isa(isa, shape, &weights, &bias, activation);
            let out = conv.forward(&pool, &x, residual);
            assert_eq!(out.shape(), expected.shape(), "{shape:?}");
            for (index, (out, expected)) in out.data.iter().zip(&expected.data).enumerate() {
                let expected = match activation {
                    Activation::None => *expected,
                    Activation::Relu => expected.max(0.0),
                    Activation::Relu6 => expected.clamp(0.0, 6.0),
                };
                let near = (out - expected).abs() <= 1e-4 * (1.0 + expected.abs());
                assert!(near, "{isa:?} {shape:?} at {index}: {out} instead of {expected}");
            }
        }
    }
}

#[test]
fn dense_convolutions_are_what_their_definition_says() {
    let point = ConvShape::pointwise;
    for (input, output) in [(1, 1), (3, 5), (16, 24), (24, 40), (7, 33), (20, 64), (5, 97)] {
        check(point(input, output), (1, 1, 1), Activation::None);
        check(point(input, output), (2, 5, 7), Activation::Relu);
    }
    let square = ConvShape::square;
    check(square(3, 32, 3).stride(2), (1, 11, 14), Activation::Relu6);
    check(square(3, 32, 3).stride(2).padding(Padding::Same), (2, 10, 13), Activation::Relu6);
    check(square(5, 17, 3), (1, 9, 20), Activation::None);
    check(square(4, 8, 3).padding(Padding::Even(6)).dilation(6), (1, 9, 8), Activation::None);
    check(square(6, 10, 2).padding(Padding::Even(0)), (1, 4, 9), Activation::Relu);
    // More pixels than a chunk, and tiles of every size.
    for pixels in 1..30 {
        check(point(3, 20), (1, 1, pixels), Activation::None);
    }
    check(point(8, 8), (1, 13, 19), Activation::None);
}

#[test]
fn depthwise_convolutions_are_what_their_definition_says() {
    let depthwise = ConvShape::depthwise;
    for channels in [1, 3, 16, 24, 40, 67] {
        check(depthwise(channels, 3), (1, 7, 6), Activation::Relu6);
        check(depthwise(channels, 5).stride(2), (2, 9, 8), Activation::None);
        let same = depthwise(channels, 3).stride(2).padding(Padding::Same);
        check(same, (1, 8, 11), Activation::Relu);
    }
}

#[test]
fn an_input_smaller_than_the_kernel_gives_nothing() {
    let shape = ConvShape::square(2, 4, 3).padding(Padding::Even(0));
    let conv = Conv::new(shape, &values(72, 1), &[], Activation::None);
    let out = conv.forward(&Pool::new(Some(1)).unwrap(), &Map::zeros(1, 2, 2, 2), None);
    assert_eq!(out.shape(), (1, 0, 0, 4));
}

#[test]
fn pools_means_and_resizes_are_what_their_names_say() {
    let x = Map::new((1, 2, 4, 1), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(mean_pixels(&x).data, [4.5]);
    assert_eq!(max_pool(&x, (2, 2), (2, 2), (0, 0)).data, [6.0, 8.0]);
    assert_eq!(max_pool(&x, (2, 1), (2, 1), (0, 0)).data, [5.0, 6.0, 7.0, 8.0]);
    assert_eq!(max_pool(&x, (3, 3), (1, 1), (1, 1)).data, [6.0, 7.0, 8.0, 8.0, 6.0, 7.0, 8.0, 8.0]);
    let wide = resize_bilinear(&Map::new((1, 1, 2, 1), vec![0.0, 4.0]), 1, 4);
    assert_eq!(wide.data, [0.0, 1.0, 3.0, 4.0]);
    let joined = concat_channels(&x, &x);
    assert_eq!((joined.c, &joined.data[..4]), (2, &[1.0, 1.0, 2.0, 2.0][..]));
    let mut scores = [1.0, 2.0, 3.0];
    softmax(&mut scores);
    assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6 && scores[2] > 0.66);
    let batch = Map::stack(&[&x, &x]).unwrap();
    assert_eq!((batch.n, batch.unstack().len()), (2, 2));
    assert!(Map::stack(&[&x, &joined]).is_none());
}

#[test]
fn an_lstm_step_by_step() {
    // One unit: the numbers can be followed by hand.
    let pool = Pool::new(Some(1)).unwrap();
    let lstm = Lstm::new(
        (1, 1),
        &[0.5, -0.25, 1.0, 0.75],
        &[0.1, 0.2, -0.3, 0.4],
        &[0.0; 4],
        &[0.05, 0.5, -0.1, 0.2],
    );
    let x = Map::new((1, 1, 3, 1), vec![1.0, -2.0, 0.5]);
    let (mut cell, mut hidden, mut expected) = (0.0_f32, 0.0_f32, Vec::new());
    for x in &x.data {
        let gate = |w: f32, u: f32, b: f32| w * x + u * hidden + b;
        let (i, f) = (sigmoid(gate(0.5, 0.1, 0.05)), sigmoid(gate(-0.25, 0.2, 0.5)));
        let (g, o) = (gate(1.0, -0.3, -0.1).tanh(), sigmoid(gate(0.75, 0.4, 0.2)));
        cell = f * cell + i * g;
        hidden = o * cell.tanh();
        expected.push(hidden);
    }
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near(&lstm.forward(&pool, &x, false).data, &expected));
    let turned = Map::new((1, 1, 3, 1), x.data.iter().rev().copied().collect());
    let mut backwards = lstm.forward(&pool, &turned, true).data.clone();
    backwards.reverse();
    assert!(near(&backwards, &expected));
}
