//! The models that are loaded: who each is, and which of them answers a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use aisemble_protocol::vision::Task;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use aisemble_service::LoadProgress;

use crate::config::{EngineSection, LABELS, ModelSection, WEIGHTS};
use crate::hub::{self, Files};
use crate::models::{Architecture, Network, NetworkError};
use crate::weights_file::{Tensors, WeightsError, read_verified};

/// Bytes of one label in a labels file.
const LABEL_BYTES_MAX: usize = 512;

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its weights cannot be used.
    #[error("{file} cannot be used")]
    Weights {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: WeightsError,
    },
    /// Its files make no network.
    #[error("it is not a {architecture} that is served")]
    Network {
        /// What it is said to be.
        architecture: Architecture,
        /// Why.
        #[source]
        source: NetworkError,
    },
    /// Its labels are no JSON object of numbers and names.
    #[error("labels.json is not of the form {{\"0\": \"name\", ...}}")]
    Labels {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is not one label for each class.
    #[error("labels.json has {found} labels that can be used; the model has {expected} classes")]
    LabelCount {
        /// Labels found.
        found: usize,
        /// Classes.
        expected: usize,
    },
}

/// A model that is loaded.
#[derive(Debug)]
pub struct Model {
    /// What a request's `model` says.
    pub name: String,
    /// Which network it is.
    pub architecture: Architecture,
    /// Digest of its weights.
    pub sha256: String,
    /// Its licence.
    pub license: String,
    /// Bytes of its weights' file.
    pub file_bytes: u64,
    /// Names of its classes, or numbers; empty when it has none.
    pub labels: Vec<String>,
    /// The network.
    pub network: Network,
}

impl Model {
    /// Reads and checks a model's files.
    ///
    /// # Errors
    /// [`ModelError`].
    #[expect(clippy::result_large_err, reason = "at the start only, and it ends it")]
    pub fn load(section: &ModelSection, progress: &LoadProgress) -> Result<Self, ModelError> {
        let digest = |file: &str| section.sha256.get(file).map_or("", String::as_str);
        let read = |file: &'static str| {
            let report = |done, all| progress.report("digest", done, all);
            read_verified(&section.path.join(file), digest(file), report)
                .map_err(|source| ModelError::Weights { file, source })
        };
        let weights = |source| ModelError::Weights { file: WEIGHTS, source };
        let bytes = read(WEIGHTS)?;
        let tensors = Tensors::new(&bytes).map_err(weights)?;
        let beside = |file: &'static str| match section.sha256.contains_key(file) {
            true => read(file),
            false => Ok(Vec::new()),
        };
        let files = Files {
            config: beside(hub::CONFIG)?,
            preprocessor: beside(hub::PREPROCESSOR)?,
            tokenizer: beside(hub::TOKENIZER)?,
        };
        let architecture = section.architecture;
        let network = Network::load(architecture, &tensors, &files)
            .map_err(|source| ModelError::Network { architecture, source })?;
        let labels = match section.sha256.contains_key(LABELS) {
            true => parse_labels(&read(LABELS)?, network.labels().len())?,
            false => network.labels(),
        };
        Ok(Self {
            name: section.name.clone(),
            architecture,
            sha256: digest(WEIGHTS).to_ascii_lowercase(),
            license: section.license.clone(),
            file_bytes: bytes.len() as u64,
            labels,
            network,
        })
    }

    fn info(&self, engine: &EngineSection, tasks: Vec<String>) -> v1::ModelInfo {
        v1::ModelInfo {
            name: self.name.clone(),
            family: self.architecture.as_str().to_owned(),
            format: "safetensors".to_owned(),
            quantization: "F32".to_owned(),
            sha256: self.sha256.clone(),
            license: self.license.clone(),
            device: "cpu".to_owned(),
            device_note: engine.device.note().to_owned(),
            parameters: self.network.parameters(),
            file_bytes: self.file_bytes,
            tasks,
            limits: Some(v1::Limits {
                queue_depth_max: engine.requests_max as u32,
                batch_rows_max: engine.batch_rows_max as u32,
                ..v1::Limits::default()
            }),
            labels: self.labels.clone(),
            embedding_dimensions: self.network.embedding() as u32,
            ..v1::ModelInfo::default()
        }
    }
}

#[expect(clippy::result_large_err, reason = "at the start only, and it ends it")]
fn parse_labels(bytes: &[u8], classes: usize) -> Result<Vec<String>, ModelError> {
    let all: BTreeMap<String, String> =
        serde_json::from_slice(bytes).map_err(|source| ModelError::Labels { source })?;
    ordered(&all, classes).map_err(|found| ModelError::LabelCount { found, expected: classes })
}

/// Names by number of class, one for each; how many can be used when that is not all.
pub(crate) fn ordered(
    names: &BTreeMap<String, String>,
    classes: usize,
) -> Result<Vec<String>, usize> {
    let mut labels = vec![String::new(); classes];
    let mut found = 0;
    for (class, label) in names {
        let slot = class.parse::<usize>().ok().and_then(|class| labels.get_mut(class));
        if let Some(slot) = slot.filter(|slot| slot.is_empty())
            && !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
        {
            label.clone_into(slot);
            found += 1;
        }
    }
    if found == classes { Ok(labels) } else { Err(found) }
}

