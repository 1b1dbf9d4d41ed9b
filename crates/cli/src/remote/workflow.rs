//! `ai-semble workflow`: check, run, follow, cancel and draw workflows.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use aisemble_client::{Client, Drawing};
use aisemble_protocol::data::TableFormat;
use aisemble_protocol::file::Purpose;
use aisemble_protocol::workflow::{StepState, StepView, WorkflowRequest, WorkflowView};
use aisemble_protocol::{FileId, JobId, JobState};
use indicatif::{MultiProgress, ProgressBar};
use serde_json::Value;

use super::texts::short;
use super::{connect, files};
use crate::args::{Global, WorkflowCommand, WorkflowInputs, WorkflowRun};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

/// Pause between a look at the workflow and the next.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Bytes of a workflow's file.
const WORKFLOW_BYTES_MAX: u64 = 4 * 1024 * 1024;
const SHOWN_CHARS: usize = 120;

/// Runs the command.
///
/// # Errors
/// As the call; `CheckFailed` for a workflow with faults, `Failed` for one that did not succeed.
pub async fn run(global: &Global, command: WorkflowCommand, terminal: Terminal) -> Outcome<()> {
    let client = connect(global)?;
    match command {
        WorkflowCommand::Run(options) => submit(&client, &options, terminal).await,
        WorkflowCommand::Validate { file, inputs } => {
            let mut request = read(&file)?;
            values(&inputs, &mut request)?;
            for text in &inputs.file_input {
                let (name, path) = pair(text)?;
                request.inputs.insert(name.to_owned(), table(FileId::generate(), path));
            }
            validate(&client, &request, terminal).await
        }
        WorkflowCommand::Retry { id, detach } => {
            let again = client.retry_job(parse(&id)?).await?.id;
            follow(&client, again, detach, terminal).await
        }
        WorkflowCommand::Watch { id } => {
            let ended = watch(&client, parse(&id)?, terminal).await?;
            report(&ended, terminal)
        }
        WorkflowCommand::Cancel { id } => {
            let view = client.cancel_workflow(parse(&id)?).await?;
            terminal.note("Asked the workflow to end");
            if terminal.json { terminal.data(&view) } else { Ok(()) }
        }
        WorkflowCommand::Graph { id, dot } => {
            let drawing = if dot { Drawing::Dot } else { Drawing::Mermaid };
            terminal.write(&client.workflow_graph(parse(&id)?, drawing).await?)
        }
    }
}

fn parse(id: &str) -> Outcome<JobId> {
    id.parse().map_err(|_| {
        Failure::new(Exit::Usage, format!("{id:?} is no workflow id"))
            .hint("`ai-semble jobs list --kind workflow` shows them")
    })
}

fn read(path: &Path) -> Outcome<WorkflowRequest> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(WORKFLOW_BYTES_MAX + 1).read_to_end(&mut text)
    } else {
        let file = fs::File::open(path).map_err(|error| Failure::file("open", path, error))?;
        file.take(WORKFLOW_BYTES_MAX + 1).read_to_end(&mut text)
    };
    read.map_err(|error| Failure::file("read", path, error))?;
    if text.len() as u64 > WORKFLOW_BYTES_MAX {
        let message = format!("{} has more than {WORKFLOW_BYTES_MAX} bytes", path.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Exit::Usage, format!("{} is no workflow", path.display()))
            .because(error)
            .hint("docs/workflows.md shows the form")
    })
}

async fn validate(client: &Client, request: &WorkflowRequest, terminal: Terminal) -> Outcome<()> {
    let validation = client.validate_workflow(request).await?;
    if terminal.json {
        terminal.data(&validation)?;
    } else if validation.valid {
        terminal.line(&format!("ok: {}", validation.order.join(" -> ")))?;
    } else {
        for fault in &validation.faults {
            let value = serde_json::to_value(fault).unwrap_or_default();
            let text =
                |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            terminal.line(&format!("{}: {}", text("step"), text("message")))?;
        }
    }
    if validation.valid {
        return Ok(());
    }
    let count = validation.faults.len();
    Err(Failure::new(Exit::CheckFailed, format!("the workflow has {count} faults")))
}

async fn submit(client: &Client, options: &WorkflowRun, terminal: Terminal) -> Outcome<()> {
    let mut request = read(&options.file)?;
    values(&options.inputs, &mut request)?;
    for text in &options.inputs.file_input {
        let (name, path) = pair(text)?;
        let file = files::upload(client, Path::new(path), Purpose::UserData, terminal).await?;
        terminal.note(&format!("{name} is {}", file.id));
        request.inputs.insert(name.to_owned(), table(file.id, path));
    }
    if let Some(id) = &options.continue_from {
        request.continue_from = Some(parse(id)?);
    }
    let view = client.submit_workflow(&request, options.idempotency_key.as_deref()).await?;
    follow(client, view.id, options.detach, terminal).await
}

