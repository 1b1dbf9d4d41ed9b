//! Which head a file has, by what it says it was trained for, and where its tensors are.

use super::{Exclusive, Head, Pooling, Stage};
use crate::config::Precision;
use crate::encoder::names::Place;
use crate::encoder::{ConfigJson, Encoder, Family, Linear, LoadError, Loader, norm};
use crate::tensors::TensorFile;

const SERVED: &str =
    "masked language models (SPLADE), sequence and token classification, embedding";

/// What a head is made of.
#[derive(Debug)]
pub struct HeadFiles<'a> {
    /// The tensors.
    pub loader: &'a Loader<'a>,
    /// What the model was trained for.
    pub config: &'a ConfigJson,
    /// Names of its labels; may be empty.
    pub labels: usize,
    /// How token vectors become one, for embeddings.
    pub pooling: Pooling,
}

impl HeadFiles<'_> {
    fn place(path: &str) -> Place {
        let (weight, bias) = (format!("{path}.weight"), format!("{path}.bias"));
        Place { weight, bias, transposed: false }
    }

    fn linear(&self, path: &str, rows: usize, cols: usize) -> Result<Linear, LoadError> {
        self.loader.linear(&[Self::place(path)], rows, cols)
    }

    fn norm(&self, path: &str, width: usize) -> Result<Stage, LoadError> {
        norm(self.loader, path, width).map(Stage::Norm)
    }

    fn first_of<'p>(&self, paths: &[&'p str]) -> &'p str {
        let there = |path: &&&str| self.loader.file.has(&format!("{path}.weight"));
        paths.iter().find(there).copied().unwrap_or_default()
    }
}

/// The head of a model.
///
/// # Errors
/// [`LoadError::Head`] for a model that was trained for something else.
pub fn load(files: &HeadFiles<'_>, encoder: &Encoder) -> Result<Head, LoadError> {
    let trained_for = files.config.architectures.first().map_or("", String::as_str);
    if trained_for.ends_with("ForMaskedLM") {
        sparse(files, encoder)
    } else if trained_for.ends_with("ForSequenceClassification") {
        sequence(files, encoder)
    } else if trained_for.ends_with("ForTokenClassification") {
        tokens(files, encoder)
    } else if trained_for.ends_with("Model") {
        Ok(Head::Dense { pooling: files.pooling })
    } else if trained_for.is_empty() {
        // A package without a `config.json`: labels say that it puts them on tokens.
        if files.labels > 0 {
            tokens(files, encoder)
        } else {
            Ok(Head::Dense { pooling: files.pooling })
        }
    } else {
        let found = format!("{:?}", trained_for.chars().take(64).collect::<String>());
        Err(LoadError::Head { found, known: SERVED })
    }
}

fn sparse(files: &HeadFiles<'_>, encoder: &Encoder) -> Result<Head, LoadError> {
    let shape = encoder.shape();
    let hidden = shape.hidden;
    let (transform, norm, decoder, bias) = match shape.family {
        Family::Bert => (
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.decoder.weight",
            "cls.predictions.bias",
        ),
        Family::DistilBert => (
            "vocab_transform",
            "vocab_layer_norm",
            "vocab_projector.weight",
            "vocab_projector.bias",
        ),
        Family::Roberta => {
            ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight", "lm_head.bias")
        }
        Family::ModernBert => ("head.dense", "head.norm", "decoder.weight", "decoder.bias"),
    };
    let file = files.loader.file;
    let stages = vec![
        Stage::Linear(files.linear(transform, hidden, hidden)?, shape.activation),
        files.norm(norm, hidden)?,
    ];
    let rows = shape.vocabulary;
    let bias = if file.has(bias) { file.floats(bias, &[rows])? } else { Vec::new() };
    let decoder = if file.has(decoder) {
        Linear::pack(
            &file.floats(decoder, &[rows, hidden])?,
            bias,
            (rows, hidden),
            files.loader.precision,
        )?
    } else {
        // Tied to the word embeddings.
        Linear::pack(encoder.words(), bias, (rows, hidden), files.loader.precision)?
    };
    Ok(Head::Sparse { stages, decoder })
}

