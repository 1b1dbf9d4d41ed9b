//! What the end of a query's process means for its caller.

use aisemble_protocol::{ApiError, ErrorCode};

use crate::fork::Ending;
use crate::worker::{EXIT_NOT_STARTED, EXIT_OUT_OF_MEMORY};

/// When to ask again after a process was killed, milliseconds.
const KILLED_RETRY_MS: u64 = 500;

/// The limits that a query was held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) wall_ms: u64,
    pub(super) memory_bytes: u64,
    pub(super) output_bytes: u64,
    pub(super) cpu_s: u64,
}

/// The error of a query whose process ended without having said anything.
pub(super) fn explain(ending: Ending, held: Held) -> ApiError {
    if ending.code() == Some(EXIT_OUT_OF_MEMORY) {
        return out_of_memory(held);
    }
    match ending.signal() {
        // Not by us. With most of its memory taken: the kernel, whose machine had less than the
        // limit says; the same query would end so again.
        Some(libc::SIGKILL) if ending.memory_peak_bytes >= held.memory_bytes / 4 * 3 => {
            out_of_memory(held)
        }
        Some(libc::SIGKILL) => killed(),
        Some(libc::SIGXFSZ) => too_large(held),
        Some(libc::SIGXCPU) => {
            let limit = held.cpu_s;
            let message = format!("the query took more than {limit} s of processor time");
            ApiError::new(ErrorCode::Unprocessable, message).with_param("limits")
        }
        Some(signal) => {
            let message = format!(
                "the query crashed its process (signal {signal}): its data or the query meet a \
                 defect of polars; nothing else was harmed"
            );
            ApiError::new(ErrorCode::Unprocessable, message).with_param("query")
        }
        None => {
            let why = match ending.code() {
                Some(EXIT_NOT_STARTED) => "could not begin",
                Some(_) | None => "ended without an answer",
            };
            ApiError::new(ErrorCode::Internal, format!("the query's process {why}"))
        }
    }
}

pub(super) fn out_of_memory(held: Held) -> ApiError {
    let limit = held.memory_bytes;
    let message = format!("the query needs more memory than its limit of {limit} bytes");
    ApiError::new(ErrorCode::Unprocessable, message).with_param("limits.memory_bytes")
}

/// Ended by somebody else, or by a kernel that needed memory for others: it may be asked again.
fn killed() -> ApiError {
    let message = "the query's process was killed from outside; nothing of its output is left";
    ApiError::new(ErrorCode::Unavailable, message).with_retry_after_ms(KILLED_RETRY_MS)
}

pub(super) fn too_large(held: Held) -> ApiError {
    let limit = held.output_bytes;
    let message = format!("the output is larger than its limit of {limit} bytes");
    ApiError::new(ErrorCode::Unprocessable, message).with_param("limits.output_bytes")
}

pub(super) fn too_long(held: Held) -> ApiError {
    let limit = held.wall_ms;
    let message = format!("the query took longer than its limit of {limit} ms and was ended");
    ApiError::new(ErrorCode::Timeout, message).with_param("limits.wall_ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_process_has_its_sentence() {
        let held = Held { wall_ms: 1, memory_bytes: 2 << 20, output_bytes: 3 << 20, cpu_s: 4 };
        let check = |status: i32, code, sentence: &str| {
            let said = explain(Ending { status, memory_peak_bytes: 0 }, held);
            assert_eq!(said.code, code, "{}", said.message);
            assert!(said.message.contains(sentence), "{}", said.message);
        };
        let unprocessable = ErrorCode::Unprocessable;
        check(EXIT_OUT_OF_MEMORY << 8, unprocessable, "limit of 2097152 bytes");
        check(libc::SIGKILL, ErrorCode::Unavailable, "killed from outside");
        let full = Ending { status: libc::SIGKILL, memory_peak_bytes: 2 << 20 };
        assert_eq!(explain(full, held).param.as_deref(), Some("limits.memory_bytes"));
        check(libc::SIGXFSZ, unprocessable, "limit of 3145728 bytes");
        check(libc::SIGXCPU, unprocessable, "4 s of processor time");
        check(libc::SIGSEGV, unprocessable, "signal 11");
        check(EXIT_NOT_STARTED << 8, ErrorCode::Internal, "could not begin");
        check(0, ErrorCode::Internal, "without an answer");
    }
}
