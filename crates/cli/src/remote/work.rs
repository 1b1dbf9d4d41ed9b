//! One piece of work from its submission to its result: progress for a person, and the job is
//! cancelled on Ctrl-C.

use aisemble_client::{Client, ClientError, WorkEvent, WorkRequest};
use aisemble_protocol::ErrorCode;
use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

/// Does the work and gives its answer.
///
/// # Errors
/// As the call; `Interrupted` on Ctrl-C.
pub(super) async fn run<R: WorkRequest + 'static>(
    client: &Client,
    request: &R,
    terminal: Terminal,
) -> Outcome<R::Answer> {
    let mut events = client.follow(request).await.map_err(not_there)?;
    let bar = terminal.percent_bar("working");
    let mut job = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => {
                bar.finish_and_clear();
                if let Some(id) = job {
                    // It may have ended in this moment: then there is nothing to cancel.
                    let _ = client.cancel_job(id).await;
                }
                return Err(Failure::new(Exit::Interrupted, "broken off"));
            }
        };
        match event {
            Some(Ok(WorkEvent::Job(view))) => job = Some(view.id),
            Some(Ok(WorkEvent::Progress(progress))) => show(&bar, &progress),
            Some(Ok(WorkEvent::Restart { .. })) => bar.set_position(0),
            Some(Ok(WorkEvent::Item(_) | WorkEvent::Token(_))) => {}
            Some(Ok(WorkEvent::Result(answer))) => {
                bar.finish_and_clear();
                return Ok(*answer);
            }
            Some(Err(error)) => {
                bar.finish_and_clear();
                return Err(error.into());
            }
            None => return Err(ClientError::StreamEnded { what: R::PATH.to_owned() }.into()),
        }
    }
}

/// A capability that is not configured is a matter of `up`, not of the request.
fn not_there(error: ClientError) -> Failure {
    let is_missing = error.code() == Some(ErrorCode::Unprocessable);
    let failure = Failure::from(error);
    if is_missing && failure.message.contains("this server does no") {
        return failure.hint(
            "ai-semble models pull --default, then `ai-semble up` again: it starts every service \
             whose program and models are there",
        );
    }
    failure
}

/// Whatever is counted: `done` of `total`, or `rows_done` of `rows`.
fn show(bar: &ProgressBar, progress: &Value) {
    let number = |names: [&str; 2]| names.iter().find_map(|name| progress.get(name)?.as_u64());
    if let (Some(done), Some(total)) = (number(["done", "rows_done"]), number(["total", "rows"])) {
        bar.set_position(done.saturating_mul(100) / total.max(1));
        bar.set_message(format!("{done}/{total}"));
    } else if let Some(stage) = progress.get("stage").and_then(Value::as_str) {
        bar.set_message(stage.to_owned());
    }
}
