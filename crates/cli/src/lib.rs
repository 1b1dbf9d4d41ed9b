//! The `ai-semble` command: runs Ai-semble on this machine without containers, and uses one that
//! runs anywhere. It knows the HTTP API through `aisemble_client`, and the services only as
//! programs that it starts.

pub mod args;
pub mod bench;
pub mod catalog;
pub mod digest;
pub mod direct;
pub mod doctor;
pub mod failure;
pub mod home;
pub mod keys;
pub mod local;
pub mod models;
pub mod process;
pub mod reference;
pub mod remote;
pub mod terminal;

use args::{Cli, Command};
use failure::Outcome;
use terminal::Terminal;

/// Runs one command line to its end.
///
/// # Errors
/// What the user is told, with a hint and an exit code.
pub async fn run(cli: Cli) -> Outcome<()> {
    let terminal = Terminal::new(cli.global.json, cli.global.quiet);
    let global = &cli.global;
    match cli.command {
        Command::Up(up) => local::up::run(global, up, terminal).await,
        Command::Down(down) => local::down::run(global, down, terminal).await,
        Command::Status => local::status::run(global, terminal).await,
        Command::Doctor(doctor) => doctor::run(global, doctor, terminal).await,
        Command::Models(command) => models::run(global, command, terminal),
        Command::Keys(command) => keys::run(global, command, terminal),
        Command::Chat(chat) => remote::chat::run(global, chat, terminal).await,
        Command::Complete(complete) => remote::complete::run(global, complete, terminal).await,
        Command::Embed(embed) => remote::nlp::embed(global, embed, terminal).await,
        Command::Rerank(rerank) => remote::nlp::rerank(global, rerank, terminal).await,
        Command::Classify(classify) => remote::nlp::classify(global, classify, terminal).await,
        Command::Entities(entities) => remote::nlp::entities(global, entities, terminal).await,
        Command::Redact(redact) => remote::nlp::redact(global, redact, terminal).await,
        Command::See(see) => remote::see::run(global, see, terminal).await,
        Command::Data(command) => remote::data::run(global, command, terminal).await,
        Command::Files(command) => remote::files::run(global, command, terminal).await,
        Command::Workflow(command) => remote::workflow::run(global, command, terminal).await,
        Command::Batch(command) => remote::batch::run(global, command, terminal).await,
        Command::Jobs(command) => remote::jobs::run(global, command, terminal).await,
        Command::Bench(command) => bench::run(global, command, terminal).await,
    }
}
