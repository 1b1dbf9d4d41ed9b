//! `ai-semble jobs`: submit, list, follow, cancel, and fetch the result.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aisemble_client::{Cancelled, Client, JobQuery, WatchEvent, WatchOptions};
use aisemble_protocol::job::{JobOptions, JobView};
use aisemble_protocol::{JobId, JobState, limits};
use futures_util::StreamExt as _;
use serde_json::json;

use super::{connect, prompt, request};
use crate::args::{Global, JobsCommand, JobsList, JobsSubmit, JobsWatch};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{Terminal, span};

/// Runs the command.
///
/// # Errors
/// As the call; a watched job that does not succeed gives exit code 1.
pub async fn run(global: &Global, command: JobsCommand, terminal: Terminal) -> Outcome<()> {
    let client = connect(global)?;
    match command {
        JobsCommand::Submit(options) => submit(&client, options, terminal).await,
        JobsCommand::List(options) => list(&client, &options, terminal).await,
        JobsCommand::Watch(JobsWatch { id, after }) => {
            watch(&client, parse(&id)?, after, terminal).await
        }
        JobsCommand::Cancel { id } => cancel(&client, parse(&id)?, terminal).await,
        JobsCommand::Retry { id } => {
            let job = client.retry_job(parse(&id)?).await?;
            if terminal.json { terminal.data(&job) } else { terminal.line(&job.id.to_string()) }
        }
        JobsCommand::Result { id, wait } => result(&client, parse(&id)?, wait, terminal).await,
    }
}

fn parse(id: &str) -> Outcome<JobId> {
    id.parse().map_err(|_| {
        Failure::new(Exit::Usage, format!("{id:?} is no job id"))
            .hint("`ai-semble jobs list` shows them")
    })
}

async fn submit(client: &Client, options: JobsSubmit, terminal: Terminal) -> Outcome<()> {
    let text = prompt(&options.prompt)?;
    let mut request = request(text, options.raw, None, &options.sampling);
    request.job = Some(JobOptions {
        priority: options.priority,
        deadline_ms: options.deadline_seconds.map(|seconds| seconds.saturating_mul(1000)),
        ..JobOptions::default()
    });
    let job = client.submit_completion(&request, options.idempotency_key.as_deref()).await?;
    if options.watch {
        terminal.note(&format!("Job {}", job.id));
        return watch(client, job.id, 0, terminal).await;
    }
    if terminal.json { terminal.data(&job) } else { terminal.line(&job.id.to_string()) }
}

async fn list(client: &Client, options: &JobsList, terminal: Terminal) -> Outcome<()> {
    let mut query =
        JobQuery { state: options.state, kind: options.kind.clone(), cursor: None, limit: None };
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        let missing = options.limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        if missing == 0 {
            break;
        }
        query.limit = Some(missing.min(limits::JOBS_PAGE_MAX));
        let page = client.jobs(&query).await?;
        let is_empty = page.jobs.is_empty();
        jobs.extend(page.jobs);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() || is_empty {
            break;
        }
    }
    if terminal.json {
        return jobs.iter().try_for_each(|job| terminal.data(job));
    }
    let rows: Vec<_> = jobs.iter().map(row).collect();
    terminal.table(&["ID", "KIND", "STATE", "ATTEMPT", "AGE", "TOOK"], &rows)
}

fn row(job: &JobView) -> Vec<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = since.saturating_sub(Duration::from_millis(job.created_at_ms));
    let took = job.started_at_ms.zip(job.finished_at_ms);
    let took = took.map(|(start, end)| format!("{} ms", end.saturating_sub(start)));
    let asked = if job.cancel_requested && !job.state.is_final() { " (cancelling)" } else { "" };
    vec![
        job.id.to_string(),
        job.kind.clone(),
        format!("{}{asked}", job.state.as_str()),
        format!("{}/{}", job.attempt, job.attempts_max),
        span(age),
        took.unwrap_or_default(),
    ]
}

async fn watch(client: &Client, id: JobId, after_seq: u64, terminal: Terminal) -> Outcome<()> {
    let options = WatchOptions { after_seq, ..WatchOptions::default() };
    let mut events = client.watch_job(id, options);
    let (mut last, mut has_text) = (None, false);
    while let Some(event) = events.next().await {
        let event = event?;
        // An attempt that was retried has left a part of a text: the next one begins on a new line.
        if event.kind == "started" && std::mem::take(&mut has_text) && !terminal.json {
            terminal.write("\n")?;
        }
        has_text |= event.kind == "tokens";
        if terminal.json {
            let value = json!({ "seq": event.seq, "kind": event.kind, "data": event.data });
            terminal.data(&value)?;
        } else {
            show(&event, terminal)?;
        }
        last = event.state().or(last);
    }
    match last {
        Some(JobState::Succeeded) => Ok(()),
        Some(state) => {
            let job = client.job(id).await?;
            let why = job.error.map(|error| format!(": {}", error.message)).unwrap_or_default();
            Err(Failure::new(Exit::Failed, format!("the job {}{why}", describe(state))))
        }
        None => Err(Failure::new(Exit::Failed, "there are no events after that one")),
    }
}

fn describe(state: JobState) -> &'static str {
    match state {
        JobState::Failed => "failed",
        JobState::Cancelled => "was cancelled",
        JobState::Expired => "expired",
        JobState::Succeeded => "succeeded",
        JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
            "has not ended"
        }
    }
}

/// Text to stdout as it comes; everything else on stderr.
fn show(event: &WatchEvent, terminal: Terminal) -> Outcome<()> {
    if event.kind == "tokens" {
        let text = event.data.get("text").and_then(|text| text.as_str()).unwrap_or_default();
        return terminal.write(text);
    }
    if event.state().is_some_and(JobState::is_final) {
        terminal.write("\n")?;
    }
    terminal.note(&format!("[{} {} {}]", event.seq, event.kind, event.data));
    Ok(())
}

async fn cancel(client: &Client, id: JobId, terminal: Terminal) -> Outcome<()> {
    let (job, said) = match client.cancel_job(id).await? {
        Cancelled::Now(job) => (job, "Cancelled"),
        Cancelled::Asked(job) => (job, "Asked the running job to stop"),
    };
    terminal.note(said);
    if terminal.json { terminal.data(&job) } else { Ok(()) }
}

async fn result(client: &Client, id: JobId, wait: bool, terminal: Terminal) -> Outcome<()> {
    if wait {
        let mut events = client.watch_job(id, WatchOptions::default());
        while let Some(event) = events.next().await {
            event?;
        }
    }
    let result = client.job_result(id).await.map_err(|error| {
        let is_early = error.code() == Some(aisemble_protocol::ErrorCode::Conflict);
        let failure = Failure::from(error);
        if is_early && !wait {
            failure.hint(format!("ai-semble jobs result --wait {id}"))
        } else {
            failure
        }
    })?;
    match result.get("text").and_then(|text| text.as_str()) {
        Some(text) if !terminal.json => terminal.line(text),
        Some(_) | None => terminal.data(&result),
    }
}
