//! The HTTP edge: routes, extraction, shapes of answers and errors, connections. The only part that
//! knows axum and status codes; what is allowed and done is decided in `app`.

mod completion;
mod correlate;
mod data;
mod docs;
mod door;
mod error;
mod extract;
mod files;
mod form;
mod guard;
mod health;
mod jobs;
mod nlp;
mod openapi;
mod router;
mod serve;
mod sse;
mod tei;
mod tokens;
mod upload;
mod v1;
mod vision;
mod workflows;

pub use openapi::document as openapi_document;
pub use router::{Access, access_table, router};
pub use serve::{Door, Listener};

/// Who answers the lines of batches: the app's own routes.
#[must_use]
pub fn lines(app: &std::sync::Arc<crate::app::App>) -> std::sync::Arc<dyn crate::workflow::Lines> {
    std::sync::Arc::new(v1::lines::Routes { app: std::sync::Arc::downgrade(app) })
}
