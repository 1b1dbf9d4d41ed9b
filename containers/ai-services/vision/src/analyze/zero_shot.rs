//! The caller's labels: their vectors, once a request, and how near each is to a picture.

use std::sync::Arc;
use std::time::Instant;

use aisemble_protocol::{ApiError, ErrorCode, v1};
use tokio::sync::OnceCell;

use super::image::{Timings, unit};
use crate::host::Host;
use crate::hub::{Pair, WordsError};
use crate::label_vectors::LabelVector;
use crate::models::Network;
use crate::serving::{Input, Row};

/// Labels of one job at the model: other requests go in between.
const LABELS_AT_ONCE: usize = 64;

/// What to choose from.
#[derive(Debug, Clone)]
pub struct ZeroShot {
    /// The model.
    pub model: usize,
    labels: Arc<[String]>,
    top_k: usize,
    score_min: f32,
    /// Which task of the request, for errors.
    param: String,
    /// One a label; the first picture of the request that needs them has them made.
    vectors: Arc<OnceCell<Vec<LabelVector>>>,
}

impl ZeroShot {
    pub(super) fn new(
        (index, model): (usize, usize),
        labels: Vec<String>,
        top_k: usize,
        score_min: f32,
    ) -> Self {
        let (labels, vectors) = (labels.into(), Arc::default());
        Self { model, labels, top_k, score_min, param: format!("tasks[{index}]"), vectors }
    }

    /// The labels for a picture with this vector, best first.
    pub(super) async fn labels(
        &self,
        host: &Arc<Host>,
        picture: &[f32],
        (priority, deadline): (v1::Priority, Option<Instant>),
        timings: &mut Timings,
    ) -> Result<v1::ImageLabels, ApiError> {
        let vectors = self.vectors.get_or_try_init(|| self.make(host, priority, deadline, timings));
        let vectors = vectors.await?;
        let cosine = |vector: &LabelVector| {
            picture.iter().zip(vector.iter()).map(|(a, b)| a * b).sum::<f32>()
        };
        let cosines: Vec<f32> = vectors.iter().map(cosine).collect();
        let scores = pair(host, self.model)?.scoring.scores(&cosines);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let label = |at: usize| v1::ImageLabel {
            label: self.labels[at].clone(),
            score: scores[at],
            class: None,
        };
        let likely = order.into_iter().take(self.top_k).filter(|at| scores[*at] >= self.score_min);
        Ok(v1::ImageLabels { labels: likely.map(label).collect() })
    }

    /// The vectors of all labels: those that are kept, and the others computed in batches.
    async fn make(
        &self,
        host: &Arc<Host>,
        priority: v1::Priority,
        deadline: Option<Instant>,
        timings: &mut Timings,
    ) -> Result<Vec<LabelVector>, ApiError> {
        let mut found = host.label_vectors.get(self.model, &self.labels);
        let missing: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
        let tokens = self.tokens(host, missing.clone()).await?;
        for (places, texts) in missing.chunks(LABELS_AT_ONCE).zip(tokens.chunks(LABELS_AT_ONCE)) {
            let row =
                |text: &Vec<u32>| Row { model: self.model, input: Input::Tokens(text.clone()) };
            let rows = texts.iter().map(row).collect();
            let computed = host.compute(rows, priority, deadline).await?;
            timings.queued = timings.queued.max(computed.queued);
            timings.model += computed.model;
            for (place, maps) in places.iter().zip(computed.rows) {
                let Some(map) = maps.first() else { continue };
                let vector = LabelVector::from(unit(map.data.clone()));
                host.label_vectors.keep(self.model, &self.labels[*place], Arc::clone(&vector));
                found[*place] = Some(vector);
            }
        }
        let all: Option<Vec<LabelVector>> = found.into_iter().collect();
        all.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the labels could not be read"))
    }

    /// The tokens of the labels at `places`: a thousand of them take too long for a thread that
    /// carries calls.
    async fn tokens(
        &self,
        host: &Arc<Host>,
        places: Vec<usize>,
    ) -> Result<Vec<Vec<u32>>, ApiError> {
        let (inside, labels, model) = (Arc::clone(host), Arc::clone(&self.labels), self.model);
        let tokens = host.on_pictures(move || {
            let words = &pair(&inside, model)?.words;
            let tokens = |at: usize| words.tokens(&labels[at]).map_err(|error| refused(&error));
            places.into_iter().map(tokens).collect()
        });
        tokens.await.map_err(|error: ApiError| error.with_param(&self.param))
    }
}

fn refused(error: &WordsError) -> ApiError {
    let code = match error {
        WordsError::TooLong { .. } => ErrorCode::InvalidRequest,
        WordsError::File { .. }
        | WordsError::Failed { .. }
        | WordsError::Vocabulary { .. }
        | WordsError::NoEnd => ErrorCode::Unprocessable,
    };
    ApiError::new(code, error.to_string())
}

/// The catalog gives the task to such models only.
fn pair(host: &Host, model: usize) -> Result<&Pair, ApiError> {
    let found = match &host.catalog.models()[model].network {
        Network::Hub(network) => network.pair(),
        Network::EfficientNetLite0(_)
        | Network::CenterFace(_)
        | Network::SsdLite(_)
        | Network::Craft(_)
        | Network::Crnn(_) => None,
    };
    found.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the model knows no texts"))
}
