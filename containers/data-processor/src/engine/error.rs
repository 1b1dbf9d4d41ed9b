//! What went wrong in a query, as its caller may read it. Paths of stored files never show.

use aisemble_protocol::{ApiError, ErrorCode};
use polars::error::PolarsError;

/// Bytes of a message at most.
const MESSAGE_BYTES_MAX: usize = 600;

/// A field of the request and what polars says about it.
pub(super) fn of_polars(param: &str, error: &PolarsError) -> ApiError {
    of_text(param, &error.to_string())
}

/// The same from a text, as a panic leaves it.
pub(crate) fn of_text(param: &str, text: &str) -> ApiError {
    let text = brief(text);
    if is_out_of_memory(&text) {
        return out_of_memory();
    }
    if is_disk_full(&text) {
        return disk_full();
    }
    ApiError::new(ErrorCode::Unprocessable, format!("{param}: {text}")).with_param(param)
}

/// The memory limit was met where polars asked politely.
pub(crate) fn out_of_memory() -> ApiError {
    let message = "the query needs more memory than it may have";
    ApiError::new(ErrorCode::Unprocessable, message).with_param("limits.memory_bytes")
}

/// The disk had no room for the output. Later it may have.
fn disk_full() -> ApiError {
    ApiError::new(ErrorCode::StorageFull, "the disk has no room for the output of the query")
}

/// A refusal of ours.
pub(super) fn refused(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Unprocessable, message).with_param(param)
}

fn is_out_of_memory(text: &str) -> bool {
    text.contains("Cannot allocate memory") || text.contains("os error 12")
}

fn is_disk_full(text: &str) -> bool {
    ["No space left on device", "os error 28)", "Disk quota exceeded", "os error 122)"]
        .iter()
        .any(|said| text.contains(said))
}

/// The first part of what polars says: it adds the plan, which names files, after an empty line.
fn brief(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    for word in first.split_whitespace() {
        // An absolute path is one of ours; nobody else's files can be seen from here.
        let is_path = word.trim_start_matches(['\'', '"', '`', '(', '[']).starts_with('/');
        words.push(if is_path && word.len() > 2 { "[file]".to_owned() } else { word.to_owned() });
    }
    let mut text = words.join(" ");
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_short_and_names_no_file() {
        let said = "no such column\n\nResolved plan until failure:\n\n/files/blobs/ab/cd";
        assert_eq!(of_text("sql", said).message, "sql: no such column");
        let said = "cannot read '/files/blobs/ab/abcd' as Parquet";
        assert_eq!(of_text("t", said).message, "t: cannot read [file] as Parquet");
        assert!(of_text("t", &"ä".repeat(5000)).message.len() < 700);
        let error = of_text("t", "mmap: Cannot allocate memory (os error 12)");
        assert_eq!(error.param.as_deref(), Some("limits.memory_bytes"));
        let error = of_text("query", "IO error: No space left on device (os error 28)");
        assert_eq!((error.code, error.param), (ErrorCode::StorageFull, None));
    }
}
