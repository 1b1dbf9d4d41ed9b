//! A job as somebody watches it: the job, each token or item as it comes, how far it is, then the
//! result or the error. The tokens of a completion together are the text of its result, whatever
//! was retried in between.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use aisemble_jobs::JobsError;
use aisemble_protocol::job::{JobEvent, JobView};
use aisemble_protocol::{ApiError, ErrorCode};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use serde::Deserialize;
use serde_json::Value;

use super::{App, Ended, store_error};
use crate::live::{Piece, Reader};
use crate::work::{Completion, Response, Work as _};

/// How long one wait for the end lasts before it is begun anew.
const WAIT_ROUND: Duration = Duration::from_secs(600);
/// When to come again after the orchestrator stopped.
const STOPPED_RETRY_MS: u64 = 2_000;

/// What the watcher sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The job, first of all.
    Job(Box<JobView>),
    /// Text, or the result of an item.
    Piece(Piece),
    /// How far it is; what is counted depends on the kind.
    Progress(Value),
    /// The result, JSON: nothing comes after it.
    Result(Vec<u8>),
    /// It failed: nothing comes after it.
    Error(ApiError),
}

/// Follows one job.
pub struct Progress {
    app: std::sync::Arc<App>,
    reader: Reader,
    view: JobView,
    end: End,
    recorded: BoxStream<'static, Result<JobEvent, JobsError>>,
    ready: VecDeque<Update>,
    over: bool,
}

type End = Pin<Box<dyn Future<Output = Result<JobView, JobsError>> + Send>>;

#[derive(Deserialize)]
struct TextOnly {
    text: String,
}

impl Progress {
    /// Follows `view`'s job from now on.
    #[must_use]
    pub fn new(app: std::sync::Arc<App>, view: JobView) -> Self {
        let reader = Reader::new(app.live.feed(view.id));
        let end = wait(&app, &view);
        // The recorded events of a completion are its tokens, which come faster by the reader.
        let recorded = if speaks(&view) {
            stream::empty().boxed()
        } else {
            app.jobs.events(view.id, view.event_seq).fuse().boxed()
        };
        let ready = VecDeque::from([Update::Job(Box::new(view.clone()))]);
        Self { app, reader, view, end, recorded, ready, over: false }
    }

    /// The next update; none after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Some(update);
            }
            if self.over {
                return None;
            }
            if let Some(piece) = self.reader.take() {
                return Some(Update::Piece(piece));
            }
            let ended = tokio::select! {
                biased;
                () = self.reader.changed() => continue,
                Some(event) = self.recorded.next() => {
                    if let Ok(event) = event
                        && event.kind == "progress"
                    {
                        self.ready.push_back(Update::Progress(event.data));
                    }
                    continue;
                }
                ended = &mut self.end => ended,
                () = self.app.closing.cancelled() => {
                    // It may have ended at this very moment: then that is what is told.
                    self.app.jobs.wait(self.view.id, Duration::ZERO).await
                }
            };
            self.at_end(ended).await;
        }
    }

    async fn at_end(&mut self, ended: Result<JobView, JobsError>) {
        let ended = match ended {
            Ok(view) => self.app.ended(view).await,
            Err(error) => Err(store_error(&error)),
        };
        self.over = true;
        match ended {
            Ok(Ended::NotYet(_)) if self.app.closing.is_cancelled() => {
                let id = self.view.id;
                let message = format!("the orchestrator stops; job {id} goes on when it is back");
                let error = ApiError::new(ErrorCode::Unavailable, message);
                self.ready.push_back(Update::Error(error.with_retry_after_ms(STOPPED_RETRY_MS)));
            }
            Ok(Ended::NotYet(view)) => {
                self.end = wait(&self.app, &view);
                self.over = false;
            }
            Ok(Ended::Result(result)) => {
                while let Some(piece) = self.reader.take() {
                    self.ready.push_back(Update::Piece(piece));
                }
                if speaks(&self.view)
                    && let Ok(TextOnly { text }) = serde_json::from_slice(&result)
                {
                    while let Some(piece) = self.reader.rest(&text) {
                        self.ready.push_back(Update::Piece(piece));
                    }
                }
                self.ready.push_back(Update::Result(result));
            }
            Ok(Ended::Error(error)) | Err(error) => self.ready.push_back(Update::Error(error)),
        }
    }
}

/// Whether what is followed is a text, token by token.
fn speaks(view: &JobView) -> bool {
    view.kind == Completion::KIND || view.kind == Response::KIND
}

fn wait(app: &App, view: &JobView) -> End {
    let (jobs, id) = (app.jobs.clone(), view.id);
    Box::pin(async move { jobs.wait(id, WAIT_ROUND).await })
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("job", &self.view.id).finish_non_exhaustive()
    }
}
