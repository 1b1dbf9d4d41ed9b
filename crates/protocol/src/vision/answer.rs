//! What image analysis answers, as JSON, and how it is made from the service's messages.

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::job::JobId;
use crate::v1;

/// What was found in each picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnalyzeResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// One a picture, in the order of the request.
    pub results: Vec<ImageResult>,
    /// Which models answered.
    pub models: Vec<ModelUsed>,
    /// Where the time went.
    pub timings: AnalyzeTimings,
}

/// A task's model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelUsed {
    /// The task.
    pub task: String,
    /// The model.
    pub model: String,
    /// Digest of its weights.
    pub sha256: String,
}

/// Where the time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnalyzeTimings {
    /// Waiting for a model: the longest wait.
    pub queue_ms: f64,
    /// Reading the pictures: the sum.
    pub decode_ms: f64,
    /// Steps of models, each shared by the pictures in it: the sum.
    pub model_ms: f64,
}

/// What was found in one picture. A field is there when its task was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageResult {
    /// Which picture of the request, from 0.
    pub index: u32,
    /// Pixels, as the picture is meant to be looked at.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `jpeg`, `png`, `webp`, `gif`, `bmp` or `tiff`.
    pub format: String,
    /// What a caller may want to know: `first of 24 frames`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Classes, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classify: Option<Vec<LabelScore>>,
    /// The caller's labels, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<Vec<LabelScore>>,
    /// The vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed: Option<Vec<f32>>,
    /// Things, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect: Option<Vec<Detection>>,
    /// Faces, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faces: Option<Vec<Face>>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocr: Option<ImageText>,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// The picture with what was found drawn into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotated: Option<AnnotatedImage>,
}

/// A label and how sure the model is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ImageLabelScore))]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// Number of the class in the model; absent for labels of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
}

/// A rectangle in pixels, origin top left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BoundingBox {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Lower edge.
    pub bottom: f32,
}

/// A place in pixels, origin top left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Point {
    /// From the left.
    pub x: f32,
    /// From the top.
    pub y: f32,
}

/// A thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Detection {
    /// What it is.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// Where.
    #[serde(rename = "box")]
    pub bounds: BoundingBox,
}

/// A face that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Face {
    /// 0 to 1.
    pub score: f32,
    /// Where.
    #[serde(rename = "box")]
    pub bounds: BoundingBox,
    /// Eyes, nose, corners of the mouth; of two the one on the left of the picture first.
    pub landmarks: Vec<Point>,
}

/// The text of a picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageText {
    /// The lines in reading order, with line breaks between them.
    pub text: String,
    /// The lines in reading order.
    pub lines: Vec<TextLine>,
}

/// A line of text, or a piece of one that stands apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TextLine {
    /// What it says.
    pub text: String,
    /// 0 to 1.
    pub score: f32,
    /// Where.
    #[serde(rename = "box")]
    pub bounds: BoundingBox,
    /// Its four corners, clockwise from the top left of the text.
    pub outline: Vec<Point>,
}

/// A picture in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnnotatedImage {
    /// `image/jpeg`.
    pub media_type: String,
    /// The encoded file in base64.
    pub data: String,
}

impl AnalyzeResult {
    /// The answer from what the service streamed: its results in any order, and its end.
    #[must_use]
    pub fn from_grpc(
        mut results: Vec<v1::ImageResult>,
        finished: v1::AnalyzeFinished,
        job_id: Option<JobId>,
    ) -> Self {
        results.sort_by_key(|result| result.index);
        let ms = |us: u64| us as f64 / 1000.0;
        let used = |used: v1::VisionModelUsed| ModelUsed {
            task: used.task,
            model: used.model,
            sha256: used.sha256,
        };
        Self {
            job_id,
            results: results.into_iter().map(ImageResult::from).collect(),
            models: finished.models.into_iter().map(used).collect(),
            timings: AnalyzeTimings {
                queue_ms: ms(finished.queue_us),
                decode_ms: ms(finished.decode_us),
                model_ms: ms(finished.model_us),
            },
        }
    }
}

impl From<v1::ImageResult> for ImageResult {
    fn from(result: v1::ImageResult) -> Self {
        Self {
            index: result.index,
            width: result.width,
            height: result.height,
            format: result.format,
            notes: result.notes,
            classify: result.classify.map(labels),
            zero_shot: result.zero_shot.map(labels),
            embed: result.embed.map(|embed| embed.values),
            detect: result
                .detect
                .map(|found| found.detections.into_iter().map(Detection::from).collect()),
            faces: result.faces.map(|found| found.faces.into_iter().map(Face::from).collect()),
            ocr: result.ocr.map(|ocr| ImageText {
                text: ocr.text,
                lines: ocr.lines.into_iter().map(TextLine::from).collect(),
            }),
            caption: result.caption,
            annotated: result.annotated.map(|image| AnnotatedImage {
                media_type: image.media_type,
                data: base64::engine::general_purpose::STANDARD.encode(image.data),
            }),
        }
    }
}

fn labels(labels: v1::ImageLabels) -> Vec<LabelScore> {
    let label =
        |of: v1::ImageLabel| LabelScore { label: of.label, score: of.score, class: of.class };
    labels.labels.into_iter().map(label).collect()
}

impl From<v1::Box> for BoundingBox {
    fn from(of: v1::Box) -> Self {
        Self { left: of.left, top: of.top, right: of.right, bottom: of.bottom }
    }
}

impl From<v1::Point> for Point {
    fn from(of: v1::Point) -> Self {
        Self { x: of.x, y: of.y }
    }
}

impl From<v1::Detection> for Detection {
    fn from(of: v1::Detection) -> Self {
        Self { label: of.label, score: of.score, bounds: of.r#box.unwrap_or_default().into() }
    }
}

impl From<v1::Face> for Face {
    fn from(of: v1::Face) -> Self {
        let landmarks = of.landmarks.into_iter().map(Point::from).collect();
        Self { score: of.score, bounds: of.r#box.unwrap_or_default().into(), landmarks }
    }
}

impl From<v1::TextLine> for TextLine {
    fn from(of: v1::TextLine) -> Self {
        let outline = of.outline.into_iter().map(Point::from).collect();
        let bounds = of.r#box.unwrap_or_default().into();
        Self { text: of.text, score: of.score, bounds, outline }
    }
}
