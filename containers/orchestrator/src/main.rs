//! The orchestrator's process, step by step: settings and logs, what the sandbox must know, the
//! sandbox, the store, the runtime, serving, the end.

use std::process::ExitCode;

use aisemble_orchestrator::config::Config;
use aisemble_orchestrator::{backup, process};
use aisemble_service::runtime::RuntimeConfig;
use aisemble_service::{StartError, runtime, sandboxed, start_from};

const NAME: &str = "orchestrator";

/// A thread a core carries the calls; the store has threads of its own.
const THREADS: RuntimeConfig = RuntimeConfig { worker_threads: 0, blocking_threads_max: 8 };

fn main() -> ExitCode {
    run().unwrap_or_else(|code| code)
}

fn run() -> Result<ExitCode, ExitCode> {
    let (backup, arguments) = backup::asked(std::env::args_os());
    let started = start_from::<Config>(NAME, env!("CARGO_PKG_VERSION"), arguments)?;
    let config = started.config;
    if let Some(to) = backup {
        return backup::run(&config, &to).map_err(StartError::log);
    }
    let opened = process::open(&config, started.memory).map_err(StartError::log)?;
    let confined = sandboxed::confine(NAME, &process::paths(&config)).map_err(StartError::log)?;
    let jobs = process::open_store(&config).map_err(StartError::log)?;
    let runtime = runtime::build(NAME, THREADS).map_err(StartError::log)?;
    let lock_down = || sandboxed::lock_down(confined);
    let ended = runtime.block_on(process::live(config, opened, jobs, started.notifier, lock_down));
    // Not waiting: what still runs was given back.
    runtime.shutdown_background();
    ended.map_err(StartError::log)
}
