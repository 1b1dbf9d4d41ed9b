//! The layers between the encoder and a head's last one.

use aisemble_weights::kernels::{Activation, Pool};

use crate::encoder::{Linear, Norm};

/// One layer.
#[derive(Debug)]
pub enum Stage {
    /// Linear with an activation of the kernels'.
    Linear(Linear, Activation),
    /// Linear with a hyperbolic tangent.
    Tanh(Linear),
    /// Normalisation.
    Norm(Norm),
}

/// Runs the stages over `m` rows.
pub(super) fn run(pool: &Pool, stages: &[Stage], x: Vec<f32>, m: usize, eps: f32) -> Vec<f32> {
    stages.iter().fold(x, |mut x, stage| match stage {
        Stage::Linear(linear, activation) => {
            let mut out = vec![0.0; m * linear.rows()];
            linear.apply(pool, &x, *activation, &mut out);
            out
        }
        Stage::Tanh(linear) => {
            let mut out = vec![0.0; m * linear.rows()];
            linear.apply(pool, &x, Activation::None, &mut out);
            out.iter_mut().for_each(|value| *value = value.tanh());
            out
        }
        Stage::Norm(norm) => {
            norm.add(pool, &mut x, &[], eps);
            x
        }
    })
}
