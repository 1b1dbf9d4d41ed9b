//! Schedules: workflows that are submitted again and again, with the rights of the key that made
//! the schedule, at times that a cron expression names. Each time is used once.

use std::time::Duration;

use aisemble_jobs::{Fired, JobsError, ScheduleRecord};
use aisemble_protocol::keys::KeyRecord;
use aisemble_protocol::workflow::WorkflowRequest;
use aisemble_protocol::{ApiError, ErrorCode, JobId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cron::Cron;
use super::desk::{Desk, check, new_job, refusal, scopes};
use crate::app::{Caller, Origin, now_ms, store_error};

/// How often schedules are looked at.
const LOOK: Duration = Duration::from_millis(1_000);
/// Schedules that one look fires.
const FIRES_MAX: usize = 100;
/// A time that is used this late is not missed yet, milliseconds.
const LATE_MS_MAX: u64 = 60_000;
/// Missed times of one schedule that are made up for, at most.
const MADE_UP_MAX: usize = 100;

/// What becomes of times that were missed while nobody was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing: the next time counts.
    Skip,
    /// One run for all of them.
    #[default]
    Once,
    /// One run each, the last 100.
    All,
}

/// `POST /schedules`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// When, in UTC: `minute hour day month weekday`, or `@daily`.
    pub cron: String,
    /// What.
    pub workflow: WorkflowRequest,
    /// What becomes of times that were missed.
    #[serde(default)]
    pub missed: Missed,
    /// Rests until it is told otherwise.
    #[serde(default)]
    pub paused: bool,
}

/// A schedule as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ScheduleView {
    /// Identity.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// When, what, and how.
    #[serde(flatten)]
    pub schedule: ScheduleRequest,
    /// The next time, milliseconds since 1970.
    pub next_at_ms: Option<u64>,
    /// The last time.
    pub last_at_ms: Option<u64>,
    /// The workflow that it made last.
    pub last_workflow: Option<JobId>,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: u64,
}

fn read_cron(text: &str) -> Result<Cron, ApiError> {
    Cron::parse(text).map_err(|error| ApiError::invalid("cron", format!("cron: {error}")))
}

fn view(record: &ScheduleRecord) -> Result<ScheduleView, ApiError> {
    let broken = |_| ApiError::new(ErrorCode::Internal, "the stored schedule cannot be read");
    Ok(ScheduleView {
        id: record.id,
        schedule: serde_json::from_slice(&record.body).map_err(broken)?,
        next_at_ms: record.next_at_ms,
        last_at_ms: record.last_at_ms,
        last_workflow: record.last_job,
        created_at_ms: record.created_at_ms,
    })
}

impl Desk {
    /// Keeps a schedule; `id` replaces the caller's schedule of that id.
    ///
    /// # Errors
    /// `invalid_request` for the expression or the workflow; `forbidden`; `not_found`; the store's.
    pub async fn put_schedule(
        &self,
        origin: &Origin,
        id: Option<Uuid>,
        request: ScheduleRequest,
    ) -> Result<ScheduleView, ApiError> {
        let cron = read_cron(&request.cron)?;
        check(&request.workflow).map_err(|faults| refusal(&faults))?;
        if request.workflow.continue_from.is_some() {
            let message = "what is submitted again and again continues no earlier run";
            return Err(ApiError::invalid("workflow.continue_from", message));
        }
        for scope in scopes(&request.workflow) {
            origin.caller.require(scope)?;
        }
        if let Some(id) = id {
            self.schedule(&origin.caller, id).await?;
        }
        let now_ms = now_ms();
        let broken = |_| ApiError::new(ErrorCode::Internal, "the schedule cannot be stored");
        let record = ScheduleRecord {
            id: id.unwrap_or_else(Uuid::now_v7),
            owner: origin.caller.key_id.clone(),
            body: serde_json::to_vec(&request).map_err(broken)?,
            next_at_ms: cron.next_after(now_ms).filter(|_| !request.paused),
            last_at_ms: None,
            last_job: None,
            created_at_ms: now_ms,
        };
        let put = self.engine.jobs.store().put_schedule(record.clone()).await;
        put.map_err(|error| store_error(&error))?;
        self.schedule(&origin.caller, record.id).await
    }

    /// The caller's schedules.
    ///
    /// # Errors
    /// The store's.
    pub async fn schedules(&self, caller: &Caller) -> Result<Vec<ScheduleView>, ApiError> {
        let owner = (!caller.is_admin()).then(|| caller.key_id.clone());
        let all = self.engine.jobs.store().schedules(owner).await;
        all.map_err(|error| store_error(&error))?.iter().map(view).collect()
    }

