//! The first steps of every process, up to configuration and logs, and the error that ends a start.
//!
//! It must not make a thread: confinement comes after it.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::config::{self, ConfigError, EXIT_CONFIG, Flags, LogConfig, ServiceConfig};
use crate::memory::Memory;
use crate::notify::Notifier;
use crate::{health, panics, telemetry};

/// A process that has its configuration and its logs, and nothing else yet.
#[derive(Debug)]
pub struct Started<C> {
    /// The settings in force.
    pub config: C,
    /// When the process began.
    pub started_at: Instant,
    /// How much memory it has; opened now, because the sandbox takes `/proc` away.
    pub memory: Memory,
    /// The service manager, if one wants to hear when we are ready; connected now for the same
    /// reason.
    pub notifier: Option<Notifier>,
}

/// Reads flags and configuration, starts the logs. `name` is the service's (`llm`), `version` its
/// binary's. To be called first in `main`, before any thread exists.
///
/// # Errors
/// The code to end with: 0 after `--help`, `--version`, `--print-config`, `--check`, and `--health`
/// when the service serves; 64 for unknown flags; 78 for a wrong configuration; 1 when the kernel
/// refuses something. What is wrong has been said.
pub fn start<C: ServiceConfig>(
    name: &'static str,
    version: &'static str,
) -> Result<Started<C>, ExitCode> {
    start_from(name, version, std::env::args_os())
}

/// The same with other arguments than the process's own; the first is the program.
///
/// # Errors
/// As [`start`].
pub fn start_from<C: ServiceConfig>(
    name: &'static str,
    version: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Started<C>, ExitCode> {
    let started_at = Instant::now();
    let flags = Flags::parse(name, version, arguments)?;
    let loaded = config::load::<C>(&flags.sources(name));
    if flags.print_config || flags.check {
        return Err(answer(&flags, loaded.map(|loaded| loaded.config)));
    }
    if flags.health {
        return Err(match loaded {
            Ok(loaded) => match loaded.config.health_http_socket() {
                Some(socket) => health::ask_http(socket),
                None => health::ask(name, loaded.config.health_socket()),
            },
            Err(error) => StartError::from(error).log(),
        });
    }
    let log = loaded.as_ref().map_or(LogConfig::default(), |loaded| loaded.config.log().clone());
    telemetry::install(name, version, &log);
    panics::install_hook();
    let loaded = loaded.map_err(|error| StartError::from(error).log())?;
    let file = loaded.file.map_or("none".to_owned(), |path: PathBuf| path.display().to_string());
    tracing::info!(config.file = file, process.pid = std::process::id(), "starting");
    let memory = Memory::open().map_err(|source| {
        StartError::failed("/proc/self/statm cannot be opened").with_source(source).log()
    })?;
    let notifier = Notifier::from_environment().map_err(|error| {
        StartError::config("the service manager cannot be notified")
            .with_source(error)
            .with_hint("unset NOTIFY_SOCKET when no service manager listens there")
            .log()
    })?;
    Ok(Started { config: loaded.config, started_at, memory, notifier })
}

/// Answers `--print-config` and `--check`, in words for a person.
fn answer<C: ServiceConfig>(flags: &Flags, loaded: Result<C, ConfigError>) -> ExitCode {
    let text = loaded.map_err(|error| chain(&error)).and_then(|config| {
        toml::to_string_pretty(&config)
            .map_err(|error| format!("not to be written as TOML: {error}"))
    });
    match text {
        Ok(text) => {
            config::print(if flags.print_config { &text } else { "the configuration is valid\n" });
            ExitCode::SUCCESS
        }
        Err(text) => {
            config::complain(&format!("error: {text}\n"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Why a process did not start: a sentence, what to do about it, and how to end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    message: String,
    hint: Option<String>,
    exit_code: u8,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StartError {
    /// Something in the configuration, or in the files that it names, is wrong: a model file that
    /// is missing, has another digest, or cannot be read as one. Starting again does not help; the
    /// exit code is 78.
    pub fn config(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_CONFIG, source: None }
    }

    /// The machine or the program failed: out of memory, a refused system call, a warm-up with a
    /// wrong output. The exit code is 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: 1, source: None }
    }

    /// The same error, with a sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error, with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// How the process ends: 78 for configuration, 1 for the rest.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Logs the error as one line and gives the code to end with.
    #[must_use]
    pub fn log(self) -> ExitCode {
        let cause = self.source.as_deref().map(|source| chain(source));
        tracing::error!(
            error.cause = cause,
            hint = self.hint,
            exit.code = self.exit_code,
            "not started: {}",
            self.message
        );
        ExitCode::from(self.exit_code)
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::config(chain(&error))
            .with_hint("--check checks the settings, --print-config shows those in force")
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
