//! Load on the job API: how fast jobs are accepted and done, and how soon each is picked up.

use std::time::{Duration, Instant};

use aisemble_client::{Client, WatchOptions};
use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::job::JobView;
use aisemble_protocol::{JobId, JobState};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::figures::{Spread, ms};
use crate::args::{BenchJobs, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::remote;
use crate::terminal::Terminal;

pub(super) async fn run(global: &Global, options: BenchJobs, terminal: Terminal) -> Outcome<()> {
    let patience = Duration::from_secs(options.timeout_seconds);
    let measured = tokio::time::timeout(patience, measure(global, &options, terminal)).await;
    measured.map_err(|_| {
        Failure::new(Exit::TryLater, format!("not done in {} s", options.timeout_seconds))
            .hint("fewer jobs with --jobs, or more time with --timeout-seconds")
    })?
}

async fn measure(global: &Global, options: &BenchJobs, terminal: Terminal) -> Outcome<()> {
    let client = remote::connect(global)?;
    let width = options.concurrency.max(1);
    let bar = terminal.count_bar("submitting", options.jobs as u64);
    let begun = Instant::now();
    let start = tokio::time::Instant::now();
    let numbers =
        (0..options.jobs).map(|number| f64::from(u32::try_from(number).unwrap_or(u32::MAX)));
    let submitted: Vec<(JobId, f64)> = futures_util::stream::iter(numbers)
        .map(|number| {
            let due = options.rate.map(|rate| start + Duration::from_secs_f64(number / rate));
            submit(&client, options.output_tokens, due)
        })
        .buffer_unordered(width)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await?;
    let submit_s = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let bar = terminal.count_bar("waiting", options.jobs as u64);
    let ids = submitted.iter().map(|(id, _)| *id);
    let jobs: Vec<JobView> = futures_util::stream::iter(ids)
        .map(|id| ended(&client, id))
        .buffer_unordered(width)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await?;
    let whole_s = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    report(&submitted, &jobs, (submit_s, whole_s), terminal)
}

async fn submit(
    client: &Client,
    output_tokens: u32,
    due: Option<tokio::time::Instant>,
) -> Outcome<(JobId, f64)> {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
    let request = CompletionRequest {
        prompt: Some("a".to_owned()),
        max_tokens: Some(output_tokens),
        temperature: Some(0.0),
        ..CompletionRequest::default()
    };
    let begun = Instant::now();
    let job = client.submit_completion(&request, None).await?;
    Ok((job.id, ms(begun.elapsed())))
}

async fn ended(client: &Client, id: JobId) -> Outcome<JobView> {
    let mut events = client.watch_job(id, WatchOptions::default());
    while let Some(event) = events.next().await {
        event?;
    }
    Ok(client.job(id).await?)
}

fn report(
    submitted: &[(JobId, f64)],
    jobs: &[JobView],
    (submit_s, whole_s): (f64, f64),
    terminal: Terminal,
) -> Outcome<()> {
    let between = |from: Option<u64>, to: Option<u64>| {
        from.zip(to).map(|(from, to)| ms(Duration::from_millis(to.saturating_sub(from))))
    };
    let accept = Spread::of(submitted.iter().map(|(_, ms)| *ms).collect());
    let pickup: Vec<_> =
        jobs.iter().filter_map(|job| between(Some(job.created_at_ms), job.started_at_ms)).collect();
    let run: Vec<_> =
        jobs.iter().filter_map(|job| between(job.started_at_ms, job.finished_at_ms)).collect();
    let (pickup, run) = (Spread::of(pickup), Spread::of(run));
    let failed = jobs.iter().filter(|job| job.state != JobState::Succeeded).count();
    #[expect(clippy::cast_precision_loss, reason = "a number of jobs")]
    let count = jobs.len() as f64;
    let (accepted_per_s, done_per_s) = (count / submit_s, count / whole_s);
    if terminal.json {
        terminal.data(&json!({
            "bench": "jobs", "jobs": jobs.len(), "failed": failed,
            "accepted_per_s": accepted_per_s, "done_per_s": done_per_s,
            "accept": accept, "pickup": pickup, "run": run,
        }))?;
    } else {
        terminal.line(&format!(
            "{} jobs: {accepted_per_s:.0}/s accepted, {done_per_s:.1}/s done, \
             {failed} not succeeded",
            jobs.len()
        ))?;
        let rows: Vec<_> = [("accept (202)", accept), ("pickup", pickup), ("run", run)]
            .into_iter()
            .map(|(name, spread)| {
                let mut row = vec![name.to_owned()];
                row.extend(spread.cells());
                row
            })
            .collect();
        terminal.table(&["ms", "P50", "P95", "P99", "MAX"], &rows)?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{failed} jobs did not succeed")))
}
