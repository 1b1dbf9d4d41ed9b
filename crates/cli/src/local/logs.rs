//! A log file that stays bounded, and the one-line summary of a JSON log line that a person sees.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a log file; the one before it is kept as `NAME.log.1`.
pub const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of one line; the rest of a longer one is dropped.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
const SUMMARY_CHARS_MAX: usize = 240;
/// How far back the last summary is looked for.
const TAIL_BYTES: u64 = 64 * 1024;

/// A file that turns over when it is full.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl BoundedLog {
    /// Opens the log at `path`, to go on at its end.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, bytes_max: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn line(&mut self, line: &[u8]) -> std::io::Result<()> {
        let line = &line[..line.len().min(LINE_BYTES_MAX)];
        if self.bytes > 0 && self.bytes + line.len() as u64 + 1 > self.bytes_max {
            self.turn_over()?;
        }
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        self.file.write_all(&whole)?;
        self.bytes += whole.len() as u64;
        Ok(())
    }

    fn turn_over(&mut self) -> std::io::Result<()> {
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        fs::rename(&self.path, before)?;
        *self = Self::open(&self.path, self.bytes_max)?;
        Ok(())
    }
}

/// Splits bytes into lines of bounded length.
#[derive(Debug, Default)]
pub struct Lines {
    kept: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes; `each` hears every line that they complete, without its end.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            each(&self.kept);
            self.kept.clear();
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    /// What came after the last line end.
    pub fn finish(self, mut each: impl FnMut(&[u8])) {
        if !self.kept.is_empty() {
            each(&self.kept);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// What a person should see of a log line: warnings and errors. A line that is no JSON (a panic
/// before logging began, a message of the dynamic linker) is shown as it is.
#[must_use]
pub fn summary(line: &[u8]) -> Option<String> {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
        let text = String::from_utf8_lossy(line);
        return Some(printable(text.trim())).filter(|text| !text.is_empty());
    };
    let text =
        |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(str::to_owned);
    let level = text(value.get("level"))?.to_ascii_uppercase();
    if !matches!(level.as_str(), "WARN" | "ERROR") {
        return None;
    }
    let fields = value.get("fields").unwrap_or(&value);
    let message = text(fields.get("message")).or_else(|| text(value.get("message")))?;
    let error = text(fields.get("error")).or_else(|| text(value.get("error.cause")));
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    Some(printable(&format!("{level} {message}{error}")))
}

/// The last thing in a log that a person should see.
#[must_use]
pub fn last_summary(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    tail.split(|byte| *byte == b'\n').rev().find_map(summary)
}

/// No control characters: a log line must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SUMMARY_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_log_turns_over_and_two_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("llm.log");
        let mut log = BoundedLog::open(&path, 100).unwrap();
        for number in 0..50 {
            log.line(format!("line {number:02} of many").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 100 && text.ends_with("line 49 of many\n"));
        let mut again = BoundedLog::open(&path, 100).unwrap();
        again.line(b"after a restart").unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= 100);
    }

    #[test]
    fn warnings_are_summed_up_and_the_rest_is_not() {
        let check = |line: &str, expect: Option<&str>| {
            assert_eq!(summary(line.as_bytes()).as_deref(), expect, "{line}");
        };
        check(r#"{"level":"INFO","fields":{"message":"ready"}}"#, None);
        check(
            r#"{"level":"WARN","fields":{"message":"slow","error":"disk"}}"#,
            Some("WARN slow: disk"),
        );
        check(r#"{"level":"ERROR","message":"flat"}"#, Some("ERROR flat"));
        // As our services write it.
        check(
            r#"{"ts":"t","level":"error","message":"not started","error.cause":"no key"}"#,
            Some("ERROR not started: no key"),
        );
        check("thread main panicked\u{1b}[31m", Some("thread main panicked[31m"));
        check("", None);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines(
            text in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..200
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let read = |pieces: &[&[u8]]| {
                let (mut lines, mut found) = (Lines::default(), Vec::new());
                for piece in pieces {
                    lines.push(piece, |line| found.push(line.to_vec()));
                }
                lines.finish(|line| found.push(line.to_vec()));
                found
            };
            let at = cut.index(text.len() + 1);
            prop_assert_eq!(read(&[&text]), read(&[&text[..at], &text[at..]]));
            let _ = summary(&text);
        }
    }
}
