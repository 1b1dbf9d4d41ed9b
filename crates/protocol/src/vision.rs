//! `POST /ai/vision/analyze`: the request as JSON, its check into a gRPC request, and the answer.
//!
//! Pictures come as base64, as an uploaded file, or beside the JSON in a multipart body; what a
//! service gets is bytes in every case. Limits of pixels belong to the service; limits of bytes and
//! counts are here.

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};
use crate::job::JobOptions;
use crate::v1;

mod answer;
mod task;

pub use answer::{
    AnalyzeResult, AnalyzeTimings, AnnotatedImage, BoundingBox, Detection, Face, ImageResult,
    ImageText, LabelScore, ModelUsed, Point, TextLine,
};
pub use task::{Task, TaskOptions};

/// Images of one request.
pub const IMAGES_MAX: usize = 16;
/// Bytes of one encoded image (20 MiB).
pub const IMAGE_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Bytes of all encoded images of a request together (48 MiB).
pub const IMAGES_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Body of a JSON request with images as base64, bytes; what an HTTP edge should let in.
pub const BODY_BYTES_MAX: usize = IMAGES_BYTES_MAX / 3 * 4 + 1024 * 1024;
/// Message of a gRPC call to or from the vision service, bytes (64 MiB).
pub const GRPC_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Labels of a `zero_shot` task.
pub const LABELS_MAX: usize = 1000;
/// Bytes of one label.
pub const LABEL_BYTES_MAX: usize = 256;
/// Labels that `top_k` may ask for.
pub const TOP_K_MAX: u32 = 1000;
/// `top_k` of a task that names none.
pub const TOP_K_DEFAULT: u32 = 5;

/// Pictures, and what to find out about each of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AnalyzeRequest {
    /// The pictures, at most 16. Left out when they are parts of a multipart body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageInput>,
    /// What to do with each picture: names, or objects with options. Each task at most once.
    pub tasks: Vec<TaskOptions>,
    /// The model for every task that names none itself; absent = the first that is loaded for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `top_k` of every task that names none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// `score_min` of every task that names none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_min: Option<f32>,
    /// `nms_iou` of every task that names none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nms_iou: Option<f32>,
    /// Labels of a `zero_shot` task that names none itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What comes back besides the findings.
    #[serde(default)]
    pub response: ResponseKind,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// One picture: give one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageInput {
    /// The encoded file in base64, or a `data:` URL of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Id of an uploaded file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// What comes back besides the findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResponseKind {
    /// Nothing.
    #[default]
    Json,
    /// The picture with what was found drawn into it.
    Annotated,
}

/// Where the bytes of a picture are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// Here.
    Bytes(Vec<u8>),
    /// In an uploaded file of this id.
    File(String),
}

impl AnalyzeRequest {
    /// Checks everything but the pictures themselves.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field and its limit.
    pub fn validate(&self) -> Result<(), ApiError> {
        if self.images.len() > IMAGES_MAX {
            return Err(too_many_images(self.images.len()));
        }
        for (index, image) in self.images.iter().enumerate() {
            image.check(index)?;
        }
        self.checked_tasks().map(drop)
    }

    /// The pictures in order, base64 decoded.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and `invalid_request` for what is no base64.
    pub fn sources(&self) -> Result<Vec<ImageSource>, ApiError> {
        self.images.iter().enumerate().map(|(index, image)| image.source(index)).collect()
    }

    /// The request as the service takes it. `images` are the bytes of all pictures in order:
    /// [`sources`](Self::sources) with the files read, or the parts of a multipart body.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); `payload_too_large` for the bytes of the pictures.
    pub fn to_grpc(&self, images: Vec<Vec<u8>>) -> Result<v1::AnalyzeRequest, ApiError> {
        check_images(&images)?;
        let priority = self.job.as_ref().map(|job| job.priority).unwrap_or_default();
        Ok(v1::AnalyzeRequest {
            request_id: String::new(),
            job_id: String::new(),
            images,
            tasks: self.checked_tasks()?,
            annotated: self.response == ResponseKind::Annotated,
            priority: priority.to_grpc().into(),
        })
    }