/// Shows a workflow to its end, or only says which it is.
async fn follow(client: &Client, id: JobId, detach: bool, terminal: Terminal) -> Outcome<()> {
    if detach {
        return if terminal.json {
            terminal.data(&client.workflow(id).await?)
        } else {
            terminal.line(&id.to_string())
        };
    }
    terminal.note(&format!("Workflow {id}"));
    let ended = watch(client, id, terminal).await?;
    report(&ended, terminal)
}

/// Inputs that are values: JSON where they are JSON, else texts.
fn values(inputs: &WorkflowInputs, request: &mut WorkflowRequest) -> Outcome<()> {
    for text in &inputs.input {
        let (name, value) = pair(text)?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        request.inputs.insert(name.to_owned(), value);
    }
    Ok(())
}

/// An uploaded file as an input, with its format if the name says that it is a table.
fn table(file: FileId, path: &str) -> Value {
    let mut input = serde_json::json!({ "file": file });
    if let Some(format) = TableFormat::of_name(path) {
        input["format"] = format.as_str().into();
    }
    input
}

fn pair(text: &str) -> Outcome<(&str, &str)> {
    text.split_once('=').ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{text:?} is no input")).hint("write NAME=VALUE")
    })
}

/// Shows each step until the workflow has ended. Ctrl-C leaves it running.
async fn watch(client: &Client, id: JobId, terminal: Terminal) -> Outcome<WorkflowView> {
    let mut board = Board::new(terminal);
    loop {
        let view = client.workflow(id).await?;
        board.show(&view);
        if view.state.is_final() {
            board.clear();
            return Ok(view);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                board.clear();
                return Err(Failure::new(Exit::Interrupted, "it goes on without this command")
                    .hint(format!("ai-semble workflow watch {id}, or cancel {id}")));
            }
        }
    }
}

/// A bar a step for a person; a line a change where there is no terminal.
struct Board {
    terminal: Terminal,
    bars: MultiProgress,
    steps: BTreeMap<String, (ProgressBar, StepState)>,
}

impl Board {
    fn new(terminal: Terminal) -> Self {
        Self { terminal, bars: MultiProgress::new(), steps: BTreeMap::new() }
    }

    fn show(&mut self, view: &WorkflowView) {
        for step in &view.steps {
            let bar_of = || {
                let bar = self.terminal.percent_bar(&format!("{:<16}", short(&step.id, 16)));
                if bar.is_hidden() { bar } else { self.bars.add(bar) }
            };
            let known = self.steps.get(&step.id).map(|(_, state)| *state);
            let (bar, state) =
                self.steps.entry(step.id.clone()).or_insert_with(|| (bar_of(), step.state));
            *state = step.state;
            let share = match (&step.progress, step.state) {
                (_, StepState::Succeeded | StepState::Skipped) => 100,
                (Some(progress), _) if progress.rows > 0 => {
                    progress.rows_done.saturating_mul(100) / progress.rows
                }
                (Some(_) | None, _) => 0,
            };
            bar.set_position(share);
            bar.set_message(told(step));
            if bar.is_hidden() && known != Some(step.state) && step.state != StepState::Pending {
                self.terminal.note(&format!("{}: {}", step.id, told(step)));
            }
        }
    }

    fn clear(&self) {
        for (bar, _) in self.steps.values() {
            bar.finish_and_clear();
        }
    }
}

fn told(step: &StepView) -> String {
    let mut text = step.state.as_str().to_owned();
    if let Some(progress) = &step.progress {
        text = format!("{text} {}/{} rows", progress.rows_done, progress.rows);
        if progress.rows_failed > 0 {
            text = format!("{text}, {} failed", progress.rows_failed);
        }
        if let Some(eta) = progress.eta_ms.filter(|_| !step.state.is_final()) {
            text = format!("{text}, {} left", crate::terminal::span(Duration::from_millis(eta)));
        }
    }
    if step.kept_from.is_some() {
        return format!("{text}, taken over from an earlier run");
    }
    if let (Some(start), Some(end)) = (step.started_at_ms, step.finished_at_ms) {
        text = format!("{text} in {} ms", end.saturating_sub(start));
    }
    if let Some(error) = &step.error {
        text = format!("{text}: {}", short(&error.message, SHOWN_CHARS));
    }
    text
}

fn report(view: &WorkflowView, terminal: Terminal) -> Outcome<()> {
    if terminal.json {
        terminal.data(view)?;
    } else {
        for step in &view.steps {
            terminal.line(&format!("{}: {}", step.id, told(step)))?;
            if let Some(output) = &step.output {
                terminal.line(&format!("  {}", short(&output.to_string(), SHOWN_CHARS)))?;
            }
        }
    }
    match view.state {
        JobState::Succeeded => Ok(()),
        JobState::Pending
        | JobState::Scheduled
        | JobState::Queued
        | JobState::Running
        | JobState::Failed
        | JobState::Cancelled
        | JobState::Expired => {
            let why = view.error.as_ref().map(|error| format!(": {}", error.message));
            let state = view.state.as_str();
            let message = format!("the workflow {state}{}", why.unwrap_or_default());
            Err(Failure::new(Exit::Failed, message))
        }
    }
}
