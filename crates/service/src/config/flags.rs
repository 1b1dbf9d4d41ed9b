//! The flags of every service binary.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use super::{EXIT_USAGE, Sources};

/// Settings come, the later over the earlier, from: built-in defaults, the configuration file,
/// environment variables AISEMBLE_SECTION__KEY, and --set.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Flags {
    /// Configuration file [default: configs/SERVICE.toml, where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one key, e.g. --set log.level=debug; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the settings in force as TOML and exit
    #[arg(long)]
    pub print_config: bool,
    /// Check the settings and exit
    #[arg(long)]
    pub check: bool,
    /// Ask the service that runs with these settings whether it serves: exit 0 when it does, else 1
    #[arg(long)]
    pub health: bool,
}

impl Flags {
    /// Reads the flags of the process `ai-semble-NAME`. Help and version are printed here.
    ///
    /// # Errors
    /// The code to exit with: 0 after help, 64 for flags that do not exist.
    pub(crate) fn parse(
        name: &str,
        version: &'static str,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ExitCode> {
        let binary = format!("ai-semble-{name}");
        let command = Self::command().bin_name(&binary).display_name(binary).version(version);
        command
            .try_get_matches_from(args)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| {
                // A closed terminal is no reason to say anything else.
                let _ = error.print();
                if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
            })
    }

    /// The layers that these flags and the environment of the process give.
    pub(crate) fn sources(&self, name: &str) -> Sources {
        Sources {
            file: self.config.clone(),
            file_default: PathBuf::from(format!("configs/{name}.toml")),
            environment: std::env::vars_os().collect(),
            set: self.set.clone(),
        }
    }
}

/// Writes `text` for `--print-config`; a closed pipe is the reader's choice.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes `text` for a person, where no log is wanted.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
