//! What `up` says while it runs: on the terminal, or in its own bounded log when it is in the
//! background.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::logs::BoundedLog;
use crate::terminal::Terminal;

/// Where notices go. Clones share it.
#[derive(Debug, Clone)]
pub struct Notices {
    sink: Arc<Sink>,
}

#[derive(Debug)]
enum Sink {
    Terminal(Terminal),
    Log(Mutex<BoundedLog>),
}

impl Notices {
    /// For a person.
    #[must_use]
    pub fn on(terminal: Terminal) -> Self {
        Self { sink: Arc::new(Sink::Terminal(terminal)) }
    }

    /// For later.
    #[must_use]
    pub fn into_log(log: BoundedLog) -> Self {
        Self { sink: Arc::new(Sink::Log(Mutex::new(log))) }
    }

    /// Says it.
    pub fn say(&self, text: &str) {
        match &*self.sink {
            Sink::Terminal(terminal) => terminal.note(text),
            Sink::Log(log) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let line =
                    serde_json::json!({ "at_ms": since.as_millis() as u64, "message": text });
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                // There is nobody to tell when the disk is full.
                let _ = log.line(line.to_string().as_bytes());
            }
        }
    }
}
