//! Jobs as the store takes and gives them. A payload is bytes: what it means is the executor's
//! affair.

use aisemble_protocol::job::{JobView, Priority};
use aisemble_protocol::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, JOB_ATTEMPTS_MAX, JOB_NEEDS_MAX, METADATA_BYTES_MAX,
};
use aisemble_protocol::{JobId, JobState};

use crate::error::JobsError;
use crate::limits;

/// A job to accept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// What is done: `llm.completion`, ...
    pub kind: String,
    /// Who can do it: `llm`, `nlp`, ...
    pub capability: String,
    /// Whose it is: the key's id. Idempotency keys and `needs` are within one owner.
    pub owner: String,
    /// Who goes first.
    pub priority: Priority,
    /// What the executor gets.
    pub payload: Vec<u8>,
    /// Jobs of the same owner that must have succeeded before.
    pub needs: Vec<JobId>,
    /// Not before, milliseconds since 1970.
    pub run_at_ms: Option<u64>,
    /// Expired from then on, milliseconds since 1970.
    pub deadline_at_ms: Option<u64>,
    /// Attempts in all, from 1.
    pub attempts_max: u32,
    /// The job that makes it: it is kept as long as that one, and listed under it.
    pub parent: Option<JobId>,
    /// It goes on where it was: an attempt whose process died does not count.
    pub resumes: bool,
    /// Makes a repeated submission harmless.
    pub idempotency: Option<Idempotency>,
    /// Refused when its owner has so many jobs that have not ended; `None` = no limit.
    pub open_jobs_max: Option<u32>,
    /// The caller's own data.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// W3C `traceparent` of the request that made it.
    pub trace_parent: Option<String>,
}

/// A key that its owner uses for one request only, kept 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: String,
    /// Digest of the request: the same key with another fingerprint is refused.
    pub fingerprint: [u8; 32],
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// A new job.
    Created(JobView),
    /// The job that the same key and fingerprint made before.
    Existing(JobView),
}

impl Submitted {
    /// The job.
    #[must_use]
    pub fn view(&self) -> &JobView {
        match self {
            Self::Created(view) | Self::Existing(view) => view,
        }
    }
}

/// A job with what its view does not show.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What its owner sees.
    pub view: JobView,
    /// Whose it is.
    pub owner: String,
    /// Who can do it.
    pub capability: String,
    /// What the executor gets.
    pub payload: Vec<u8>,
    /// W3C `traceparent` of the request that made it.
    pub trace_parent: Option<String>,
}

/// Which jobs to list. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only this owner's; `None` = everybody's.
    pub owner: Option<String>,
    /// Only in these states; empty = all.
    pub states: Vec<JobState>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only those that this job made.
    pub parent: Option<JobId>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Jobs on the page, 1 to [`aisemble_protocol::limits::JOBS_PAGE_MAX`]; 0 = the default.
    pub limit: u32,
}

/// How much waits and runs. Ended jobs are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    /// One entry for each capability and state that has jobs, in order of capability and state.
    pub entries: Vec<DepthEntry>,
}

/// The jobs of one capability in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepthEntry {
    /// Who can do them.
    pub capability: String,
    /// `pending`, `scheduled`, `queued` or `running`.
    pub state: JobState,
    /// How many.
    pub count: u64,
    /// How long the oldest has been ready to run, milliseconds; 0 when its time is still to come.
    pub oldest_ms: u64,
}

impl Depth {
    /// Jobs of `capability` in `state`.
    #[must_use]
    pub fn count(&self, capability: &str, state: JobState) -> u64 {
        let same = |e: &&DepthEntry| e.capability == capability && e.state == state;
        self.entries.iter().find(same).map_or(0, |entry| entry.count)
    }
}

impl NewJob {
    /// A job with the defaults: normal priority, three attempts, now, no deadline.
    pub fn new(
        kind: impl Into<String>,
        capability: impl Into<String>,
        owner: impl Into<String>,
        payload: Vec<u8>,
    ) -> Self {
        Self {
            kind: kind.into(),
            capability: capability.into(),
            owner: owner.into(),
            priority: Priority::Normal,
            payload,
            needs: Vec::new(),
            run_at_ms: None,
            deadline_at_ms: None,
            attempts_max: 3,
            parent: None,
            resumes: false,
            idempotency: None,
            open_jobs_max: None,
            metadata: None,
            trace_parent: None,
        }
    }

    /// Checks every field that can be checked without the store.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] or [`JobsError::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<(), JobsError> {
        name("kind", &self.kind, limits::KIND_BYTES_MAX)?;
        name("capability", &self.capability, limits::CAPABILITY_BYTES_MAX)?;
        name("owner", &self.owner, limits::OWNER_BYTES_MAX)?;
        size("payload", self.payload.len(), limits::PAYLOAD_BYTES_MAX)?;
        if let Some(trace) = &self.trace_parent {
            size("trace_parent", trace.len(), limits::TRACE_PARENT_BYTES_MAX)?;
        }
        if let Some(idempotency) = &self.idempotency {
            name("idempotency key", &idempotency.key, IDEMPOTENCY_KEY_BYTES_MAX)?;
        }
        if let Some(metadata) = &self.metadata {
            let bytes = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
            size("metadata", bytes, METADATA_BYTES_MAX)?;
        }
        if !(1..=JOB_ATTEMPTS_MAX).contains(&self.attempts_max) {
            let reason = format!("must be 1 to {JOB_ATTEMPTS_MAX}, not {}", self.attempts_max);
            return Err(JobsError::Invalid { field: "attempts_max", reason });
        }
        if self.needs.len() > JOB_NEEDS_MAX {
            let reason = format!("names {} jobs; the limit is {JOB_NEEDS_MAX}", self.needs.len());
            return Err(JobsError::Invalid { field: "needs", reason });
        }
        // The store keeps times as signed 64-bit numbers.
        time("run_at_ms", self.run_at_ms)?;
        time("deadline_at_ms", self.deadline_at_ms)
    }
}

fn name(field: &'static str, text: &str, bytes_max: usize) -> Result<(), JobsError> {
    if text.is_empty() {
        return Err(JobsError::Invalid { field, reason: "must not be empty".to_owned() });
    }
    size(field, text.len(), bytes_max)
}

fn size(field: &'static str, bytes: usize, bytes_max: usize) -> Result<(), JobsError> {
    if bytes > bytes_max { Err(JobsError::TooLarge { field, bytes, bytes_max }) } else { Ok(()) }
}

fn time(field: &'static str, at_ms: Option<u64>) -> Result<(), JobsError> {
    if at_ms.is_some_and(|at| i64::try_from(at).is_err()) {
        let reason = "must be milliseconds since 1970".to_owned();
        return Err(JobsError::Invalid { field, reason });
    }
    Ok(())
}
