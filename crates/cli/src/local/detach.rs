//! `up --detach`: starts this same program in the background, waits until it is ready or has
//! failed, and tells which.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aisemble_client::{Client, ClientConfig, RetryPolicy};
use rustix::process::Signal;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::state::UpState;
use super::{ready, up};
use crate::args::{Global, Up};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::process::Identity;
use crate::terminal::Terminal;

/// How long a child that was told to stop before it was ready may take.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const COMPLAINT_BYTES_MAX: usize = 4000;

/// Runs the command.
///
/// # Errors
/// What the process in the background failed with.
pub async fn run(global: &Global, home: &Home, options: &Up, terminal: Terminal) -> Outcome<()> {
    if home.try_lock("up")?.is_none() {
        return Err(up::runs_already(home));
    }
    let said = home.log("up-start");
    let mut child = spawn(global, home, options, &said)?;
    let state = tokio::select! {
        state = follow(&mut child, home, options, terminal, &said) => state?,
        _ = tokio::signal::ctrl_c() => {
            stop(&mut child).await;
            return Err(Failure::new(Exit::Interrupted, "stopped before it was ready"));
        }
    };
    if terminal.json {
        return terminal.data(&json!({
            "event": "ready",
            "url": state.url(),
            "model": state.model,
            "services": state.services,
            "pid": state.identity.pid,
            "key_file": home.client_key(),
        }));
    }
    terminal.note(&up::greeting(home, &state, "`ai-semble down` ends it"));
    Ok(())
}

/// This program again, with the same options, in the background.
fn spawn(global: &Global, home: &Home, options: &Up, said: &Path) -> Outcome<Child> {
    let own = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, "cannot tell where this program lies").because(error)
    })?;
    let log = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(said)
        .map_err(|error| Failure::file("open", said, error))?;
    let mut command = Command::new(own);
    command.arg("--home").arg(home.root()).args(["--json", "up", "--background"]);
    command.arg("--listen").arg(options.listen.to_string());
    command.arg("--ready-seconds").arg(options.ready_seconds.to_string());
    command.arg("--drain-seconds").arg(options.drain_seconds.to_string());
    if options.expose {
        command.arg("--expose");
    }
    for setting in &options.set {
        command.arg("--set").arg(setting);
    }
    let named = [("--bin-dir", &options.bin_dir), ("--catalog", &options.catalog.catalog)];
    for (option, path) in named {
        if let Some(path) = path {
            let path = std::path::absolute(path)
                .map_err(|error| Failure::file("make absolute", path, error))?;
            command.arg(option).arg(path);
        }
    }
    for model in &options.model {
        command.arg("--model").arg(model);
    }
    command.arg("--llm-instances").arg(options.llm_instances.to_string());
    if let Some(services) = &options.services {
        command.arg("--services").arg(services.join(","));
    }
    if global.quiet {
        command.arg("--quiet");
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        // The services' working directory is the home; nothing keeps another one busy.
        .current_dir(home.root())
        .spawn()
        .map_err(|error| {
            Failure::new(Exit::Failed, "cannot start in the background").because(error)
        })
}

async fn follow(
    child: &mut Child,
    home: &Home,
    options: &Up,
    terminal: Terminal,
    said: &Path,
) -> Outcome<UpState> {
    let pid = child.id().unwrap_or_default();
    let patience = Duration::from_secs(options.ready_seconds);
    let until = Instant::now() + patience;
    // First its state file, which tells the address; then readiness there.
    let state = loop {
        ended(child, said)?;
        match UpState::read(home)?.filter(|state| state.identity.pid == pid) {
            Some(state) => break state,
            None if Instant::now() >= until => {
                return Err(Failure::new(Exit::TryLater, "the start takes too long"));
            }
            None => tokio::time::sleep(ready::LOOK_EVERY).await,
        }
    };
    let mut config = ClientConfig::new(state.url(), None);
    config.retry = RetryPolicy::NEVER;
    config.deadline = ready::ANSWER_MAX;
    let client = Client::new(config)?;
    let wait = ready::Wait { client: &client, services: &state.services, patience };
    ready::wait(&wait, terminal, || ended(child, said)).await?;
    Ok(state)
}

/// An error when the process in the background has ended.
fn ended(child: &mut Child, said: &Path) -> Outcome<()> {
    let Ok(Some(status)) = child.try_wait() else { return Ok(()) };
    Err(complaint(said).unwrap_or_else(|| {
        Failure::new(Exit::Failed, format!("the process in the background ended ({status})"))
            .hint(format!("{} tells more", said.display()))
    }))
}

/// The failure that it reported as JSON.
fn complaint(said: &Path) -> Option<Failure> {
    let text = std::fs::read(said).ok()?;
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(COMPLAINT_BYTES_MAX)..])
        .into_owned();
    let error = text.lines().rev().find_map(|line| {
        serde_json::from_str::<serde_json::Value>(line).ok()?.get("error").cloned()
    })?;
    let code = error.get("exit_code")?.as_u64()?;
    let exit = Exit::ALL.into_iter().find(|exit| u64::from(exit.code()) == code)?;
    let mut failure = Failure::new(exit, error.get("message")?.as_str()?);
    let causes = error.get("causes").and_then(|causes| causes.as_array());
    let causes: Vec<_> = causes.into_iter().flatten().filter_map(|cause| cause.as_str()).collect();
    if !causes.is_empty() {
        failure = failure.because(causes.join(": "));
    }
    if let Some(hint) = error.get("hint").and_then(|hint| hint.as_str()) {
        failure = failure.hint(hint);
    }
    Some(failure)
}

async fn stop(child: &mut Child) {
    let identity = child.id().and_then(Identity::of);
    if identity.is_some_and(|who| who.signal(Signal::TERM)) {
        let _ = tokio::time::timeout(STOP_PATIENCE, child.wait()).await;
    }
}
