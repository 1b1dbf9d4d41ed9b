//! What a panic leaves in the log: where it happened, never what it said, for that may hold a
//! caller's data.

use std::panic::PanicHookInfo;

/// Sends panics to the log instead of, as text, to stderr.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        panic.location = location,
        thread.name = thread.name(),
        "a defect: this code panicked; what it said is left out, it may hold a caller's data"
    );
}
