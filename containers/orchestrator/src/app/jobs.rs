//! Jobs of a caller: looked at, listed, cancelled, followed. Another key's job is not there.

use aisemble_jobs::{JobFilter, JobsError};
use aisemble_protocol::job::{JobEvent, JobPage, JobView};
use aisemble_protocol::{ApiError, ErrorCode, JobId, JobState, limits};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::{App, Caller, Ended, store_error};

/// Bytes of a cursor or a kind in a query.
const QUERY_TEXT_BYTES_MAX: usize = 256;

/// What `GET /jobs` was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// States, separated by commas.
    pub state: Option<String>,
    /// Kind.
    pub kind: Option<String>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Jobs on the page.
    pub limit: Option<u32>,
}

/// What a request to cancel has done.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// The job is cancelled.
    Now(JobView),
    /// It runs; its worker has been asked to stop.
    Asked(JobView),
}

impl App {
    /// The job, if it is the caller's.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn job(&self, caller: &Caller, id: JobId) -> Result<JobView, ApiError> {
        let job = self.jobs.get(id).await.map_err(|error| store_error(&error))?;
        job.filter(|job| caller.is_admin() || job.owner == caller.key_id)
            .map(|job| job.view)
            .ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no job {id}")))
    }

    /// A page of the caller's jobs, of everybody's for an admin; newest first.
    ///
    /// # Errors
    /// `invalid_request`, naming the parameter; the store's.
    pub async fn list(&self, caller: &Caller, query: ListQuery) -> Result<JobPage, ApiError> {
        let filter = JobFilter {
            owner: (!caller.is_admin()).then(|| caller.key_id.clone()),
            states: states(query.state.as_deref())?,
            kind: bounded("kind", query.kind)?,
            cursor: bounded("cursor", query.cursor)?,
            limit: page_limit(query.limit)?,
            ..JobFilter::default()
        };
        self.jobs.list(filter).await.map_err(|error| store_error(&error))
    }

    /// Cancels the caller's job, or asks its worker to stop.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the job has ended otherwise; the store's.
    pub async fn cancel(&self, caller: &Caller, id: JobId) -> Result<Cancelled, ApiError> {
        self.job(caller, id).await?;
        let view = self.jobs.cancel(id).await.map_err(|error| store_error(&error))?;
        match view.state {
            JobState::Cancelled => Ok(Cancelled::Now(view)),
            JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
                Ok(Cancelled::Asked(view))
            }
            JobState::Succeeded | JobState::Failed | JobState::Expired => {
                let message = format!("the job has ended: it is {}", view.state.as_str());
                Err(ApiError::new(ErrorCode::Conflict, message))
            }
        }
    }

    /// What the caller's job has come to.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn result(&self, caller: &Caller, id: JobId) -> Result<Ended, ApiError> {
        let view = self.job(caller, id).await?;
        self.ended(view).await
    }

    /// The events of the caller's job numbered above `after_seq`: those there are, then each new
    /// one; ends after that of the final state, or when the orchestrator stops.
    ///
    /// # Errors
    /// `not_found`; the store's. The stream's own error ends it.
    pub async fn events(
        &self,
        caller: &Caller,
        id: JobId,
        after_seq: u64,
    ) -> Result<BoxStream<'static, Result<JobEvent, JobsError>>, ApiError> {
        self.job(caller, id).await?;
        let closing = self.closing.clone();
        let events = self.jobs.events(id, after_seq);
        Ok(events.take_until(async move { closing.cancelled().await }).boxed())
    }
}

fn states(text: Option<&str>) -> Result<Vec<JobState>, ApiError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .map(|name| {
            JobState::parse(name.trim()).ok_or_else(|| {
                let all: Vec<_> = JobState::ALL.iter().map(|state| state.as_str()).collect();
                let shown: String = name.chars().take(32).collect();
                let message = format!("state {shown:?} is none of {}", all.join(", "));
                ApiError::invalid("state", message)
            })
        })
        .take(JobState::ALL.len() + 1)
        .collect()
}

fn bounded(param: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.is_empty() || text.len() > QUERY_TEXT_BYTES_MAX => {
            let message = format!("{param} must have 1 to {QUERY_TEXT_BYTES_MAX} bytes");
            Err(ApiError::invalid(param, message))
        }
        text => Ok(text),
    }
}

fn page_limit(limit: Option<u32>) -> Result<u32, ApiError> {
    let (limit, max) = (limit.unwrap_or(limits::JOBS_PAGE_DEFAULT), limits::JOBS_PAGE_MAX);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid("limit", format!("limit is {limit}; it must be between 1 and {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_by_name() {
        assert_eq!(states(None).unwrap(), []);
        let both = states(Some("queued, running")).unwrap();
        assert_eq!(both, [JobState::Queued, JobState::Running]);
        let error = states(Some("queued,asleep")).unwrap_err();
        assert!(error.message.contains("asleep") && error.message.contains("expired"));
    }

    #[test]
    fn a_page_has_bounds() {
        assert_eq!(page_limit(None).unwrap(), limits::JOBS_PAGE_DEFAULT);
        for wrong in [0, limits::JOBS_PAGE_MAX + 1] {
            assert_eq!(page_limit(Some(wrong)).unwrap_err().param.as_deref(), Some("limit"));
        }
    }
}
