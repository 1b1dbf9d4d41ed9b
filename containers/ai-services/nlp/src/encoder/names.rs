//! Under which names the files of each family keep their tensors. It knows names only.

use super::family::Family;
use crate::tensors::TensorFile;

/// Where a linear layer is: its weight's and bias's names, and whether the file keeps the weight as
/// `[inputs, outputs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the weight.
    pub weight: String,
    /// Name of the bias.
    pub bias: String,
    /// `[inputs, outputs]` in place of `[outputs, inputs]`.
    pub transposed: bool,
}

impl Place {
    fn plain(prefix: String) -> Self {
        let (weight, bias) = (format!("{prefix}.weight"), format!("{prefix}.bias"));
        Self { weight, bias, transposed: false }
    }
}

/// The names of one file.
#[derive(Debug, Clone)]
pub struct Names {
    family: Family,
    /// What stands before the encoder's names: `bert.`, or nothing.
    prefix: String,
    /// Weights that an ONNX export left without a name, in the order of the graph.
    anonymous: Vec<String>,
}

/// The linear layers of one encoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Behind attention.
    Output,
    /// Into the feed-forward layer.
    Up,
    /// Out of it.
    Down,
}

/// Weights of a layer that an export leaves anonymous: the six [`Part`]s.
const ANONYMOUS_PER_LAYER: usize = 6;

impl Names {
    /// The names that a file of the family uses.
    #[must_use]
    pub fn of(file: &TensorFile, family: Family) -> Self {
        let probe = match family {
            Family::Bert | Family::DistilBert | Family::Roberta => {
                "embeddings.position_embeddings.weight"
            }
            Family::ModernBert => "embeddings.tok_embeddings.weight",
        };
        let prefix = ["", "bert.", "distilbert.", "roberta.", "model.", "0.auto_model."]
            .into_iter()
            .find(|prefix| file.has(&format!("{prefix}{probe}")))
            .unwrap_or_default();
        // An export names a weight that it has transposed after the product that it is used in:
        // `onnx::MatMul_753`, numbered in the order of the graph.
        let mut anonymous: Vec<(u64, String)> = file
            .names()
            .filter_map(|name| {
                let number = name.strip_prefix("onnx::MatMul_")?;
                Some((number.parse().ok()?, name.to_owned()))
            })
            .collect();
        anonymous.sort();
        let anonymous = anonymous.into_iter().map(|(_, name)| name).collect();
        Self { family, prefix: prefix.to_owned(), anonymous }
    }

    /// A name of the encoder itself.
    #[must_use]
    pub fn inner(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The layer's linear part. ModernBERT has its own names ([`Names::inner`]).
    #[must_use]
    pub fn linear(&self, file: &TensorFile, layer: usize, part: Part) -> Place {
        let path = match self.family {
            Family::Bert | Family::Roberta | Family::ModernBert => {
                let part = match part {
                    Part::Query => "attention.self.query",
                    Part::Key => "attention.self.key",
                    Part::Value => "attention.self.value",
                    Part::Output => "attention.output.dense",
                    Part::Up => "intermediate.dense",
                    Part::Down => "output.dense",
                };
                format!("{}encoder.layer.{layer}.{part}", self.prefix)
            }
            Family::DistilBert => {
                let part = match part {
                    Part::Query => "attention.q_lin",
                    Part::Key => "attention.k_lin",
                    Part::Value => "attention.v_lin",
                    Part::Output => "attention.out_lin",
                    Part::Up => "ffn.lin1",
                    Part::Down => "ffn.lin2",
                };
                format!("{}transformer.layer.{layer}.{part}", self.prefix)
            }
        };
        let index = layer * ANONYMOUS_PER_LAYER + part as usize;
        self.or_anonymous(file, Place::plain(path), index)
    }

    /// A linear layer of a head, which comes behind `layers` encoder layers.
    #[must_use]
    pub fn head(&self, file: &TensorFile, path: &str, layers: usize) -> Place {
        let index = layers * ANONYMOUS_PER_LAYER;
        self.or_anonymous(file, Place::plain(path.to_owned()), index)
    }

    fn or_anonymous(&self, file: &TensorFile, place: Place, index: usize) -> Place {
        match self.anonymous.get(index) {
            Some(weight) if !file.has(&place.weight) => {
                Place { weight: weight.clone(), transposed: true, ..place }
            }
            Some(_) | None => place,
        }
    }

    /// The layer's two normalisations: behind attention, behind the feed-forward layer.
    #[must_use]
    pub fn norms(&self, layer: usize) -> [String; 2] {
        match self.family {
            Family::Bert | Family::Roberta | Family::ModernBert => {
                ["attention.output.LayerNorm", "output.LayerNorm"]
                    .map(|part| format!("{}encoder.layer.{layer}.{part}", self.prefix))
            }
            Family::DistilBert => ["sa_layer_norm", "output_layer_norm"]
                .map(|part| format!("{}transformer.layer.{layer}.{part}", self.prefix)),
        }
    }
}
