//! One layer of an encoder: attention and feed-forward, in the order of its family.

use aisemble_weights::kernels::{Activation, EncoderAttention, Pool, RopeTable};

use super::forward::{LoadError, Loader, Sequences};
use super::linear::Linear;
use super::names::Part;
use super::shape::Shape;

/// Weight and bias of a normalisation; the bias may be empty.
#[derive(Debug)]
pub struct Norm {
    /// Factors, one a column.
    pub weight: Vec<f32>,
    /// Summands; may be empty.
    pub bias: Vec<f32>,
}

impl Norm {
    /// `x = norm(x + y)`; `y` may be empty.
    pub(crate) fn add(&self, pool: &Pool, x: &mut [f32], y: &[f32], eps: f32) {
        pool.add_layer_norm(x, y, (&self.weight, &self.bias), eps);
    }
}

/// The normalisation at `path`, under its names or the older gamma and beta.
pub(crate) fn norm(loader: &Loader<'_>, path: &str, width: usize) -> Result<Norm, LoadError> {
    let file = loader.file;
    let name = |new: &str, old: &str| {
        let new = format!("{path}.{new}");
        if file.has(&new) { new } else { format!("{path}.{old}") }
    };
    let weight = file.floats(&name("weight", "gamma"), &[width])?;
    let bias = name("bias", "beta");
    // ModernBERT's have none.
    let bias = if file.has(&bias) { file.floats(&bias, &[width])? } else { Vec::new() };
    Ok(Norm { weight, bias })
}

/// Memory that the layers of a forward pass share.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    wide: Vec<f32>,
    gated: Vec<f32>,
    sum: Vec<f32>,
}

impl Buffers {
    pub(super) fn reserve(&mut self, tokens: usize, shape: &Shape) {
        let wide = if shape.rotary.is_some() { 2 } else { 1 } * shape.intermediate;
        self.qkv.resize(tokens * 3 * shape.hidden, 0.0);
        self.mixed.resize(tokens * shape.hidden, 0.0);
        self.sum.resize(tokens * shape.hidden, 0.0);
        self.wide.resize(tokens * wide, 0.0);
        self.gated
            .resize(if shape.rotary.is_some() { tokens * shape.intermediate } else { 0 }, 0.0);
    }
}

/// What every layer of a forward pass is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) pool: &'a Pool,
    pub(super) shape: &'a Shape,
    pub(super) sequences: &'a Sequences,
}

/// A layer that normalises behind each half (BERT, DistilBERT, RoBERTa).
#[derive(Debug)]
pub(super) struct PostNormLayer {
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

impl PostNormLayer {
    pub(super) fn load(loader: &Loader<'_>, shape: &Shape, at: usize) -> Result<Self, LoadError> {
        let (hidden, wide) = (shape.hidden, shape.intermediate);
        let part = |part, rows, cols| {
            loader.linear(&[loader.names.linear(loader.file, at, part)], rows, cols)
        };
        let qkv = [Part::Query, Part::Key, Part::Value]
            .map(|part| loader.names.linear(loader.file, at, part));
        let [attention_norm, output_norm] = loader.names.norms(at);
        Ok(Self {
            qkv: loader.linear(&qkv, hidden, hidden)?,
            output: part(Part::Output, hidden, hidden)?,
            attention_norm: norm(loader, &attention_norm, hidden)?,
            up: part(Part::Up, wide, hidden)?,
            down: part(Part::Down, hidden, wide)?,
            output_norm: norm(loader, &output_norm, hidden)?,
        })
    }

