//! `ai-semble batch`: files with a request a line, as OpenAI's batches.

use std::path::PathBuf;
use std::time::Duration;

use aisemble_client::Client;
use aisemble_protocol::file::Purpose;
use serde_json::Value;

use super::{connect, files};
use crate::args::{BatchCommand, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

/// Pause between a look at the batch and the next.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// As the call; `Failed` for a batch that did not complete.
pub async fn run(global: &Global, command: BatchCommand, terminal: Terminal) -> Outcome<()> {
    let client = connect(global)?;
    match command {
        BatchCommand::Run { file, endpoint, output, detach } => {
            let stored = files::upload(&client, &file, Purpose::Batch, terminal).await?;
            let batch = client.create_batch(&stored.id.to_string(), &endpoint).await?;
            let id = text(&batch, "id");
            if detach {
                return if terminal.json { terminal.data(&batch) } else { terminal.line(&id) };
            }
            terminal.note(&format!("Batch {id}"));
            let ended = watch(&client, &id, terminal).await?;
            fetch(&client, &ended, output, terminal).await
        }
        BatchCommand::List { limit } => {
            let list = client.batches(limit).await?;
            let batches = list.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
            if terminal.json {
                return batches.iter().try_for_each(|batch| terminal.data(batch));
            }
            let row = |batch: &Value| {
                let (done, total, failed) = counts(batch);
                let lines = format!("{done}/{total}, {failed} failed");
                vec![text(batch, "id"), text(batch, "status"), lines, text(batch, "endpoint")]
            };
            let rows: Vec<_> = batches.iter().map(row).collect();
            terminal.table(&["ID", "STATUS", "LINES", "ENDPOINT"], &rows)
        }
        BatchCommand::Show { id } => terminal.data(&client.batch(&id).await?),
        BatchCommand::Cancel { id } => {
            let batch = client.cancel_batch(&id).await?;
            terminal.note("Asked the batch to end");
            if terminal.json { terminal.data(&batch) } else { Ok(()) }
        }
    }
}

async fn watch(client: &Client, id: &str, terminal: Terminal) -> Outcome<Value> {
    let bar = terminal.count_bar("lines", 0);
    loop {
        let batch = client.batch(id).await?;
        let (done, total, failed) = counts(&batch);
        bar.set_length(total);
        bar.set_position(done + failed);
        let status = text(&batch, "status");
        if ["completed", "failed", "expired", "cancelled"].contains(&status.as_str()) {
            bar.finish_and_clear();
            return Ok(batch);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                bar.finish_and_clear();
                return Err(Failure::new(Exit::Interrupted, "it goes on without this command")
                    .hint(format!("ai-semble batch show {id}, or batch cancel {id}")));
            }
        }
    }
}

/// The answers, and the errors beside them.
async fn fetch(
    client: &Client,
    batch: &Value,
    output: Option<PathBuf>,
    terminal: Terminal,
) -> Outcome<()> {
    let (done, total, failed) = counts(batch);
    terminal
        .note(&format!("[{}: {done} of {total} lines, {failed} failed]", text(batch, "status")));
    let answers = text(batch, "output_file_id");
    if !answers.is_empty() {
        let file = client.file(files::parse(&answers)?).await?;
        match &output {
            Some(path) => files::save(client, &file, path, true, terminal).await?,
            None => print(client, &answers, terminal).await?,
        }
    }
    let errors = text(batch, "error_file_id");
    if !errors.is_empty() {
        terminal.warn(&format!("some lines failed: ai-semble files get {errors} --output -"));
    }
    if text(batch, "status") == "completed" {
        return Ok(());
    }
    let first = batch.pointer("/errors/data/0/message").and_then(Value::as_str);
    let why = first.map(|why| format!(": {why}")).unwrap_or_default();
    let message = format!("the batch is {}{why}", text(batch, "status"));
    Err(Failure::new(Exit::Failed, message))
}

async fn print(client: &Client, id: &str, terminal: Terminal) -> Outcome<()> {
    let mut content = Vec::new();
    client
        .download_file(files::parse(id)?, |piece| {
            content.extend_from_slice(piece);
            Ok::<(), Failure>(())
        })
        .await?;
    terminal.write(&String::from_utf8_lossy(&content))
}

/// Done, all, failed.
fn counts(batch: &Value) -> (u64, u64, u64) {
    let count = |name: &str| {
        batch.pointer(&format!("/request_counts/{name}")).and_then(Value::as_u64).unwrap_or(0)
    };
    (count("completed"), count("total"), count("failed"))
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_texts_of_what_is_missing_are_nothing() {
        let batch = serde_json::json!({"id": "b", "request_counts": {"completed": 2, "total": 3}});
        assert_eq!(counts(&batch), (2, 3, 0));
        assert_eq!((text(&batch, "id"), text(&batch, "status")), ("b".into(), String::new()));
    }
}
