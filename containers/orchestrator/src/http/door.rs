//! The door of every kind of work: the request becomes a job, and the caller gets the job at once,
//! or its result when `Prefer: wait=N` allows, or events as they come.

use std::sync::Arc;
use std::time::Duration;

use aisemble_protocol::job::JobView;
use axum::Json as Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::correlate::Ids;
use super::error::{Failure, Place};
use super::extract::Delivery;
use super::sse;
use crate::app::{Accepted, App, Ended, Origin, Patience, Progress};
use crate::work::Work;

/// Takes a request in as a job and answers as its caller wishes.
///
/// # Errors
/// As [`App::submit`]; a job that was waited for gives its own error.
pub(super) async fn enter<W: Work>(
    app: &Arc<App>,
    origin: Origin,
    delivery: Delivery,
    path: &str,
    request: W::Request,
) -> Result<Response, Failure> {
    let delivery = delivery.or_stream(W::streams(&request));
    let patience = match delivery {
        Delivery::Job => Patience::Later,
        Delivery::Wait(_) => Patience::Waits,
        Delivery::Stream => Patience::Follows,
    };
    let accepted = app.submit::<W>(&origin, request, patience).await?;
    let ids = Ids { request_id: origin.request_id, trace: origin.trace };
    deliver(app, accepted, delivery, Place { path: path.to_owned(), ids }).await
}

async fn deliver(
    app: &Arc<App>,
    accepted: Accepted,
    delivery: Delivery,
    place: Place,
) -> Result<Response, Failure> {
    let headers = headers(&accepted);
    let response = match delivery {
        Delivery::Job => (StatusCode::ACCEPTED, Body(accepted.view)).into_response(),
        Delivery::Wait(time) => waited(app, accepted.view, time).await?,
        Delivery::Stream => {
            sse::progress(app, Progress::new(Arc::clone(app), accepted.view), place)
        }
    };
    Ok((headers, response).into_response())
}

async fn waited(app: &App, view: JobView, time: Duration) -> Result<Response, Failure> {
    let id = view.id;
    let mut response = match app.wait(id, time).await? {
        Ended::Result(result) => json(result),
        Ended::NotYet(view) => (StatusCode::ACCEPTED, Body(view)).into_response(),
        Ended::Error(error) => return Err(Failure::of_job(error, id)),
    };
    if let Ok(value) = HeaderValue::from_str(&format!("wait={}", time.as_secs())) {
        response.headers_mut().insert("preference-applied", value);
    }
    Ok(response)
}

/// An answer of JSON that is written already.
pub(super) fn json(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

fn headers(accepted: &Accepted) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("/jobs/{}", accepted.view.id)) {
        headers.insert(header::LOCATION, value);
    }
    if accepted.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    headers
}
