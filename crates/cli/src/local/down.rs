//! `ai-semble down`: ends what `up` started, after making sure that it is what `up` started.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::state::UpState;
use crate::args::{Down, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::process::Identity;
use crate::terminal::Terminal;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the kernel may take to bury what was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command. Nothing running is no error.
///
/// # Errors
/// When something does not end in time, or may not be ended by this user.
pub async fn run(global: &Global, options: Down, terminal: Terminal) -> Outcome<()> {
    let home = Home::named(global)?;
    let state = UpState::read(&home)?;
    let alive = state.as_ref().map(everybody).unwrap_or_default();
    if alive.is_empty() {
        let _ = std::fs::remove_file(home.up_state());
        terminal.note("Nothing runs");
        return if terminal.json { terminal.data(&json!({ "stopped": [] })) } else { Ok(()) };
    }
    let up = state.map(|state| state.identity);
    let patience = Duration::from_secs(options.timeout_seconds);
    match up.filter(Identity::is_alive) {
        // It ends its children in order.
        Some(up) => order(up, Signal::TERM)?,
        // It was killed; what it left behind is ended directly.
        None => alive.iter().try_for_each(|who| order(*who, Signal::TERM))?,
    }
    terminal.note("Waiting for running work to end");
    if !gone(&alive, patience).await {
        if !options.force {
            let message = format!("it still runs after {} s", options.timeout_seconds);
            return Err(Failure::new(Exit::TryLater, message)
                .hint("wait longer with --timeout-seconds, or kill it with --force"));
        }
        for who in &alive {
            let _ = who.signal(Signal::KILL);
        }
        if !gone(&alive, KILL_PATIENCE).await {
            return Err(Failure::new(Exit::Failed, "it cannot be killed"));
        }
    }
    let _ = std::fs::remove_file(home.up_state());
    terminal.note("Stopped");
    if terminal.json {
        let pids: Vec<_> = alive.iter().map(|who| who.pid).collect();
        return terminal.data(&json!({ "stopped": pids }));
    }
    Ok(())
}

/// `up` and its children, as far as they live.
fn everybody(state: &UpState) -> Vec<Identity> {
    let children = state.children.values().filter_map(|child| child.identity);
    std::iter::once(state.identity).chain(children).filter(Identity::is_alive).collect()
}

fn order(who: Identity, signal: Signal) -> Outcome<()> {
    if who.signal(signal) || !who.is_alive() {
        return Ok(());
    }
    Err(Failure::new(Exit::NotAllowed, format!("process {} cannot be signalled", who.pid))
        .hint("it was started by another user"))
}

async fn gone(who: &[Identity], patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while who.iter().any(Identity::is_alive) {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}
