//! `ai-semble doctor`: looks at the machine, the home and the running processes, and says for each
//! finding what repairs it. It changes nothing.

mod gpu;
mod host;
mod place;
mod running;

use serde::Serialize;

use crate::args::{Doctor, Global};
use crate::catalog::Catalog;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::local::state::UpState;
use crate::terminal::Terminal;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Will not work, or is not safe.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: String,
    /// How it is.
    pub level: Level,
    /// What was seen.
    pub observed: String,
    /// What repairs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(name: impl Into<String>, observed: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Ok, observed: observed.into(), fix: None }
    }

    pub(crate) fn warn(
        name: impl Into<String>,
        observed: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let fix = Some(fix.into());
        Self { name: name.into(), level: Level::Warn, observed: observed.into(), fix }
    }

    pub(crate) fn fail(
        name: impl Into<String>,
        observed: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, ..Self::warn(name, observed, fix) }
    }
}

/// Runs the command.
///
/// # Errors
/// `CheckFailed` when something is in the way of running safely.
pub async fn run(global: &Global, options: Doctor, terminal: Terminal) -> Outcome<()> {
    let home = Home::named(global)?;
    let catalog = Catalog::load(options.catalog.catalog.as_deref())?;
    let state = UpState::alive(&home)?;
    let mut findings = host::look();
    findings.extend(gpu::look());
    findings.extend(place::look(&home, &catalog, &options, terminal));
    match &state {
        Some(state) => findings.extend(running::look(&home, state).await),
        None => {
            findings
                .push(Finding::ok("processes", "nothing runs (start it: `ai-semble up --detach`)"));
            findings.push(place::port(options.listen));
        }
    }
    report(&findings, terminal)?;
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::CheckFailed, format!("{failed} of {} checks failed", findings.len()))
        .hint("each finding above says what repairs it"))
}

fn report(findings: &[Finding], terminal: Terminal) -> Outcome<()> {
    if terminal.json {
        return findings.iter().try_for_each(|finding| terminal.data(finding));
    }
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        terminal.line(&format!("{mark}  {}: {}", finding.name, finding.observed))?;
        if let Some(fix) = &finding.fix {
            terminal.line(&format!("      fix: {fix}"))?;
        }
    }
    Ok(())
}
