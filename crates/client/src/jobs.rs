//! `/jobs`: read, list, cancel, result, and events that survive a broken connection.

use std::fmt::Write as _;
use std::pin::Pin;
use std::time::Duration;

use aisemble_protocol::job::{JobPage, JobView};
use aisemble_protocol::{JobId, JobState};
use futures_util::Stream;

use crate::completion::Frames;
use crate::error::ClientError;
use crate::http::{Call, Client};

/// Which jobs `GET /jobs` lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those of this kind, `llm.completion`.
    pub kind: Option<String>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Jobs on the page.
    pub limit: Option<u32>,
}

/// What a request to cancel did.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// The job is cancelled.
    Now(JobView),
    /// It runs; its service was asked to stop.
    Asked(JobView),
}

/// An event of a job as the stream carries it.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchEvent {
    /// Number within the job, from 1 without gaps.
    pub seq: u64,
    /// `state`, `started`, `tokens`, ...
    pub kind: String,
    /// What it says.
    pub data: serde_json::Value,
}

impl WatchEvent {
    /// The job's state, when this event is a change of it.
    #[must_use]
    pub fn state(&self) -> Option<JobState> {
        if self.kind != "state" {
            return None;
        }
        JobState::parse(self.data.get("state")?.as_str()?)
    }
}

/// The events of a job, each once and in order. Ends after the one that ends the job.
pub type WatchEvents = Pin<Box<dyn Stream<Item = Result<WatchEvent, ClientError>> + Send>>;

/// How to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// Begin after this event; 0 = from the first.
    pub after_seq: u64,
    /// Broken connections in a row, without an event between them, that are put up with.
    pub breaks_max: u32,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { after_seq: 0, breaks_max: 8 }
    }
}

impl Client {
    /// The job.
    ///
    /// # Errors
    /// As any call; `not_found` for another key's job too.
    pub async fn job(&self, id: JobId) -> Result<JobView, ClientError> {
        self.fetch(&Call::get(format!("/jobs/{id}"))).await?.decode()
    }

    /// A page of the key's own jobs, newest first.
    ///
    /// # Errors
    /// As any call.
    pub async fn jobs(&self, query: &JobQuery) -> Result<JobPage, ClientError> {
        self.fetch(&Call::get(format!("/jobs{}", query_string(query)))).await?.decode()
    }

    /// The job's result as JSON.
    ///
    /// # Errors
    /// `conflict` while the job has not ended (with a time to come again, which is not waited for);
    /// the job's own error when it failed.
    pub async fn job_result(&self, id: JobId) -> Result<serde_json::Value, ClientError> {
        self.fetch(&Call::get(format!("/jobs/{id}/result"))).await?.decode()
    }

    /// Submits a job that failed or expired again, as a new one; gives that one. Asking twice
    /// gives the same.
    ///
    /// # Errors
    /// As any call; `conflict` when the job has not failed, or is a part of another.
    pub async fn retry_job(&self, id: JobId) -> Result<JobView, ClientError> {
        let call = Call::new(reqwest::Method::POST, format!("/jobs/{id}/retry"));
        self.fetch(&call).await?.decode()
    }

    /// Asks for the job's end.
    ///
    /// # Errors
    /// As any call; `conflict` when it has ended otherwise.
    pub async fn cancel_job(&self, id: JobId) -> Result<Cancelled, ClientError> {
        let call = Call::new(reqwest::Method::DELETE, format!("/jobs/{id}"));
        let answer = self.fetch(&call).await?;
        let view = answer.decode()?;
        Ok(if answer.status == 202 { Cancelled::Asked(view) } else { Cancelled::Now(view) })
    }

    /// Follows the job's events. A broken connection is made again, after a pause, from the last
    /// event that was seen.
    #[must_use]
    pub fn watch_job(&self, id: JobId, options: WatchOptions) -> WatchEvents {
        let watch = Watch {
            client: self.clone(),
            id,
            options,
            last_seq: options.after_seq,
            frames: None,
            breaks: 0,
        };
        Box::pin(futures_util::stream::unfold(Some(watch), |state| async move {
            let mut watch = state?;
            match watch.next().await {
                Ok(event) if event.state().is_some_and(JobState::is_final) => {
                    Some((Ok(event), None))
                }
                Ok(event) => Some((Ok(event), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

struct Watch {
    client: Client,
    id: JobId,
    options: WatchOptions,
    last_seq: u64,
    frames: Option<Frames>,
    breaks: u32,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchEvent, ClientError> {
        loop {
            match self.try_next().await {
                Ok(event) if event.seq <= self.last_seq => {} // sent twice around a break
                Ok(event) => {
                    self.last_seq = event.seq;
                    self.breaks = 0;
                    return Ok(event);
                }
                Err(error) => {
                    self.frames = None;
                    self.breaks += 1;
                    let is_idle = matches!(error, ClientError::Deadline { .. });
                    if self.breaks > self.options.breaks_max || !(error.is_transient() || is_idle) {
                        return Err(error);
                    }
                    let pause = self.client.retry().pause(self.breaks, error.retry_after());
                    tokio::time::sleep(pause.max(Duration::from_millis(10))).await;
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<WatchEvent, ClientError> {
        let frames = match &mut self.frames {
            Some(frames) => frames,
            None => {
                let mut call = Call::get(format!("/jobs/{}/events", self.id))
                    .header("accept", "text/event-stream");
                if self.last_seq > 0 {
                    call = call.header("last-event-id", self.last_seq.to_string());
                }
                let response = self.client.open(&call).await?;
                self.frames.insert(Frames::new(self.client.clone(), response, call.what()))
            }
        };
        let what = format!("GET /jobs/{}/events", self.id);
        let Some(frame) = frames.next().await? else {
            return Err(ClientError::StreamEnded { what });
        };
        let seq = frame.id.as_deref().and_then(|id| id.parse().ok());
        let seq = seq.ok_or_else(|| ClientError::Decode {
            what,
            why: format!("event {:?} has no number as its id", frame.event),
        })?;
        let data = frames.decode(&frame)?;
        Ok(WatchEvent { seq, kind: frame.event, data })
    }
}

fn query_string(query: &JobQuery) -> String {
    let mut text = String::new();
    let state = query.state.map(|state| state.as_str().to_owned());
    let limit = query.limit.map(|limit| limit.to_string());
    let parts = [
        ("state", state),
        ("kind", query.kind.clone()),
        ("cursor", query.cursor.clone()),
        ("limit", limit),
    ];
    for (name, value) in parts {
        let Some(value) = value else { continue };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&escaped(&value));
    }
    text
}

/// The text as a part of a path or query.
pub(crate) fn escaped(plain: &str) -> String {
    let mut text = String::new();
    for byte in plain.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(query_string(&JobQuery::default()), "");
        let query = JobQuery {
            state: Some(JobState::Queued),
            kind: Some("llm & more".into()),
            cursor: None,
            limit: Some(5),
        };
        assert_eq!(query_string(&query), "?state=queued&kind=llm%20%26%20more&limit=5");
    }
}
