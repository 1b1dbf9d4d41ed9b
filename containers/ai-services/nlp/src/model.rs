//! A model as it is loaded: its files, proved by their digests, its text encoder, encoder and head,
//! and what it says of itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use aisemble_protocol::v1;
use aisemble_service::LoadProgress;
use aisemble_weights::digest::{self, DigestError};
use aisemble_weights::kernels::Pool;

use crate::config::{EngineSection, ModelSection, Precision};
use crate::encoder::names::Names;
use crate::encoder::{ConfigJson, Encoder, Family, LoadError, Loader, ShapeError, inferred};
use crate::heads::{self, Head, HeadFiles, Pooling};
use crate::tensors::{TensorError, TensorFile};
use crate::text::{TextEncoder, TextError};

/// Bytes of a JSON file of a model, the tokenizer's not.
const JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// And of a tokenizer.
const TOKENIZER_BYTES_MAX: u64 = 64 * 1024 * 1024;
const WEIGHTS: &str = "model.safetensors";
const HEAD: &str = "head.safetensors";

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file is missing or is another one.
    #[error("{file} is not the file that is pinned")]
    Digest {
        /// The file.
        file: String,
        /// How.
        #[source]
        source: DigestError,
    },
    /// A file that the model needs has no pin.
    #[error("{file} is needed and not pinned under sha256")]
    Unpinned {
        /// The file.
        file: &'static str,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// The file.
        file: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is too large.
    #[error("{file} has more than {limit} bytes")]
    TooLarge {
        /// The file.
        file: String,
        /// The limit.
        limit: u64,
    },
    /// A file is not the JSON that it should be.
    #[error("{file} is not understood")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` names something that is not served.
    #[error("config.json is not served")]
    Shape {
        /// Which key.
        #[from]
        source: ShapeError,
    },
    /// A tensor is not as it must be.
    #[error("the weights are not usable")]
    Tensor {
        /// Which.
        #[from]
        source: TensorError,
    },
    /// The encoder or its head cannot be made.
    #[error("the weights are not those of the model")]
    Load {
        /// Why.
        #[from]
        source: LoadError,
    },
    /// The tokenizer is not usable.
    #[error("tokenizer.json is not usable")]
    Text {
        /// Why.
        #[from]
        source: TextError,
    },
    /// The head's model is not among those of the instance.
    #[error("the head belongs to the weights {wanted}, and no model before it has them")]
    NoBase {
        /// The digest of the weights that the head was trained on.
        wanted: String,
    },
    /// The head has no labels, or another number of them.
    #[error("{found} labels are named; the weights have {expected}")]
    Labels {
        /// Named.
        found: usize,
        /// In the weights.
        expected: usize,
    },
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A vector for a text.
    Embed,
    /// Weights of terms for a text.
    EmbedSparse,
    /// The order of documents.
    Rerank,
    /// Labels of a text.
    Classify,
    /// Labels of parts of a text.
    Entities,
}

impl Task {
    /// Its name in `tasks`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::EmbedSparse => "embed_sparse",
            Self::Rerank => "rerank",
            Self::Classify => "classify",
            Self::Entities => "entities",
        }
    }
}

/// A model that is loaded.
#[derive(Debug)]
pub struct LoadedModel {
    /// What a request's `model` says.
    pub name: String,
    /// Digest of its weights (of a head: the head's).
    pub sha256: String,
    /// Digest of the encoder's weights.
    pub encoder_sha256: String,
    /// Texts to tokens.
    pub text: Arc<TextEncoder>,
    /// Tokens to vectors; shared by the heads on it.
    pub encoder: Arc<Encoder>,
    /// Vectors to outputs.
    pub head: Head,
    /// Names of labels; empty when it has none.
    pub labels: Vec<String>,
    /// Tokens of a window, special ones included.
    pub window_tokens: usize,
    /// What it says of itself.
    pub info: v1::ModelInfo,
    pooling: Pooling,
}

impl LoadedModel {
    /// Whether it does a task.
    #[must_use]
    pub fn does(&self, task: Task) -> bool {
        match (&self.head, task) {
            (Head::Dense { .. }, Task::Embed | Task::Rerank)
            | (Head::Sparse { .. }, Task::EmbedSparse | Task::Rerank)
            | (Head::Labels { .. }, Task::Classify)
            | (Head::Relevance { .. }, Task::Rerank)
            | (Head::Tokens { .. }, Task::Entities) => true,
            (
                Head::Dense { .. }
                | Head::Sparse { .. }
                | Head::Labels { .. }
                | Head::Relevance { .. }
                | Head::Tokens { .. },
                Task::Embed | Task::EmbedSparse | Task::Rerank | Task::Classify | Task::Entities,
            ) => false,
        }
    }

