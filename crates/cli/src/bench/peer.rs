//! A peer engine, measured by a program of its own that prints one JSON object.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::args::{BenchLlm, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::local::state::UpState;

/// What one engine did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Name and version.
    pub(super) engine: String,
    /// Tokens of the prompts per second.
    pub(super) prefill_tokens_per_s: f64,
    /// Generated tokens per second, all streams together.
    pub(super) decode_tokens_per_s: f64,
}

/// Runs the peer's program on the same file with the same numbers.
pub(super) fn measure(
    global: &Global,
    options: &BenchLlm,
    streams: usize,
    (prompt_tokens, output_tokens): (u32, u32),
) -> Outcome<Measured> {
    let Some(program) = &options.peer else {
        return Err(Failure::new(Exit::Usage, "no --peer is given"));
    };
    let threads = options
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(std::num::NonZero::get));
    let mut command = Command::new(program);
    command.arg("--model").arg(model_file(global, options)?);
    command.arg("--threads").arg(threads.unwrap_or(1).to_string());
    command.arg("--prompt-tokens").arg(prompt_tokens.to_string());
    command.arg("--output-tokens").arg(output_tokens.to_string());
    command.arg("--streams").arg(streams.to_string());
    command.arg("--repeat").arg(options.repeat.to_string());
    if let Some(lib) = &options.peer_lib {
        command.arg("--lib").arg(lib);
    }
    let shown = program.display();
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot start {shown}")).because(error)
        })?;
    if !output.status.success() {
        let message = format!("{shown} failed ({})", output.status);
        return Err(Failure::new(Exit::Failed, message).hint(format!("{shown} --help")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(line).map_err(|error| {
        Failure::new(Exit::Failed, format!("{shown} printed no measurement")).because(error)
    })
}

fn model_file(global: &Global, options: &BenchLlm) -> Outcome<PathBuf> {
    if let Some(path) = &options.model_file {
        return Ok(path.clone());
    }
    let state = UpState::alive(&Home::named(global)?)?;
    state.map(|state| state.model_file.into()).ok_or_else(|| {
        Failure::new(Exit::Usage, "which model file the peer is to load is not known")
            .hint("name it with --model-file")
    })
}
