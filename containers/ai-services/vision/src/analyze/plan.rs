//! A request's tasks, checked and resolved to models.

use aisemble_protocol::vision::{self, TOP_K_DEFAULT, Task};
use aisemble_protocol::{ApiError, ErrorCode, v1};

use super::ZeroShot;
use crate::catalog::{Catalog, Chosen};
use crate::models::defaults;

/// What to do with each picture.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The model, how many labels, least score.
    pub classify: Option<(usize, usize, f32)>,
    /// The model.
    pub embed: Option<usize>,
    /// The caller's labels.
    pub zero_shot: Option<ZeroShot>,
    /// The model that writes a sentence.
    pub caption: Option<usize>,
    /// How to look for things.
    pub detect: Option<Look>,
    /// How to look for faces.
    pub faces: Option<Look>,
    /// The model that finds text, the one that reads it, least score.
    pub ocr: Option<(usize, usize, f32)>,
    /// Whether the picture is given back with what was found drawn into it.
    pub annotated: bool,
    /// Which models answer.
    pub used: Vec<v1::VisionModelUsed>,
}

/// How to look for things in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The model.
    pub model: usize,
    /// Least score.
    pub score_min: f32,
    /// Overlap from which the less certain of two is left out.
    pub nms_iou: f32,
    /// Only these; empty = all.
    pub labels: Vec<String>,
}

impl Plan {
    /// Checks a request's tasks and finds a model for each.
    ///
    /// # Errors
    /// `invalid_request` for the tasks themselves; `unprocessable` for a task without a model, or
    /// labels that the model does not know.
    pub fn new(request: &v1::AnalyzeRequest, catalog: &Catalog) -> Result<Self, ApiError> {
        vision::check_tasks(&request.tasks)?;
        let mut plan = Self { annotated: request.annotated, ..Self::default() };
        for (index, task) in request.tasks.iter().enumerate() {
            let param = format!("tasks[{index}]");
            plan.add((index, task), catalog)
                .map_err(|error| ApiError { param: Some(param), ..error })?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        (index, task): (usize, &v1::VisionTask),
        catalog: &Catalog,
    ) -> Result<(), ApiError> {
        // Checked before: the name is that of a task.
        let Some(kind) = Task::parse(&task.task) else { return Ok(()) };
        let chosen = catalog.choose(kind, &task.model)?;
        for model in chosen.models() {
            let model = &catalog.models()[model];
            self.used.push(v1::VisionModelUsed {
                task: task.task.clone(),
                model: model.name.clone(),
                sha256: model.sha256.clone(),
            });
        }
        let score_min = |default: f32| task.score_min.unwrap_or(default);
        let look = |model, score, iou: f32| Look {
            model,
            score_min: score_min(score),
            nms_iou: task.nms_iou.unwrap_or(iou),
            labels: task.labels.clone(),
        };
        let top_k = if task.top_k == 0 { TOP_K_DEFAULT } else { task.top_k } as usize;
        match (kind, chosen) {
            (Task::Classify, Chosen::One(model)) => {
                self.classify = Some((model, top_k, score_min(0.0)));
            }
            (Task::Embed, Chosen::One(model)) => self.embed = Some(model),
            (Task::Detect, Chosen::One(model)) => {
                check_labels(&task.labels, &catalog.models()[model].labels)?;
                let (score, iou) = (defaults::DETECT_SCORE_MIN, defaults::DETECT_NMS_IOU);
                self.detect = Some(look(model, score, iou));
            }
            (Task::Faces, Chosen::One(model)) => {
                let (score, iou) = (defaults::FACES_SCORE_MIN, defaults::FACES_NMS_IOU);
                self.faces = Some(look(model, score, iou));
            }
            (Task::Ocr, Chosen::Text { finds, reads }) => {
                self.ocr = Some((finds, reads, score_min(defaults::TEXT_SCORE_MIN)));
            }
            (Task::ZeroShot, Chosen::One(model)) => {
                let labels = task.labels.clone();
                self.zero_shot = Some(ZeroShot::new((index, model), labels, top_k, score_min(0.0)));
            }
            (Task::Caption, Chosen::One(model)) => self.caption = Some(model),
            // The catalog chooses two models for reading text, and for nothing else.
            (
                Task::Classify
                | Task::Embed
                | Task::ZeroShot
                | Task::Detect
                | Task::Faces
                | Task::Caption,
                Chosen::Text { .. },
            )
            | (Task::Ocr, Chosen::One(_)) => {}
        }
        Ok(())
    }

    /// Models that look at the whole picture, each once.
    pub(super) fn first_stage(&self) -> Vec<usize> {
        let looks = self.detect.iter().chain(&self.faces).map(|look| look.model);
        let classify = self.classify.iter().map(|(model, ..)| *model);
        let ocr = self.ocr.iter().map(|(finds, ..)| *finds);
        let told = self.zero_shot.iter().map(|of| of.model).chain(self.caption);
        let mut models: Vec<usize> =
            classify.chain(self.embed).chain(looks).chain(ocr).chain(told).collect();
        models.sort_unstable();
        models.dedup();
        models
    }
}

fn check_labels(asked: &[String], known: &[String]) -> Result<(), ApiError> {
    let Some(unknown) = asked.iter().find(|label| !known.contains(label)) else { return Ok(()) };
    let known = known.join(", ");
    let message = format!("the model finds no {unknown:?}; it finds {known}");
    Err(ApiError::new(ErrorCode::Unprocessable, message))
}
