//! `/workflows`: check, submit, show, cancel, draw; and batches as OpenAI has them.

use aisemble_protocol::JobId;
use aisemble_protocol::workflow::{Validation, WorkflowRequest, WorkflowView};
use serde_json::Value;

use crate::completion::once;
use crate::error::ClientError;
use crate::http::{Call, Client};
use crate::jobs::escaped;

/// How a workflow is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// Mermaid text.
    Mermaid,
    /// Graphviz text.
    Dot,
}

impl Client {
    /// Checks a workflow and runs nothing.
    ///
    /// # Errors
    /// As any call; what is wrong with the workflow is in the answer.
    pub async fn validate_workflow(
        &self,
        request: &WorkflowRequest,
    ) -> Result<Validation, ClientError> {
        let call = Call::new(reqwest::Method::POST, "/workflows/validate").json(request)?;
        self.fetch(&call).await?.decode()
    }

    /// Submits a workflow and returns at once. Safe to repeat: a key that makes it unique is sent
    /// along, `idempotency` or a random one.
    ///
    /// # Errors
    /// As any call.
    pub async fn submit_workflow(
        &self,
        request: &WorkflowRequest,
        idempotency: Option<&str>,
    ) -> Result<WorkflowView, ClientError> {
        let call = Call::new(reqwest::Method::POST, "/workflows").json(request)?;
        self.fetch(&once(call, idempotency)).await?.decode()
    }

    /// The workflow and its steps.
    ///
    /// # Errors
    /// As any call; `not_found` for another key's workflow too.
    pub async fn workflow(&self, id: JobId) -> Result<WorkflowView, ClientError> {
        self.fetch(&Call::get(format!("/workflows/{id}"))).await?.decode()
    }

    /// Asks for the end of the workflow and of its steps.
    ///
    /// # Errors
    /// As any call; `conflict` when it has ended.
    pub async fn cancel_workflow(&self, id: JobId) -> Result<WorkflowView, ClientError> {
        self.fetch(&Call::new(reqwest::Method::DELETE, format!("/workflows/{id}"))).await?.decode()
    }

    /// The workflow as text of a drawing program, its steps with their states.
    ///
    /// # Errors
    /// As any call.
    pub async fn workflow_graph(&self, id: JobId, drawing: Drawing) -> Result<String, ClientError> {
        let format = match drawing {
            Drawing::Mermaid => "mermaid",
            Drawing::Dot => "dot",
        };
        let call = Call::get(format!("/workflows/{id}/graph?format={format}"));
        let answer = self.fetch(&call).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Makes a batch of the lines of an uploaded file.
    ///
    /// # Errors
    /// As any call.
    pub async fn create_batch(&self, file: &str, endpoint: &str) -> Result<Value, ClientError> {
        let body = serde_json::json!({
            "input_file_id": file, "endpoint": endpoint, "completion_window": "24h",
        });
        let call = Call::new(reqwest::Method::POST, "/v1/batches").json(&body)?;
        self.fetch(&once(call, None)).await?.decode()
    }

    /// The batch.
    ///
    /// # Errors
    /// As any call.
    pub async fn batch(&self, id: &str) -> Result<Value, ClientError> {
        self.fetch(&Call::get(format!("/v1/batches/{}", escaped(id)))).await?.decode()
    }

    /// The key's batches, newest first.
    ///
    /// # Errors
    /// As any call.
    pub async fn batches(&self, limit: u32) -> Result<Value, ClientError> {
        self.fetch(&Call::get(format!("/v1/batches?limit={limit}"))).await?.decode()
    }

    /// Asks for the batch's end; what is done stays.
    ///
    /// # Errors
    /// As any call.
    pub async fn cancel_batch(&self, id: &str) -> Result<Value, ClientError> {
        let path = format!("/v1/batches/{}/cancel", escaped(id));
        self.fetch(&Call::new(reqwest::Method::POST, path)).await?.decode()
    }
}
