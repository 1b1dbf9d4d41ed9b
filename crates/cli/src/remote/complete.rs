//! `ai-semble complete`: one completion, streamed to a terminal, whole into a pipe or as JSON.

use std::time::Duration;

use aisemble_client::{Client, ClientError, CompletionEvent};
use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::limits;
use futures_util::StreamExt as _;

use super::{connect, prompt, request};
use crate::args::{Complete, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

/// Runs the command.
///
/// # Errors
/// As the call; `Interrupted` on Ctrl-C, which also cancels the job.
pub async fn run(global: &Global, options: Complete, terminal: Terminal) -> Outcome<()> {
    let client = connect(global)?;
    let text = prompt(&options.prompt)?;
    let request = request(text, options.raw, options.system.as_deref(), &options.sampling);
    if terminal.stdout_is_terminal() && !terminal.json {
        let result = stream(&client, &request, terminal).await?;
        terminal.note(&speed(&result));
        return Ok(());
    }
    let wait = Duration::from_secs(limits::PREFER_WAIT_S_MAX);
    match client.complete(&request, wait).await? {
        Ok(result) if terminal.json => terminal.data(&result),
        Ok(result) => terminal.line(&result.text),
        Err(job) => Err(Failure::new(Exit::TryLater, format!("job {} still runs", job.id))
            .hint(format!("ai-semble jobs result --wait {}", job.id))),
    }
}

/// Streams the text to stdout; on Ctrl-C the job is cancelled.
pub(super) async fn stream(
    client: &Client,
    request: &CompletionRequest,
    terminal: Terminal,
) -> Outcome<CompletionResult> {
    let mut events = client.stream_completion(request).await?;
    let mut job = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => {
                terminal.write("\n")?;
                if let Some(id) = job {
                    // It may have ended in this moment: then there is nothing to cancel.
                    let _ = client.cancel_job(id).await;
                }
                return Err(Failure::new(Exit::Interrupted, "broken off"));
            }
        };
        match event {
            Some(Ok(CompletionEvent::Job(view))) => job = Some(view.id),
            Some(Ok(CompletionEvent::Token { text, .. })) => terminal.write(&text)?,
            Some(Ok(CompletionEvent::Restart { attempt })) => {
                terminal.write("\n")?;
                terminal.warn(&format!("attempt {attempt}: the text above is void"));
            }
            Some(Ok(CompletionEvent::Result(result))) => {
                terminal.write("\n")?;
                return Ok(*result);
            }
            Some(Err(error)) => return Err(error.into()),
            None => {
                let what = "the completion".to_owned();
                return Err(ClientError::StreamEnded { what }.into());
            }
        }
    }
}

/// One line about the speed.
pub(super) fn speed(result: &CompletionResult) -> String {
    let (usage, timings) = (result.usage, result.timings);
    format!(
        "[{} + {} tokens, {:.0} ms prompt, {:.0} tokens/s, {}]",
        usage.prompt_tokens,
        usage.completion_tokens,
        timings.prompt_ms,
        timings.decode_tokens_per_s,
        result.finish_reason
    )
}
