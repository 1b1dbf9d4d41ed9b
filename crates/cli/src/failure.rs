//! What a command tells its user when it cannot do its work: a sentence, its cause, a hint, and an
//! exit code from a closed set.

use std::error::Error;
use std::fmt;
use std::path::Path;

use aisemble_client::ClientError;
use aisemble_protocol::ErrorCode;

/// Exit codes. They are part of the interface: `docs/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Nothing answers: Ai-semble does not run, or not there.
    NotRunning,
    /// The key is missing, wrong, or does not open this.
    NotAllowed,
    /// Full, not ready, or too slow: the same command may work later.
    TryLater,
    /// A digest is wrong, or a check found something to repair.
    CheckFailed,
    /// The user broke it off.
    Interrupted,
}

impl Exit {
    /// Every exit code but 0, for the reference page.
    pub const ALL: [Self; 7] = [
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::NotAllowed,
        Self::TryLater,
        Self::CheckFailed,
        Self::Interrupted,
    ];

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::NotAllowed => 4,
            Self::TryLater => 5,
            Self::CheckFailed => 6,
            Self::Interrupted => 130,
        }
    }

    /// What it means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Failed => "the command failed",
            Self::Usage => "the command line is wrong",
            Self::NotRunning => "nothing answers: Ai-semble does not run, or not at that address",
            Self::NotAllowed => "the API key is missing, wrong, or lacks the scope",
            Self::TryLater => "full, not ready or too slow; the same command may work later",
            Self::CheckFailed => "a digest is wrong, or a check found something to repair",
            Self::Interrupted => "broken off by the user",
        }
    }
}

/// Why a command ended without its work done.
#[derive(Debug)]
pub struct Failure {
    /// For scripts.
    pub exit: Exit,
    /// What could not be done.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a command gives.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure that says `message`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// `cannot DOING PATH`, with the system's reason.
    pub fn file(doing: &str, path: &Path, source: std::io::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot {doing} {}", path.display())).because(source)
    }

    /// The causes, outermost first.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source.as_deref().map(|source| source as &(dyn Error + 'static));
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes.dedup();
        causes
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (exit, hint) = judge(&error);
        let mut failure = Self::new(exit, error.to_string());
        failure.hint = hint;
        if let ClientError::Api { problem } = &error
            && let Some(id) = &problem.request_id
        {
            failure.message = format!("{} (request {id})", failure.message);
        }
        // Only the innermost cause says something that the sentence does not.
        let mut innermost = error.source();
        while let Some(deeper) = innermost.and_then(Error::source) {
            innermost = Some(deeper);
        }
        match innermost.map(ToString::to_string) {
            Some(cause) => failure.because(cause),
            None => failure,
        }
    }
}

/// The exit code and the advice for an error of the client.
fn judge(error: &ClientError) -> (Exit, Option<String>) {
    let say = |text: &str| Some(text.to_owned());
    let code = match error {
        ClientError::Connect { .. } => {
            return (
                Exit::NotRunning,
                say("start it with `ai-semble up --detach`, or name another address with --url"),
            );
        }
        ClientError::Transport { .. } | ClientError::StreamEnded { .. } => {
            return (Exit::TryLater, say("see whether it still runs: `ai-semble status`"));
        }
        ClientError::Deadline { .. } => return (Exit::TryLater, None),
        ClientError::Url { .. } => return (Exit::Usage, None),
        ClientError::Key => {
            return (Exit::Usage, say("the key file must hold one line, the key"));
        }
        ClientError::Decode { .. } | ClientError::TooLarge { .. } => {
            return (Exit::Failed, say("are the server and this command of the same version?"));
        }
        ClientError::Api { .. } => error.code(),
    };
    let Some(code) = code else { return (Exit::Failed, None) };
    match code {
        ErrorCode::Unauthenticated => (
            Exit::NotAllowed,
            say(
                "name the file that holds a key with --key-file; `ai-semble keys create` makes one",
            ),
        ),
        ErrorCode::Forbidden => (
            Exit::NotAllowed,
            say("make a key with the scope that it needs: `ai-semble keys create --scope ...`"),
        ),
        ErrorCode::Overloaded
        | ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::RequestTimeout => (
            Exit::TryLater,
            error
                .retry_after()
                .map(|wait| format!("come again in {} s", wait.as_secs().max(1)))
                .or_else(|| say("see what it is doing: `ai-semble status`")),
        ),
        ErrorCode::StorageFull => {
            (Exit::Failed, say("make room on the disk that holds the data directory"))
        }
        ErrorCode::Internal => {
            (Exit::Failed, say("the logs under logs/ in the home directory tell more"))
        }
        ErrorCode::InvalidRequest
        | ErrorCode::NotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Conflict
        | ErrorCode::PayloadTooLarge
        | ErrorCode::Unprocessable
        | ErrorCode::Cancelled => (Exit::Failed, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_documented() {
        let mut codes: Vec<_> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
        assert!(Exit::ALL.iter().all(|exit| !exit.meaning().is_empty()));
    }

    #[test]
    fn causes_are_told_once() {
        let error = std::io::Error::other("disk on fire");
        let failure = Failure::file("write", Path::new("/x"), error);
        assert_eq!(failure.to_string(), "cannot write /x");
        assert_eq!(failure.causes(), ["disk on fire"]);
    }
}
