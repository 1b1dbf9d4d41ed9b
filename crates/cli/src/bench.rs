//! `ai-semble bench`: measures what runs, and prints figures that can be compared.

mod figures;
mod http;
mod jobs;
mod llm;
mod map;
mod peer;

use crate::args::{BenchCommand, Global};
use crate::failure::Outcome;
use crate::terminal::Terminal;

/// Runs the command.
///
/// # Errors
/// As the calls that are measured.
pub async fn run(global: &Global, command: BenchCommand, terminal: Terminal) -> Outcome<()> {
    match command {
        BenchCommand::Http(options) => http::run(global, options, terminal).await,
        BenchCommand::Llm(options) => llm::run(global, options, terminal).await,
        BenchCommand::Jobs(options) => jobs::run(global, options, terminal).await,
        BenchCommand::Map(options) => map::run(global, options, terminal).await,
    }
}