fn sequence(files: &HeadFiles<'_>, encoder: &Encoder) -> Result<Head, LoadError> {
    let shape = encoder.shape();
    let hidden = shape.hidden;
    let (pooling, stages, out) = match shape.family {
        Family::Bert => {
            let pooler = files.first_of(&["bert.pooler.dense", "pooler.dense"]);
            let pooler = files.linear(pooler, hidden, hidden)?;
            (Pooling::Cls, vec![Stage::Tanh(pooler)], "classifier")
        }
        Family::DistilBert => {
            let before = files.linear("pre_classifier", hidden, hidden)?;
            let stage = Stage::Linear(before, aisemble_weights::kernels::Activation::Relu);
            (Pooling::Cls, vec![stage], "classifier")
        }
        Family::Roberta => {
            let dense = files.linear("classifier.dense", hidden, hidden)?;
            (Pooling::Cls, vec![Stage::Tanh(dense)], "classifier.out_proj")
        }
        Family::ModernBert => {
            let pooling = match files.config.classifier_pooling.as_deref() {
                Some("mean") => Pooling::Mean,
                Some(_) | None => Pooling::Cls,
            };
            (pooling, modern_head(files, encoder)?, "classifier")
        }
    };
    let labels = label_count(files, out)?;
    let out = files.linear(out, labels, hidden)?;
    if labels == 1 {
        return Ok(Head::Relevance { pooling, stages, out });
    }
    let exclusive = match files.config.problem_type.as_deref() {
        Some("multi_label_classification") => Exclusive::No,
        Some(_) | None => Exclusive::Yes,
    };
    Ok(Head::Labels { pooling, unit: false, stages, out, exclusive })
}

fn modern_head(files: &HeadFiles<'_>, encoder: &Encoder) -> Result<Vec<Stage>, LoadError> {
    let shape = encoder.shape();
    Ok(vec![
        Stage::Linear(files.linear("head.dense", shape.hidden, shape.hidden)?, shape.activation),
        files.norm("head.norm", shape.hidden)?,
    ])
}

fn tokens(files: &HeadFiles<'_>, encoder: &Encoder) -> Result<Head, LoadError> {
    let shape = encoder.shape();
    let stages = match shape.family {
        Family::ModernBert => modern_head(files, encoder)?,
        Family::Bert | Family::DistilBert | Family::Roberta => Vec::new(),
    };
    let loader = files.loader;
    let place = loader.names.head(loader.file, "classifier", shape.layers);
    let labels = loader.file.shape(&place.bias)?.first().copied().unwrap_or(0);
    let out = loader.linear(&[place], labels, shape.hidden)?;
    Ok(Head::Tokens { stages, out })
}

fn label_count(files: &HeadFiles<'_>, path: &str) -> Result<usize, LoadError> {
    let shape = files.loader.file.shape(&format!("{path}.weight"))?;
    Ok(shape.first().copied().unwrap_or(0))
}

/// A linear head on another model's normalised embeddings: `weight` `[labels, hidden]` and `bias`.
///
/// # Errors
/// When the tensors are not of the shape.
pub fn load_linear(
    file: &TensorFile,
    (labels, hidden): (usize, usize),
    pooling: Pooling,
) -> Result<Head, LoadError> {
    let (weight, bias) =
        (file.floats("weight", &[labels, hidden])?, file.floats("bias", &[labels])?);
    let out = Linear::pack(&weight, bias, (labels, hidden), Precision::F32)?;
    let (stages, exclusive) = (Vec::new(), Exclusive::Yes);
    Ok(Head::Labels { pooling, unit: true, stages, out, exclusive })
}
