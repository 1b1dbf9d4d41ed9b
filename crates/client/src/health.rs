//! `/health`, `/ready`, `/v1/models`, `/metrics`.

use std::collections::BTreeMap;

use aisemble_protocol::model::ModelList;
use serde::{Deserialize, Serialize};

use crate::error::ClientError;
use crate::http::{Call, Client};

/// What `/ready` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Every configured capability takes work.
    pub ready: bool,
    /// `llm`, `vision`, ...
    #[serde(default)]
    pub capabilities: BTreeMap<String, CapabilityReady>,
}

/// Whether one capability takes work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityReady {
    /// It does.
    pub ready: bool,
    /// Why not, or which model: `the model is loading, 43 %`.
    #[serde(default)]
    pub detail: serde_json::Value,
}

impl CapabilityReady {
    /// `detail` as a sentence; empty when there is none.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.detail {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other @ (serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_)) => other.to_string(),
        }
    }
}

impl Client {
    /// Whether the orchestrator is alive.
    ///
    /// # Errors
    /// When it does not answer, or not with 200.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.fetch(&Call::get("/health")).await.map(|_| ())
    }

    /// Which capabilities take work. `503` is an answer here, not an error.
    ///
    /// # Errors
    /// When the orchestrator does not answer, or answers something else.
    pub async fn ready(&self) -> Result<Ready, ClientError> {
        let mut call = Call::get("/ready");
        call.also_fine = Some(503);
        self.fetch(&call).await?.decode()
    }

    /// The models that are served.
    ///
    /// # Errors
    /// As any call.
    pub async fn models(&self) -> Result<ModelList, ClientError> {
        self.fetch(&Call::get("/v1/models")).await?.decode()
    }

    /// The metrics page, Prometheus text.
    ///
    /// # Errors
    /// As any call; the key needs the scope `metrics`.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let answer = self.fetch(&Call::get("/metrics")).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}
