//! `run/up.json`: what `up` tells the other commands about itself and its children.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::services::Running;
use super::supervise::ChildState;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, SECRET_MODE, write_atomically};
use crate::process::Identity;

const STATE_BYTES_MAX: u64 = 256 * 1024;

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpState {
    /// The `up` process.
    pub identity: Identity,
    /// `127.0.0.1:8080`.
    pub address: String,
    /// The first language model that is served; empty without one.
    pub model: String,
    /// Its file.
    pub model_file: String,
    /// The services by their processes' names.
    #[serde(default)]
    pub services: BTreeMap<String, Running>,
    /// Everything became ready once.
    pub ready: bool,
    /// Its processes by name.
    pub children: BTreeMap<String, ChildState>,
}

impl UpState {
    /// Where the HTTP API answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Names of all models that are served, each once.
    #[must_use]
    pub fn models(&self) -> Vec<String> {
        let names = self.services.values().flat_map(|service| service.models.clone());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What it serves, for a sentence: models of the llm by name, the other services by theirs.
    #[must_use]
    pub fn served(&self) -> String {
        let mut parts = BTreeSet::new();
        for service in self.services.values() {
            if service.service == "llm" {
                parts.extend(service.models.iter().cloned());
            } else {
                parts.insert(service.service.clone());
            }
        }
        parts.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// What the last `up` wrote, whether it still runs or not.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(home: &Home) -> Outcome<Option<Self>> {
        let path = home.up_state();
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &path, error)),
            Ok(data) if data.len() > STATE_BYTES_MAX => {
                return Err(Failure::new(Exit::Failed, format!("{} is too large", path.display())));
            }
            Ok(_) => {}
        }
        let text = std::fs::read(&path).map_err(|error| Failure::file("read", &path, error))?;
        let state = serde_json::from_slice(&text).map_err(|error| {
            let message = format!("{} is not readable", path.display());
            Failure::new(Exit::Failed, message)
                .because(error)
                .hint("if nothing runs, remove the file")
        })?;
        Ok(Some(state))
    }

    /// What runs now; none when `up` has ended.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn alive(home: &Home) -> Outcome<Option<Self>> {
        Ok(Self::read(home)?.filter(|state| state.identity.is_alive()))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, home: &Home) -> Outcome<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::new(Exit::Failed, "cannot encode JSON").because(error))?;
        write_atomically(&home.up_state(), &text, SECRET_MODE)
    }
}
