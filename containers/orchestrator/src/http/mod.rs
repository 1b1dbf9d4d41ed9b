//! The HTTP edge: routes, extraction, shapes of answers and errors, connections. The only part that
//! knows axum and status codes; what is allowed and done is decided in `app`.

mod completion;
mod correlate;
mod data;
mod docs;
mod door;
mod error;
mod extract;
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
mod v1;
mod vision;

pub use openapi::document as openapi_document;
pub use router::{Access, access_table, router};
pub use serve::{Door, Listener};
