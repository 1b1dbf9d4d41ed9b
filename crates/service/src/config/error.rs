//! What can be wrong with a configuration, said so that one knows where to look and what to write.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program itself.
    Defaults,
    /// A file.
    File(PathBuf),
    /// An environment variable of that name.
    Variable(String),
    /// A flag `--set`, with its key.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("built-in defaults"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

/// A configuration that the process does not start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that nothing reads.
    #[error("{origin}: unknown key `{key}`; {}", allowed_text(.allowed))]
    Unknown {
        /// Where it was given.
        origin: Origin,
        /// The key, dotted.
        key: String,
        /// The keys that its section has.
        allowed: Vec<String>,
    },
    /// A value of a wrong type, or one that cannot be.
    #[error("{origin}: `{key}`: {reason}")]
    Invalid {
        /// Where it was given.
        origin: Origin,
        /// The key, dotted.
        key: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A secret is given in the open.
    #[error(
        "{origin}: `{key}`: a secret is given only as the path of a file (mode 0400), in a key \
         that ends with `_file`"
    )]
    SecretInTheOpen {
        /// Where it was given.
        origin: Origin,
        /// The key, dotted.
        key: String,
    },
    /// The file cannot be read.
    #[error("{}: the configuration file cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file, or what the environment and the flags give, is over a limit.
    #[error("{origin}: {what} at most {max} are allowed")]
    TooLarge {
        /// Where it was given.
        origin: Origin,
        /// What is over the limit, and how large it is.
        what: String,
        /// The limit, in `what`'s unit.
        max: usize,
    },
    /// The file is not TOML.
    #[error("{}: not TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A variable or a flag whose name or text cannot be a setting.
    #[error("{origin}: {reason}")]
    Malformed {
        /// Where it was given.
        origin: Origin,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

fn allowed_text(allowed: &[String]) -> String {
    if allowed.is_empty() {
        return "nothing is allowed there".to_owned();
    }
    format!("allowed there: {}", allowed.join(", "))
}
