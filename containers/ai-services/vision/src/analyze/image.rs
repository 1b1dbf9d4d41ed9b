//! One picture from its bytes to its answers: decoded and prepared, the models that look at the
//! whole of it, then the lines of text, then the drawing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_protocol::{ApiError, ErrorCode, v1};

use super::plan::{Look, Plan};
use super::{caption, text};
use crate::annotate::annotate;
use crate::catalog::Catalog;
use crate::compute::{Map, softmax};
use crate::host::{Computed, Host};
use crate::models::{
    CenterFace, Craft, EfficientNetLite0, FoundFace, FoundThing, Network, Rect, SsdLite,
};
use crate::picture::{self, Header, Picture, PictureError};
use crate::serving::{Input, Row};

/// Where the time of a picture went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// The longest wait for the model.
    pub queued: Duration,
    /// Decoding and preparing.
    pub decode: Duration,
    /// Shares of the model's steps.
    pub model: Duration,
}

/// A picture's answers.
#[derive(Debug)]
pub struct Analyzed {
    /// What was found.
    pub result: v1::ImageResult,
    /// Where the time went.
    pub timings: Timings,
}

/// A picture that is ready for the models that look at the whole of it.
struct Prepared {
    header: Header,
    notes: Vec<String>,
    picture: Picture,
    rows: Vec<Row>,
    /// How each row's model saw the picture: factors across and down.
    scales: Vec<(f32, f32)>,
    took: Duration,
}

/// Analyses the picture `index` of a request.
///
/// # Errors
/// `unprocessable` or `payload_too_large` for a picture that is not taken, naming it; what
/// [`Host::compute`] says.
pub async fn analyze(
    host: Arc<Host>,
    plan: Arc<Plan>,
    (index, bytes, header): (usize, Vec<u8>, Header),
    priority: v1::Priority,
    deadline: Option<Instant>,
) -> Result<Analyzed, ApiError> {
    let param = format!("images[{index}]");
    // The decoded picture, and the same as 8-bit RGB.
    let pixels = u64::from(header.width) * u64::from(header.height);
    let memory = host.memory(header.decoded_bytes.saturating_add(pixels * 3)).await?;
    let prepared = {
        let (host_inside, plan) = (Arc::clone(&host), Arc::clone(&plan));
        let prepared = host.on_pictures(move || prepare(&host_inside, &plan, &bytes)).await;
        prepared.map_err(|error| error.with_param(&param))?
    };
    let Prepared { header, mut notes, picture, rows, scales, took } = prepared;
    let models: Vec<usize> = rows.iter().map(|row| row.model).collect();
    let picture = Arc::new(picture);
    let computed = host.compute(rows, priority, deadline).await?;
    let mut timings = Timings { queued: computed.queued, decode: took, model: computed.model };
    let outputs = Outputs { models, scales, computed };
    let ocr = match plan.ocr {
        Some((finds, reads, score_min)) => {
            let text = Text { finds, reads, score_min, priority, deadline };
            Some(read_text(&host, text, &picture, &outputs, &mut timings, &mut notes).await?)
        }
        None => None,
    };
    let mut result = answers(&host.catalog, &plan, &outputs, &picture);
    if let Some(zero_shot) = &plan.zero_shot
        && let Some([_, features]) = outputs.of(zero_shot.model).map(|(maps, _)| maps)
    {
        let vector = unit(features.data.clone());
        let labels = zero_shot.labels(&host, &vector, (priority, deadline), &mut timings).await?;
        result.zero_shot = Some(labels);
    }
    if let Some(model) = plan.caption
        && let Some([states]) = outputs.of(model).map(|(maps, _)| maps)
    {
        let said = caption::write(&host, (model, states), (priority, deadline), &mut timings);
        result.caption = Some(said.await?);
    }
    result.index = u32::try_from(index).unwrap_or(u32::MAX);
    result.format = header.format.to_owned();
    result.ocr = ocr;
    if plan.annotated {
        let found = result.clone();
        let drawn = host.on_pictures(move || {
            let (image, note) = annotate(&picture, &found).map_err(|error| {
                tracing::error!(%error, "a picture could not be drawn");
                ApiError::new(ErrorCode::Internal, "the annotated picture could not be made")
            })?;
            Ok((image, note))
        });
        let (image, note) = drawn.await?;
        result.annotated =
            Some(v1::EncodedImage { media_type: "image/jpeg".to_owned(), data: image });
        notes.extend(note);
    }
    result.notes = notes;
    drop(memory);
    Ok(Analyzed { result, timings })
}

