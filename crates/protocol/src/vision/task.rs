//! The tasks of image analysis and their options: a name, or an object with the name in it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{AnalyzeRequest, LABEL_BYTES_MAX, LABELS_MAX, TOP_K_MAX};
use crate::error::ApiError;
use crate::v1;

/// What can be found out about a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Which of the model's classes it shows.
    Classify,
    /// A vector that is near those of similar pictures.
    Embed,
    /// Which of the caller's labels fits best.
    ZeroShot,
    /// Things and where they are.
    Detect,
    /// Faces, with eyes, nose and mouth.
    Faces,
    /// The text in it.
    Ocr,
    /// A sentence about it.
    Caption,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 7] = [
        Self::Classify,
        Self::Embed,
        Self::ZeroShot,
        Self::Detect,
        Self::Faces,
        Self::Ocr,
        Self::Caption,
    ];

    /// The task as requests and configuration write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Embed => "embed",
            Self::ZeroShot => "zero_shot",
            Self::Detect => "detect",
            Self::Faces => "faces",
            Self::Ocr => "ocr",
            Self::Caption => "caption",
        }
    }

    /// The task of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.as_str() == text)
    }

    /// All names, for messages.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task and its options. In JSON a name (`"faces"`) or an object (`{"task": "faces",
/// "score_min": 0.6}`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskOptions {
    /// `classify`, `embed`, `zero_shot`, `detect`, `faces`, `ocr` or `caption`.
    pub task: String,
    /// The model; absent = the request's, or the first that is loaded for the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `classify`, `zero_shot`: how many labels, 1 to 1000; default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Leave out what is less certain, 0 to 1; the default depends on the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_min: Option<f32>,
    /// `detect`, `faces`: of two boxes that overlap by more than this share of their union, the
    /// less certain one is left out; 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nms_iou: Option<f32>,
    /// `zero_shot`: the labels to choose from, at most 1000. `detect`: only these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// The object's form: [`TaskOptions`] as serde derives it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskObject {
    task: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    top_k: Option<u32>,
    #[serde(default)]
    score_min: Option<f32>,
    #[serde(default)]
    nms_iou: Option<f32>,
    #[serde(default)]
    labels: Vec<String>,
}

impl<'de> Deserialize<'de> for TaskOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrObject)
    }
}

/// By hand and not `untagged`, so that an error names the field that is wrong.
struct NameOrObject;

impl<'de> Visitor<'de> for NameOrObject {
    type Value = TaskOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a task, or an object with `task` in it")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TaskOptions, E> {
        Ok(TaskOptions { task: name.to_owned(), ..TaskOptions::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TaskOptions, A::Error> {
        let TaskObject { task, model, top_k, score_min, nms_iou, labels } =
            TaskObject::deserialize(MapAccessDeserializer::new(map))?;
        Ok(TaskOptions { task, model, top_k, score_min, nms_iou, labels })
    }
}

impl From<Task> for TaskOptions {
    fn from(task: Task) -> Self {
        Self { task: task.as_str().to_owned(), ..Self::default() }
    }
}

impl TaskOptions {
    /// The task as the service takes it; what it leaves open is filled from the request, where it
    /// means something to the task.
    pub(super) fn to_grpc(&self, request: &AnalyzeRequest) -> Result<v1::VisionTask, ApiError> {
        let task = Task::parse(&self.task).ok_or_else(|| unknown(&self.task))?;
        let (ranks, boxes) = match task {
            Task::Classify | Task::ZeroShot => (true, false),
            Task::Detect | Task::Faces => (false, true),
            Task::Embed | Task::Ocr | Task::Caption => (false, false),
        };
        let scored = !matches!(task, Task::Embed | Task::Caption);
        let labels = if self.labels.is_empty() && task == Task::ZeroShot {
            &request.labels
        } else {
            &self.labels
        };
        if (self.top_k.is_some() && !ranks) || (self.nms_iou.is_some() && !boxes) {
            let option = if ranks || self.nms_iou.is_some() { "nms_iou" } else { "top_k" };
            let message = format!("{option} means nothing to the task {task}");
            return Err(ApiError::invalid("tasks", message));
        }
        Ok(v1::VisionTask {
            task: task.as_str().to_owned(),
            model: self.model.clone().or_else(|| request.model.clone()).unwrap_or_default(),
            top_k: self.top_k.or(request.top_k.filter(|_| ranks)).map_or(Ok(0), positive)?,
            score_min: self.score_min.or(request.score_min.filter(|_| scored)),
            nms_iou: self.nms_iou.or(request.nms_iou.filter(|_| boxes)),
            labels: labels.clone(),
        })
    }
}

/// 0 is "not given" on the wire, so a caller's own 0 is told here.
fn positive(top_k: u32) -> Result<u32, ApiError> {
    if top_k == 0 { Err(wrong_top_k(top_k)) } else { Ok(top_k) }
}

fn wrong_top_k(top_k: u32) -> ApiError {
    let message = format!("top_k is {top_k}; it must be between 1 and {TOP_K_MAX}");
    ApiError::invalid("tasks", message)
}

fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(64).collect();
    let message = format!("the task {name:?} is unknown; the tasks are {}", Task::names());
    ApiError::invalid("tasks", message)
}

/// One task, its options within their limits.
pub(super) fn check(task: &v1::VisionTask) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::invalid("tasks", message));
    let kind = Task::parse(&task.task).ok_or_else(|| unknown(&task.task))?;
    if task.top_k > TOP_K_MAX {
        return Err(wrong_top_k(task.top_k));
    }
    for (name, value) in [("score_min", task.score_min), ("nms_iou", task.nms_iou)] {
        if let Some(value) = value
            && !(0.0..=1.0).contains(&value)
        {
            return invalid(format!("{name} is {value}; it must be between 0 and 1"));
        }
    }
    if task.labels.len() > LABELS_MAX {
        let given = task.labels.len();
        return invalid(format!("{given} labels are given; at most {LABELS_MAX} are taken"));
    }
    if task.labels.iter().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return invalid(format!("a label must have between 1 and {LABEL_BYTES_MAX} bytes"));
    }
    match kind {
        Task::ZeroShot if task.labels.is_empty() => {
            invalid("the task zero_shot needs labels to choose from".to_owned())
        }
        Task::Classify | Task::Embed | Task::Faces | Task::Ocr | Task::Caption
            if !task.labels.is_empty() =>
        {
            invalid(format!("labels mean nothing to the task {kind}"))
        }
        Task::Classify
        | Task::Embed
        | Task::ZeroShot
        | Task::Detect
        | Task::Faces
        | Task::Ocr
        | Task::Caption => Ok(()),
    }
}
