//! The targets: a name, inputs to begin with, words of the format, and what is done with an input.

mod files;
mod requests;
mod texts;

use std::cell::Cell;
use std::panic;

/// What became of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was valid.
    Taken,
    /// It was refused, with this reason.
    Refused(String),
    /// A library panicked where its caller expects that and goes on.
    Contained,
}

impl Answer {
    fn of<T, E: std::fmt::Display>(result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Taken,
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

/// Something that reads what outsiders wrote.
#[derive(Debug)]
pub struct Target {
    /// What the command line calls it.
    pub name: &'static str,
    /// Valid inputs, and such as are almost valid.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format.
    pub words: &'static [&'static str],
    /// Reads an input. It must come back, whatever the input is.
    pub run: fn(&[u8]) -> Answer,
}

/// Every target.
#[must_use]
pub fn all() -> Vec<&'static Target> {
    [&requests::TARGETS[..], &files::TARGETS[..], &texts::TARGETS[..]]
        .into_iter()
        .flatten()
        .collect()
}

thread_local! {
    static IN_LIBRARY: Cell<bool> = const { Cell::new(false) };
}

/// Says nothing of panics that [`contained`] expects, and notes where each began.
pub fn watch_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or("", panic::Location::file);
        let is_library = place.contains("/registry/") || place.contains("/rustc/");
        if !(is_library && IN_LIBRARY.get()) {
            usual(info);
        }
    }));
}

/// Runs something whose caller bears a panic, as the data processor does: a query has a process of
/// its own.
fn contained(run: impl FnOnce() -> Answer) -> Answer {
    IN_LIBRARY.set(true);
    let answer = panic::catch_unwind(panic::AssertUnwindSafe(run));
    IN_LIBRARY.set(false);
    answer.unwrap_or(Answer::Contained)
}
