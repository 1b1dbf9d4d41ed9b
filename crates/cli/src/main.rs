//! The process: arguments in, an exit code out. Everything else is in the library.

use std::process::ExitCode;

use aisemble_cli::args::Cli;
use aisemble_cli::failure::{Exit, Failure};
use aisemble_cli::terminal::report_failure;
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    // One thread: children are bound to the life of the thread that starts them (local::child).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(aisemble_cli::run(cli));
            // A prompt that waits for a key press must not keep the process.
            runtime.shutdown_background();
            done
        }
        Err(error) => {
            Err(Failure::new(Exit::Failed, "cannot start the async runtime").because(error))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report_failure(&failure, json);
            ExitCode::from(failure.exit.code())
        }
    }
}