/// The error that a caller is told for a picture.
pub(crate) fn refused(error: &PictureError, index: usize) -> ApiError {
    let code = match error {
        PictureError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        PictureError::UnknownFormat
        | PictureError::Unreadable { .. }
        | PictureError::CutOff { .. }
        | PictureError::Empty { .. } => ErrorCode::Unprocessable,
    };
    ApiError::new(code, error.to_string()).with_param(&format!("images[{index}]"))
}

fn prepare(host: &Host, plan: &Plan, bytes: &[u8]) -> Result<Prepared, ApiError> {
    let begun = Instant::now();
    let (header, picture, mut notes) =
        picture::decode(bytes, &host.limits).map_err(|error| refused(&error, 0))?;
    let (mut rows, mut scales) = (Vec::new(), Vec::new());
    for model in plan.first_stage() {
        let (input, scale) = match &host.catalog.models()[model].network {
            Network::EfficientNetLite0(_) => (EfficientNetLite0::prepare(&picture), (1.0, 1.0)),
            Network::CenterFace(_) => CenterFace::prepare(&picture),
            Network::SsdLite(_) => {
                let (width, height) = (picture.width as f32, picture.height as f32);
                (SsdLite::prepare(&picture), (1.0 / width, 1.0 / height))
            }
            Network::Craft(_) => {
                let (input, scale) = Craft::prepare(&picture, host.text_side_max);
                if scale < 1.0 {
                    let side = host.text_side_max;
                    notes.push(format!("text was looked for at {side} pixels"));
                }
                (input, (scale, scale))
            }
            // It reads lines, never a whole picture.
            Network::Crnn(_) => continue,
            Network::Hub(network) => (network.input(&picture), (1.0, 1.0)),
        };
        rows.push(Row { model, input: Input::Picture(input) });
        scales.push(scale);
    }
    Ok(Prepared { header, notes, picture, rows, scales, took: begun.elapsed() })
}

/// What the models said of the whole picture.
struct Outputs {
    models: Vec<usize>,
    scales: Vec<(f32, f32)>,
    computed: Computed,
}

impl Outputs {
    fn of(&self, model: usize) -> Option<(&[Map], (f32, f32))> {
        let at = self.models.iter().position(|of| *of == model)?;
        Some((self.computed.rows.get(at)?, *self.scales.get(at)?))
    }
}

/// How text is read.
struct Text {
    finds: usize,
    reads: usize,
    score_min: f32,
    priority: v1::Priority,
    deadline: Option<Instant>,
}

#[expect(clippy::too_many_arguments, reason = "what a picture's lines need, once")]
async fn read_text(
    host: &Arc<Host>,
    how: Text,
    picture: &Arc<Picture>,
    outputs: &Outputs,
    timings: &mut Timings,
    notes: &mut Vec<String>,
) -> Result<v1::ImageText, ApiError> {
    let Some((maps, (scale, _))) = outputs.of(how.finds) else {
        return Ok(v1::ImageText::default());
    };
    let Some(out) = maps.first().cloned() else { return Ok(v1::ImageText::default()) };
    let inside = Arc::clone(picture);
    let begun = Instant::now();
    let found = host.on_pictures(move || Ok(text::find(&inside, &out, scale, how.reads))).await?;
    timings.decode += begun.elapsed();
    if found.left_out > 0 {
        notes.push(format!("{} more lines of text were not read", found.left_out));
    }
    let computed = host.compute(found.rows, how.priority, how.deadline).await?;
    timings.queued = timings.queued.max(computed.queued);
    timings.model += computed.model;
    let (catalog, reads) = (&host.catalog, how.reads);
    Ok(text::read(catalog, reads, &found.lines, &computed.rows, how.score_min, picture))
}