    /// Loads a model. `before` are those that are loaded already: a head finds its encoder there.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn load(
        section: &ModelSection,
        engine: &EngineSection,
        before: &[Self],
        pool: &Arc<Pool>,
        progress: &LoadProgress,
    ) -> Result<Self, ModelError> {
        let files = Files { section, progress };
        if section.architecture == "linear" {
            return Self::head_on(&files, before);
        }
        let weights = files.tensors(WEIGHTS)?;
        let family = Family::parse(&section.architecture);
        let config = match files.json::<ConfigJson>("config.json")? {
            Some(config) => config,
            None => {
                let family = family.ok_or(ModelError::Unpinned { file: "config.json" })?;
                inferred::config(&weights, &Names::of(&weights, family), family)?
            }
        };
        let shape = config.shape(family)?;
        let names = Names::of(&weights, shape.family);
        let loader = Loader { file: &weights, names: &names, precision: section.precision };
        let text = Arc::new(TextEncoder::from_bytes(&files.tokenizer()?, shape.vocabulary)?);
        let encoder = Arc::new(Encoder::load(&loader, shape, Arc::clone(pool))?);
        let labels = match files.json::<TagVocabulary>("tag_vocab.json")? {
            Some(vocabulary) => vocabulary.tags,
            None => config.labels()?,
        };
        let pooling = files.pooling()?;
        let head = HeadFiles { loader: &loader, config: &config, labels: labels.len(), pooling };
        let head = heads::load(&head, &encoder)?;
        let labels = labels_of(&head, labels)?;
        let window_tokens = engine.window_tokens_max.min(encoder.shape().positions);
        let sha256 = files.pin(WEIGHTS)?.to_ascii_lowercase();
        let info = info(section, engine, &encoder, weights.file_bytes(), window_tokens);
        let mut model = Self {
            name: section.name.clone(),
            encoder_sha256: sha256.clone(),
            sha256,
            text,
            encoder,
            head,
            labels,
            window_tokens,
            info,
            pooling,
        };
        model.describe(parameters(&weights));
        Ok(model)
    }

    /// A linear head on the embeddings of a model that is loaded already.
    fn head_on(files: &Files<'_>, before: &[Self]) -> Result<Self, ModelError> {
        let name = if files.section.sha256.contains_key(HEAD) { HEAD } else { WEIGHTS };
        let file = files.tensors(name)?;
        let wanted = file.metadata("base_sha256").unwrap_or_default().to_ascii_lowercase();
        let base = before
            .iter()
            .find(|model| model.encoder_sha256 == wanted)
            .ok_or(ModelError::NoBase { wanted })?;
        let labels: Vec<String> = serde_json::from_str(file.metadata("labels").unwrap_or("[]"))
            .map_err(|source| ModelError::Json { file: format!("{name} (labels)"), source })?;
        let hidden = base.encoder.shape().hidden;
        let head = heads::load_linear(&file, (labels.len(), hidden), base.pooling)?;
        let labels = labels_of(&head, labels)?;
        let mut info = base.info.clone();
        info.name.clone_from(&files.section.name);
        info.license.clone_from(&files.section.license);
        info.family = format!("linear on {}", base.name);
        info.file_bytes = file.file_bytes();
        let sha256 = files.pin(name)?.to_ascii_lowercase();
        let mut model = Self {
            name: files.section.name.clone(),
            sha256,
            encoder_sha256: base.encoder_sha256.clone(),
            text: Arc::clone(&base.text),
            encoder: Arc::clone(&base.encoder),
            head,
            labels,
            window_tokens: base.window_tokens,
            info,
            pooling: base.pooling,
        };
        model.describe(parameters(&file));
        Ok(model)
    }

    /// Fills in what follows from the head.
    fn describe(&mut self, parameters: u64) {
        const TASKS: [Task; 5] =
            [Task::Embed, Task::EmbedSparse, Task::Rerank, Task::Classify, Task::Entities];
        let tasks = TASKS.into_iter().filter(|task| self.does(*task));
        let tasks = tasks.map(|task| task.as_str().to_owned()).collect();
        self.info.tasks = tasks;
        self.info.sha256.clone_from(&self.sha256);
        self.info.labels.clone_from(&self.labels);
        self.info.parameters = parameters;
        let dense = self.does(Task::Embed);
        let hidden = self.encoder.shape().hidden as u32;
        self.info.embedding_dimensions = if dense { hidden } else { 0 };
    }
}