/// The models of an instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    models: Arc<Vec<Model>>,
}

/// Where the models of a task are in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// One model answers.
    One(usize),
    /// One finds where text is, another reads it.
    Text {
        /// The one that finds.
        finds: usize,
        /// The one that reads.
        reads: usize,
    },
}

impl Chosen {
    /// All of them.
    pub fn models(self) -> impl Iterator<Item = usize> {
        let (first, second) = match self {
            Self::One(model) => (model, None),
            Self::Text { finds, reads } => (finds, Some(reads)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Catalog {
    /// A catalog of these models, in the order of configuration.
    #[must_use]
    pub fn new(models: Vec<Model>) -> Self {
        Self { models: Arc::new(models) }
    }

    /// The models.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// What Describe says of them.
    #[must_use]
    pub fn info(&self, engine: &EngineSection) -> Vec<v1::ModelInfo> {
        let tasks = |model: &Model| {
            let served = |task: &&Task| self.choose(**task, "").is_ok();
            let tasks = model.network.tasks().iter().filter(served);
            tasks.map(|task| task.as_str().to_owned()).collect()
        };
        self.models.iter().map(|model| model.info(engine, tasks(model))).collect()
    }

    /// The model for a task: the one of that name, or the first that has the task.
    ///
    /// # Errors
    /// `unprocessable`, naming the models that have the task, or those that would give it.
    pub fn choose(&self, task: Task, name: &str) -> Result<Chosen, ApiError> {
        if task == Task::Ocr {
            let finds = self.position(Architecture::Craft, name);
            let reads = self.position(Architecture::Crnn, name);
            // The name of one of the two is enough.
            let finds =
                finds.or_else(|| reads.and_then(|_| self.position(Architecture::Craft, "")));
            let reads = reads.or_else(|| finds.and_then(|_| self.position(Architecture::Crnn, "")));
            if let (Some(finds), Some(reads)) = (finds, reads) {
                return Ok(Chosen::Text { finds, reads });
            }
            return Err(self.without(task, name));
        }
        let fits = |model: &Model| {
            model.network.tasks().contains(&task) && (name.is_empty() || model.name == name)
        };
        let found = self.models.iter().position(fits);
        found.map(Chosen::One).ok_or_else(|| self.without(task, name))
    }

    fn position(&self, architecture: Architecture, name: &str) -> Option<usize> {
        let fits = |model: &Model| {
            model.architecture == architecture && (name.is_empty() || model.name == name)
        };
        self.models.iter().position(fits)
    }

    fn without(&self, task: Task, name: &str) -> ApiError {
        let has = |model: &&Model| model.network.tasks().contains(&task);
        let names: Vec<&str> = self.models.iter().filter(has).map(|model| &*model.name).collect();
        let name: String = name.chars().take(128).collect();
        let message = match (name.is_empty(), names.is_empty(), would_give(task)) {
            (false, false, _) if task != Task::Ocr || names.len() > 1 => {
                format!(
                    "the model {name:?} is not loaded for the task {task}; {} is",
                    names.join(", ")
                )
            }
            (_, _, models) => {
                format!("no model for the task {task} is loaded; {models} would give it")
            }
        };
        ApiError::new(ErrorCode::Unprocessable, message).with_param("tasks")
    }
}

/// Which models give a task, for who has none of them.
fn would_give(task: Task) -> &'static str {
    match task {
        Task::Classify | Task::Embed => "efficientnet-lite0",
        Task::Detect => "ssdlite-person",
        Task::Faces => "centerface",
        Task::Ocr => "craft-mlt-25k together with crnn-english-g2",
        Task::ZeroShot => "a CLIP or SigLIP model of a hub (architecture clip, siglip)",
        Task::Caption => "a BLIP model of a hub (architecture blip)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_for_each_class_or_refused() {
        let check = |text: &str, classes, expect: Result<&[&str], &str>| match (
            parse_labels(text.as_bytes(), classes),
            expect,
        ) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(sentence)) => {
                assert!(error.to_string().contains(sentence), "{error}");
            }
            (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
        };
        check(r#"{"1": "b", "0": "a"}"#, 2, Ok(&["a", "b"]));
        check(r#"{"0": "a"}"#, 2, Err("has 1 labels"));
        check(r#"{"0": "a", "2": "c"}"#, 2, Err("has 1 labels"));
        check(r#"{"0": "a", "00": "c"}"#, 2, Err("has 1 labels"));
        check(r#"{"0": ""}"#, 1, Err("has 0 labels"));
        check(r#"["a", "b"]"#, 2, Err("not of the form"));
        check("", 2, Err("not of the form"));
    }

    #[test]
    fn a_task_without_a_model_names_those_that_would_give_it() {
        let none = Catalog::new(Vec::new());
        for task in Task::ALL {
            let error = none.choose(task, "").unwrap_err();
            assert_eq!(error.code, ErrorCode::Unprocessable);
            assert!(error.message.contains(task.as_str()), "{}", error.message);
        }
        let message = none.choose(Task::Faces, "x").unwrap_err().message;
        assert!(message.contains("centerface would give it"), "{message}");
    }
}
