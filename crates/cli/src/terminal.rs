//! Where text goes: data to stdout, everything else to stderr; progress only for a person.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{Exit, Failure, Outcome};

/// How this run talks.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// Data as JSON, for a program.
    pub json: bool,
    quiet: bool,
}

impl Terminal {
    /// With `json`, data is JSON; with `quiet`, notes and progress are left out.
    #[must_use]
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether a person sees stdout.
    #[must_use]
    pub fn stdout_is_terminal(self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// Data, one line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn line(self, text: &str) -> Outcome<()> {
        self.write(&format!("{text}\n"))
    }

    /// Data as it is, flushed.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn write(self, text: &str) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
            Failure::new(Exit::Failed, "cannot write to standard output").because(error)
        })
    }

    /// Data as one JSON value on one line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn data<T: serde::Serialize>(self, value: &T) -> Outcome<()> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(Exit::Failed, "cannot encode JSON").because(error))?;
        self.line(&text)
    }

    /// A table: each column as wide as its widest cell.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn table(self, head: &[&str], rows: &[Vec<String>]) -> Outcome<()> {
        self.write(&lay_out(head, rows))
    }

    /// A remark for the person who watches.
    pub fn note(self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// A remark that `--quiet` does not silence.
    pub fn warn(self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "warning: {text}");
    }

    /// A bar over `bytes`.
    #[must_use]
    pub fn bytes_bar(self, label: &str, bytes: u64) -> ProgressBar {
        let form = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        self.bar(label, bytes, form)
    }

    /// A bar in percent with a message.
    #[must_use]
    pub fn percent_bar(self, label: &str) -> ProgressBar {
        self.bar(label, 100, "{prefix} {bar:30} {pos:>3} % {msg}")
    }

    /// A bar over a number of things.
    #[must_use]
    pub fn count_bar(self, label: &str, count: u64) -> ProgressBar {
        self.bar(label, count, "{prefix} {bar:30} {pos}/{len} {eta}")
    }

    fn bar(self, label: &str, length: u64, form: &str) -> ProgressBar {
        let target = if self.quiet || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        };
        let style = ProgressStyle::with_template(form)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸ ");
        let bar = ProgressBar::with_draw_target(Some(length), target);
        bar.set_style(style);
        bar.set_prefix(label.to_owned());
        bar
    }
}

/// Tells a failure on stderr: for a person, or as JSON.
pub fn report_failure(failure: &Failure, json: bool) {
    let mut err = std::io::stderr().lock();
    let causes = failure.causes();
    // `... | head` closing the pipe early is no failure to talk about.
    if failure.message.contains("standard output") && causes.iter().any(|c| c.contains("pipe")) {
        return;
    }
    if json {
        let value = serde_json::json!({ "error": {
            "message": failure.message,
            "causes": causes,
            "hint": failure.hint,
            "exit_code": failure.exit.code(),
        }});
        let _ = writeln!(err, "{value}");
        return;
    }
    let _ = writeln!(err, "error: {}", failure.message);
    for cause in causes {
        let _ = writeln!(err, "  cause: {cause}");
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(err, "\nhint: {hint}");
    }
}

/// `4 min 5 s`, `3 h 2 min`, `12 d 3 h`: the two largest units.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// `98.4 MB`: decimal units.
#[must_use]
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        1_000_000_000.. => format!("{:.1} GB", value / 1e9),
    }
}

fn lay_out(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            let pad = width - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', pad + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_well() {
        let say = |seconds| span(Duration::from_secs(seconds));
        assert_eq!((say(5), say(65)), ("5 s".into(), "1 min 5 s".into()));
        assert_eq!((say(3 * 3600 + 120), say(90_000)), ("3 h 2 min".into(), "1 d 1 h".into()));
        assert_eq!((size(999), size(98_362_432)), ("999 B".into(), "98.4 MB".into()));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["é".to_owned(), "2".into()], vec!["long".into(), String::new()]];
        assert_eq!(lay_out(&["A", "B"], &rows), "A     B\né     2\nlong\n");
    }
}