/// `tag_vocab.json`: labels by class number.
#[derive(Debug, serde::Deserialize)]
struct TagVocabulary {
    tags: Vec<String>,
}

/// `1_Pooling/config.json` of sentence-transformers, installed as `pooling.json`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct PoolingJson {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// As many labels as the head has outputs: names that are missing are numbers.
fn labels_of(head: &Head, labels: Vec<String>) -> Result<Vec<String>, ModelError> {
    let expected = match head {
        Head::Labels { out, .. } | Head::Tokens { out, .. } => out.rows(),
        Head::Dense { .. } | Head::Sparse { .. } | Head::Relevance { .. } => return Ok(Vec::new()),
    };
    if labels.is_empty() {
        return Ok((0..expected).map(|id| format!("LABEL_{id}")).collect());
    }
    if labels.len() != expected {
        return Err(ModelError::Labels { found: labels.len(), expected });
    }
    Ok(labels)
}

fn parameters(file: &TensorFile) -> u64 {
    let of =
        |name: &str| file.shape(name).map_or(0, |shape| shape.iter().product::<usize>() as u64);
    // Position ids are no weights.
    file.names().filter(|name| !name.ends_with("position_ids")).map(of).sum()
}

fn info(
    section: &ModelSection,
    engine: &EngineSection,
    encoder: &Encoder,
    file_bytes: u64,
    window_tokens: usize,
) -> v1::ModelInfo {
    v1::ModelInfo {
        name: section.name.clone(),
        family: encoder.shape().family.as_str().to_owned(),
        format: "safetensors".to_owned(),
        quantization: match section.precision {
            Precision::F32 => "F32".to_owned(),
            Precision::Q8 => "Q8_0".to_owned(),
        },
        license: section.license.clone(),
        device: "cpu".to_owned(),
        device_note: engine.device.note().to_owned(),
        file_bytes,
        limits: Some(v1::Limits {
            context_tokens_max: window_tokens as u32,
            output_tokens_max: 0,
            queue_depth_max: engine.queue_depth_max as u32,
            batch_rows_max: engine.batch_tokens_max as u32,
        }),
        ..v1::ModelInfo::default()
    }
}

/// The pinned files of one model.
struct Files<'a> {
    section: &'a ModelSection,
    progress: &'a LoadProgress,
}

impl Files<'_> {
    fn pin(&self, file: &'static str) -> Result<&str, ModelError> {
        let pins: &BTreeMap<String, String> = &self.section.sha256;
        pins.get(file).map(String::as_str).ok_or(ModelError::Unpinned { file })
    }

    /// A file whose digest is the pinned one.
    fn open(&self, file: &'static str) -> Result<File, ModelError> {
        let path: &Path = &self.section.path.join(file);
        let report = |done, total| self.progress.report("digest", done, total);
        digest::open_verified(path, self.pin(file)?, report)
            .map_err(|source| ModelError::Digest { file: file.to_owned(), source })
    }

    fn tensors(&self, file: &'static str) -> Result<TensorFile, ModelError> {
        Ok(TensorFile::open(&self.open(file)?)?)
    }

    fn bytes(&self, file: &'static str, limit: u64) -> Result<Vec<u8>, ModelError> {
        let open = self.open(file)?;
        let mut bytes = Vec::new();
        open.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| ModelError::Read { file: file.to_owned(), source })?;
        if bytes.len() as u64 > limit {
            return Err(ModelError::TooLarge { file: file.to_owned(), limit });
        }
        Ok(bytes)
    }

    fn tokenizer(&self) -> Result<Vec<u8>, ModelError> {
        self.bytes("tokenizer.json", TOKENIZER_BYTES_MAX)
    }

    /// A file that need not be there: `None` when it has no pin.
    fn json<T: serde::de::DeserializeOwned>(
        &self,
        file: &'static str,
    ) -> Result<Option<T>, ModelError> {
        if !self.section.sha256.contains_key(file) {
            return Ok(None);
        }
        let bytes = self.bytes(file, JSON_BYTES_MAX)?;
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| ModelError::Json { file: file.to_owned(), source })
    }

    fn pooling(&self) -> Result<Pooling, ModelError> {
        if let Some(pooling) = Pooling::parse(&self.section.pooling) {
            return Ok(pooling);
        }
        let file = self.json::<PoolingJson>("pooling.json")?.unwrap_or_default();
        Ok(if file.pooling_mode_cls_token {
            Pooling::Cls
        } else if file.pooling_mode_lasttoken && !file.pooling_mode_mean_tokens {
            Pooling::Last
        } else {
            Pooling::Mean
        })
    }
}