    /// The caller's schedule of that id.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn schedule(&self, caller: &Caller, id: Uuid) -> Result<ScheduleView, ApiError> {
        let all = self.schedules(caller).await?;
        let missing = || ApiError::new(ErrorCode::NotFound, format!("there is no schedule {id}"));
        all.into_iter().find(|schedule| schedule.id == id).ok_or_else(missing)
    }

    /// Deletes the caller's schedule.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn drop_schedule(&self, caller: &Caller, id: Uuid) -> Result<(), ApiError> {
        self.schedule(caller, id).await?;
        let dropped = self.engine.jobs.store().drop_schedule(id).await;
        dropped.map(drop).map_err(|error| store_error(&error))
    }

    /// Submits what is due, until `stop`. `key` gives the live record of a key.
    pub async fn keep_time(
        &self,
        stop: CancellationToken,
        key: impl Fn(&str) -> Option<KeyRecord>,
    ) {
        loop {
            match self.fire_due(now_ms(), &key).await {
                Ok(_) => {}
                Err(error) => tracing::warn!("schedules could not be looked at: {error}"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Submits what is due at `now_ms`; gives how many workflows that were.
    ///
    /// # Errors
    /// The store's.
    pub async fn fire_due(
        &self,
        now_ms: u64,
        key: &impl Fn(&str) -> Option<KeyRecord>,
    ) -> Result<usize, JobsError> {
        let due = self.engine.jobs.store().schedules_due(now_ms, FIRES_MAX).await?;
        let mut fired = 0;
        for record in due {
            fired += self.fire(&record, now_ms, key).await?;
        }
        Ok(fired)
    }

    async fn fire(
        &self,
        record: &ScheduleRecord,
        now_ms: u64,
        key: &impl Fn(&str) -> Option<KeyRecord>,
    ) -> Result<usize, JobsError> {
        let Some(due_at_ms) = record.next_at_ms else { return Ok(0) };
        let request: Option<ScheduleRequest> = serde_json::from_slice(&record.body).ok();
        let cron = request.as_ref().and_then(|request| Cron::parse(&request.cron).ok());
        let (Some(request), Some(cron)) = (request, cron) else {
            tracing::error!(schedule.id = %record.id, "a stored schedule cannot be read");
            return self.advance(record, (due_at_ms, None), None).await.map(|()| 0);
        };
        let times = times(&cron, request.missed, due_at_ms, now_ms);
        let next_at_ms = cron.next_after(now_ms);
        if !may_run(&request.workflow, key(&record.owner)) {
            tracing::warn!(
                audit = true,
                schedule.id = %record.id,
                key.id = record.owner,
                "a schedule rests: its key is gone or no longer opens what its workflow needs"
            );
            return self.advance(record, (due_at_ms, None), None).await.map(|()| 0);
        }
        let mut last = None;
        for at_ms in &times {
            let mut job = match new_job(&record.owner, &request.workflow) {
                Ok(job) => job,
                Err(error) => {
                    tracing::error!(schedule.id = %record.id, "not submitted: {error}");
                    break;
                }
            };
            // Jobs of an hour ago may be gone.
            job.needs.clear();
            let id = JobId(record.id).child(&format!("at/{at_ms}"));
            self.engine.jobs.submit_as(id, job).await?;
            tracing::info!(schedule.id = %record.id, job.id = %id, "a schedule submitted");
            last = Some(id);
        }
        self.advance(record, (due_at_ms, next_at_ms), last).await?;
        Ok(times.len())
    }

    async fn advance(
        &self,
        record: &ScheduleRecord,
        (due_at_ms, next_at_ms): (u64, Option<u64>),
        job: Option<JobId>,
    ) -> Result<(), JobsError> {
        let fired = Fired { id: record.id, due_at_ms, next_at_ms, job };
        self.engine.jobs.store().schedule_fired(fired).await.map(drop)
    }
}

/// The times up to now that are used: `due_at_ms` is the first that has not been.
fn times(cron: &Cron, missed: Missed, due_at_ms: u64, now_ms: u64) -> Vec<u64> {
    let mut all = vec![due_at_ms];
    while let Some(next) = cron.next_after(*all.last().unwrap_or(&due_at_ms)) {
        if next > now_ms {
            break;
        }
        if all.len() == MADE_UP_MAX {
            all.remove(0);
        }
        all.push(next);
    }
    let on_time = |at_ms: &u64| now_ms.saturating_sub(*at_ms) <= LATE_MS_MAX;
    match missed {
        Missed::All => all,
        Missed::Once => all.split_off(all.len() - 1),
        Missed::Skip => all.split_off(all.len() - 1).into_iter().filter(on_time).collect(),
    }
}

/// Whether the key still opens what the workflow needs.
fn may_run(request: &WorkflowRequest, key: Option<KeyRecord>) -> bool {
    let Some(key) = key else { return false };
    let caller = Caller::new(key.id, &key.scopes);
    scopes(request).into_iter().all(|scope| caller.require(scope).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const T0: u64 = 1_795_276_800_000 / HOUR_MS * HOUR_MS;

    #[test]
    fn missed_times_are_treated_as_asked() {
        let hourly = Cron::parse("@hourly").unwrap();
        let check = |missed, now_ms, expected: &[u64]| {
            let times = times(&hourly, missed, T0, now_ms);
            let hours: Vec<_> = times.iter().map(|at| (at - T0) / HOUR_MS).collect();
            assert_eq!(hours, expected, "{missed:?}");
        };
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            check(missed, T0 + 900, &[0]);
        }
        let late = T0 + 3 * HOUR_MS + 120_000;
        check(Missed::All, late, &[0, 1, 2, 3]);
        check(Missed::Once, late, &[3]);
        check(Missed::Skip, late, &[]);
        check(Missed::Skip, T0 + 3 * HOUR_MS + 1_000, &[3]);
        let long = times(&hourly, Missed::All, T0, T0 + 1_000 * HOUR_MS);
        assert_eq!((long.len(), long[99]), (MADE_UP_MAX, T0 + 1_000 * HOUR_MS));
    }
}