    fn checked_tasks(&self) -> Result<Vec<v1::VisionTask>, ApiError> {
        let tasks: Vec<v1::VisionTask> =
            self.tasks.iter().map(|task| task.to_grpc(self)).collect::<Result<_, _>>()?;
        check_tasks(&tasks)?;
        Ok(tasks)
    }
}

impl ImageInput {
    fn check(&self, index: usize) -> Result<(), ApiError> {
        let param = format!("images[{index}]");
        match (&self.data, &self.file) {
            (Some(data), None) if base64_text(data).len() / 4 * 3 > IMAGE_BYTES_MAX + 2 => {
                Err(image_too_large(&param, base64_text(data).len() / 4 * 3))
            }
            (Some(_), None) => Ok(()),
            (None, Some(id)) if id.is_empty() || id.len() > 128 => {
                Err(ApiError::invalid(&param, "a file's id has between 1 and 128 bytes"))
            }
            (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) => Err(ApiError::invalid(&param, "give data or file, not both")),
            (None, None) => Err(ApiError::invalid(&param, "give data (base64) or file (an id)")),
        }
    }

    fn source(&self, index: usize) -> Result<ImageSource, ApiError> {
        self.check(index)?;
        if let Some(id) = &self.file {
            return Ok(ImageSource::File(id.clone()));
        }
        let text = base64_text(self.data.as_deref().unwrap_or_default());
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| {
            ApiError::invalid(&format!("images[{index}]"), "data is not the base64 of a file")
        })?;
        Ok(ImageSource::Bytes(bytes))
    }
}

/// Checks what every door and the service itself keep to: how many images, and their bytes.
///
/// # Errors
/// `invalid_request` or `payload_too_large`, naming the image.
pub fn check_images(images: &[Vec<u8>]) -> Result<(), ApiError> {
    if images.is_empty() {
        return Err(ApiError::invalid("images", "no image is given; at least one is needed"));
    }
    if images.len() > IMAGES_MAX {
        return Err(too_many_images(images.len()));
    }
    for (index, image) in images.iter().enumerate() {
        let param = format!("images[{index}]");
        if image.is_empty() {
            return Err(ApiError::invalid(&param, "the image has no bytes"));
        }
        if image.len() > IMAGE_BYTES_MAX {
            return Err(image_too_large(&param, image.len()));
        }
    }
    let total: usize = images.iter().map(Vec::len).sum();
    if total > IMAGES_BYTES_MAX {
        let message = format!("the images have {total} bytes together, over {IMAGES_BYTES_MAX}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param("images"));
    }
    Ok(())
}

/// Checks the tasks of a request: known, each once, options within their limits.
///
/// # Errors
/// `invalid_request`, naming the task's field.
pub fn check_tasks(tasks: &[v1::VisionTask]) -> Result<(), ApiError> {
    if tasks.is_empty() {
        let message = format!("no task is given; the tasks are {}", Task::names());
        return Err(ApiError::invalid("tasks", message));
    }
    // More cannot be without a repeated or unknown one, and a long list is not walked twice.
    if tasks.len() > Task::ALL.len() {
        let (given, limit) = (tasks.len(), Task::ALL.len());
        let message = format!("{given} tasks are given; at most {limit} are taken");
        return Err(ApiError::invalid("tasks", message));
    }
    for (index, task) in tasks.iter().enumerate() {
        let param = format!("tasks[{index}]");
        task::check(task).map_err(|error| ApiError { param: Some(param.clone()), ..error })?;
        if tasks.iter().take(index).any(|before| before.task == task.task) {
            let message = format!("the task {} is given twice", task.task);
            return Err(ApiError::invalid(&param, message));
        }
    }
    Ok(())
}

/// What follows the comma of a `data:` URL, or the whole.
fn base64_text(data: &str) -> &str {
    match data.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((_media_type, text)) => text,
        None => data,
    }
}

fn too_many_images(given: usize) -> ApiError {
    let message = format!("{given} images are given; at most {IMAGES_MAX} are taken");
    ApiError::invalid("images", message)
}

fn image_too_large(param: &str, bytes: usize) -> ApiError {
    let message = format!("the image has {bytes} bytes; the limit is {IMAGE_BYTES_MAX}");
    ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(param)
}

#[cfg(test)]
mod tests;