    pub(super) fn forward(&self, pass: Pass<'_>, x: &mut [f32], buffers: &mut Buffers) {
        let Pass { pool, shape, sequences } = pass;
        let Buffers { qkv, mixed, wide, sum, .. } = buffers;
        self.qkv.apply(pool, x, Activation::None, qkv);
        let attention = EncoderAttention {
            heads: shape.heads,
            head_dim: shape.hidden / shape.heads,
            reach: None,
        };
        pool.encoder_attention(qkv, sequences.ranges(), attention, mixed);
        self.output.apply(pool, mixed, Activation::None, sum);
        self.attention_norm.add(pool, x, sum, shape.eps);
        self.up.apply(pool, x, shape.activation, wide);
        self.down.apply(pool, wide, Activation::None, sum);
        self.output_norm.add(pool, x, sum, shape.eps);
    }
}

/// A layer of ModernBERT: normalises before each half, turns queries and keys, gates.
#[derive(Debug)]
pub(super) struct PreNormLayer {
    /// The first layer has none: the embeddings are normalised already.
    attention_norm: Option<Norm>,
    qkv: Linear,
    output: Linear,
    mlp_norm: Norm,
    up: Linear,
    down: Linear,
    reach: Option<usize>,
}

/// The turning of queries and keys, for layers that see everything and for the others.
#[derive(Debug)]
pub(super) struct Turning {
    pub(super) global: RopeTable,
    pub(super) local: RopeTable,
}

impl PreNormLayer {
    pub(super) fn load(
        loader: &Loader<'_>,
        shape: &Shape,
        at: usize,
        reach: Option<usize>,
    ) -> Result<Self, LoadError> {
        let (hidden, wide) = (shape.hidden, shape.intermediate);
        let path = |name: &str| loader.names.inner(&format!("layers.{at}.{name}"));
        let linear = |name: &str, rows, cols| {
            let (weight, bias) = (path(&format!("{name}.weight")), path(&format!("{name}.bias")));
            let place = super::names::Place { weight, bias, transposed: false };
            loader.linear(&[place], rows, cols)
        };
        let attention_norm = path("attn_norm");
        let attention_norm = if at == 0 && !loader.file.has(&format!("{attention_norm}.weight")) {
            None
        } else {
            Some(norm(loader, &attention_norm, hidden)?)
        };
        Ok(Self {
            attention_norm,
            qkv: linear("attn.Wqkv", 3 * hidden, hidden)?,
            output: linear("attn.Wo", hidden, hidden)?,
            mlp_norm: norm(loader, &path("mlp_norm"), hidden)?,
            up: linear("mlp.Wi", 2 * wide, hidden)?,
            down: linear("mlp.Wo", hidden, wide)?,
            reach,
        })
    }

    pub(super) fn forward(
        &self,
        pass: Pass<'_>,
        turning: &Turning,
        x: &mut [f32],
        buffers: &mut Buffers,
    ) {
        let Pass { pool, shape, sequences } = pass;
        let head_dim = shape.hidden / shape.heads;
        let Buffers { qkv, mixed, wide, gated, sum } = buffers;
        sum.copy_from_slice(x);
        if let Some(norm) = &self.attention_norm {
            norm.add(pool, sum, &[], shape.eps);
        }
        self.qkv.apply(pool, sum, Activation::None, qkv);
        let table = if self.reach.is_some() { &turning.local } else { &turning.global };
        // Queries and keys are two thirds of a row; the values behind them are not turned.
        for (row, position) in qkv.chunks_exact_mut(3 * shape.hidden).zip(sequences.positions()) {
            let turned = &mut row[..2 * shape.hidden];
            pool.cpu().rope(table, turned, head_dim, std::slice::from_ref(position));
        }
        let attention = EncoderAttention { heads: shape.heads, head_dim, reach: self.reach };
        pool.encoder_attention(qkv, sequences.ranges(), attention, mixed);
        self.output.apply(pool, mixed, Activation::None, sum);
        pool.add_assign(x, sum);
        sum.copy_from_slice(x);
        self.mlp_norm.add(pool, sum, &[], shape.eps);
        self.up.apply(pool, sum, Activation::None, wide);
        // HF: `input, gate = Wi(x).chunk(2)`, `act(input) * gate`.
        pool.gelu_gate(wide, shape.intermediate, gated);
        self.down.apply(pool, gated, Activation::None, sum);
        pool.add_assign(x, sum);
    }
}