/// All answers but the text.
fn answers(
    catalog: &Catalog,
    plan: &Plan,
    outputs: &Outputs,
    picture: &Picture,
) -> v1::ImageResult {
    let classify = plan.classify.and_then(|(model, top_k, score_min)| {
        let logits = outputs.of(model)?.0.first()?;
        Some(classes(&logits.data, &catalog.models()[model].labels, top_k, score_min))
    });
    let embed = plan.embed.and_then(|model| {
        let values = outputs.of(model)?.0.get(1)?.data.clone();
        Some(v1::ImageEmbedding { values: unit(values) })
    });
    let detect = plan.detect.as_ref().and_then(|look| {
        let (maps, scale) = outputs.of(look.model)?;
        let found = SsdLite::interpret(maps, look.score_min, look.nms_iou);
        Some(detections(&found, scale, look, &catalog.models()[look.model].labels))
    });
    let faces = plan.faces.as_ref().and_then(|look| {
        let (maps, scale) = outputs.of(look.model)?;
        let found = CenterFace::interpret(maps.first()?, scale, look.score_min, look.nms_iou);
        Some(v1::Faces { faces: found.into_iter().map(face).collect() })
    });
    v1::ImageResult {
        width: u32::try_from(picture.width).unwrap_or(u32::MAX),
        height: u32::try_from(picture.height).unwrap_or(u32::MAX),
        classify,
        embed,
        detect,
        faces,
        ..v1::ImageResult::default()
    }
}

fn classes(logits: &[f32], labels: &[String], top_k: usize, score_min: f32) -> v1::ImageLabels {
    let mut scores = logits.to_vec();
    softmax(&mut scores);
    let mut order: Vec<usize> = (0..scores.len().min(labels.len())).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let label = |class: usize| v1::ImageLabel {
        label: labels[class].clone(),
        score: scores[class],
        class: Some(class as u32),
    };
    let likely = order.into_iter().take(top_k).filter(|class| scores[*class] >= score_min);
    v1::ImageLabels { labels: likely.map(label).collect() }
}

/// A vector of length 1, so that a dot product of two is the cosine of their angle.
pub(super) fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        for value in &mut values {
            *value /= length;
        }
    }
    values
}

fn detections(
    found: &[FoundThing],
    (across, down): (f32, f32),
    look: &Look,
    labels: &[String],
) -> v1::Detections {
    let detection = |thing: &FoundThing| {
        let label = labels.get(thing.label)?;
        if !look.labels.is_empty() && !look.labels.contains(label) {
            return None;
        }
        let bounds = Rect {
            left: thing.bounds.left / across,
            top: thing.bounds.top / down,
            right: thing.bounds.right / across,
            bottom: thing.bounds.bottom / down,
        };
        Some(v1::Detection { label: label.clone(), score: thing.score, r#box: Some(boxed(bounds)) })
    };
    v1::Detections { detections: found.iter().filter_map(detection).collect() }
}

fn face(found: FoundFace) -> v1::Face {
    let point = |(x, y): (f32, f32)| v1::Point { x, y };
    v1::Face {
        score: found.score,
        r#box: Some(boxed(found.bounds)),
        landmarks: found.landmarks.map(point).to_vec(),
    }
}

fn boxed(rect: Rect) -> v1::Box {
    v1::Box { left: rect.left, top: rect.top, right: rect.right, bottom: rect.bottom }
}
