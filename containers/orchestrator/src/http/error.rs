//! The only place that maps an error code to an HTTP status, and writes errors: RFC 9457 problems,
//! and OpenAI's shape under `/v1`.

use aisemble_protocol::{ApiError, ErrorCode, JobId};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::correlate::Ids;

/// Longest wait that `Retry-After` names: the official clients obey up to a minute.
const RETRY_AFTER_S_MAX: u64 = 60;
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error on its way out. Its body is written by [`with_body`], which knows where it goes.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    error: ApiError,
    /// The job that it is about.
    job: Option<JobId>,
    /// The job has ended: the same request would get the same answer.
    settled: bool,
}

impl Failure {
    /// The error that `job` ended with.
    pub(super) fn of_job(error: ApiError, job: JobId) -> Self {
        Self { error, job: Some(job), settled: true }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error, job: None, settled: false }
    }
}

/// What an answer carries until its body is written.
#[derive(Debug, Clone)]
struct Unwritten(ApiError);

/// The code that an answer's error had.
#[derive(Debug, Clone, Copy)]
struct Code(ErrorCode);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = status_of(self.error.code).into_response();
        let headers = response.headers_mut();
        retry_headers(headers, &self);
        if self.error.code == ErrorCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.error.code, ErrorCode::RequestTimeout | ErrorCode::PayloadTooLarge) {
            // The rest of the body is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(job) = self.job
            && let Ok(value) = HeaderValue::from_str(&format!("/jobs/{job}"))
        {
            headers.insert(header::LOCATION, value);
        }
        response.extensions_mut().insert(Unwritten(self.error));
        response
    }
}

fn retry_headers(headers: &mut HeaderMap, failure: &Failure) {
    if failure.settled {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        return;
    }
    match failure.error.retry_after_ms {
        Some(ms) => {
            let seconds = ms.div_ceil(1_000).clamp(1, RETRY_AFTER_S_MAX);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        // Official clients repeat every 409 unless they are told not to.
        None if failure.error.code == ErrorCode::Conflict => {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        None => {}
    }
}

/// The status of a code.
pub(super) fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Conflict | ErrorCode::Cancelled => StatusCode::CONFLICT,
        ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) ids: Ids,
}

impl Place {
    fn is_openai(&self) -> bool {
        self.path == "/v1" || self.path.starts_with("/v1/")
    }
}

/// Writes the body of an error, if the answer is one.
pub(super) fn with_body(mut response: Response, place: &Place) -> Response {
    let Some(Unwritten(error)) = response.extensions_mut().remove::<Unwritten>() else {
        return response;
    };
    response.extensions_mut().insert(Code(error.code));
    let (body, content_type) = if place.is_openai() {
        if error.code == ErrorCode::Unprocessable {
            // What OpenAI answers to a prompt longer than the context, and to what it cannot do.
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        (serde_json::to_vec(&OpenAiError::new(&error)), "application/json")
    } else {
        (serde_json::to_vec(&Problem::new(&error, place)), "application/problem+json")
    };
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Plain strings and numbers: they can always be written.
    *response.body_mut() = Body::from(body.unwrap_or_default());
    response
}

/// The code of the error that an answer is, if it is one.
pub(super) fn code_of(response: &Response) -> Option<ErrorCode> {
    response.extensions().get::<Code>().map(|code| code.0)
}

/// An error, as RFC 9457 has it (`application/problem+json`).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Kind of the problem: `urn:ai-semble:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened, in one sentence that helps.
    detail: String,
    /// For a machine.
    code: ErrorCode,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    /// Milliseconds after which to come again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// The request's id: what the log has it under.
    request_id: String,
    /// The path that was asked.
    instance: String,
}

impl Problem {
    pub(super) fn new(error: &ApiError, place: &Place) -> Self {
        Self {
            kind: format!("urn:ai-semble:problem:{}", error.code.as_str()),
            title: title_of(error.code),
            status: status_of(error.code).as_u16(),
            detail: error.message.clone(),
            code: error.code,
            param: error.param.clone(),
            retry_after_ms: error.retry_after_ms,
            request_id: place.ids.request_id.clone(),
            instance: place.path.clone(),
        }
    }
}

fn title_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => "The request is not valid",
        ErrorCode::Unauthenticated => "No live API key",
        ErrorCode::Forbidden => "The API key does not open this",
        ErrorCode::NotFound => "Not found",
        ErrorCode::MethodNotAllowed => "The route does not offer this method",
        ErrorCode::Conflict => "The state of the job does not allow this",
        ErrorCode::PayloadTooLarge => "Too large",
        ErrorCode::Unprocessable => "Well-formed, but cannot be done",
        ErrorCode::Overloaded => "Full",
        ErrorCode::Timeout => "The deadline passed",
        ErrorCode::RequestTimeout => "The request did not come in time",
        ErrorCode::Cancelled => "Cancelled",
        ErrorCode::Unavailable => "The service does not take work now",
        ErrorCode::StorageFull => "The disk is full",
        ErrorCode::Internal => "A defect of ours",
    }
}

/// An error, as OpenAI's clients expect it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct OpenAiError {
    error: OpenAiErrorBody,
}

/// What is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct OpenAiErrorBody {
    /// One sentence that helps.
    message: String,
    /// The kind.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The parameter at fault.
    param: Option<String>,
    /// For a machine.
    code: Option<&'static str>,
}

impl OpenAiError {
    pub(super) fn new(error: &ApiError) -> Self {
        let (kind, code) = openai_names(error);
        let (message, param) = (error.message.clone(), error.param.clone());
        Self { error: OpenAiErrorBody { message, kind, param, code } }
    }
}

fn openai_names(error: &ApiError) -> (&'static str, Option<&'static str>) {
    const INVALID: &str = "invalid_request_error";
    match error.code {
        ErrorCode::InvalidRequest => (INVALID, None),
        ErrorCode::Unauthenticated => ("authentication_error", Some("invalid_api_key")),
        ErrorCode::Forbidden => ("permission_error", Some("insufficient_permissions")),
        ErrorCode::NotFound if error.param.as_deref() == Some("model") => {
            (INVALID, Some("model_not_found"))
        }
        ErrorCode::NotFound => (INVALID, Some("not_found")),
        ErrorCode::MethodNotAllowed => (INVALID, Some("method_not_supported")),
        ErrorCode::Conflict => (INVALID, Some("conflict")),
        ErrorCode::PayloadTooLarge => (INVALID, Some("payload_too_large")),
        ErrorCode::Unprocessable if error.param.is_none() => {
            (INVALID, Some("context_length_exceeded"))
        }
        ErrorCode::Unprocessable => (INVALID, None),
        ErrorCode::Overloaded => ("rate_limit_error", Some("rate_limit_exceeded")),
        ErrorCode::Timeout => ("server_error", Some("timeout")),
        ErrorCode::RequestTimeout => (INVALID, Some("request_timeout")),
        ErrorCode::Cancelled => (INVALID, Some("cancelled")),
        ErrorCode::Unavailable => ("server_error", Some("service_unavailable")),
        ErrorCode::StorageFull => ("server_error", Some("storage_full")),
        ErrorCode::Internal => ("server_error", Some("internal_error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_an_error_status_and_retry_after_is_within_a_minute() {
        for code in ErrorCode::ALL {
            assert!(status_of(code).as_u16() >= 400, "{code:?}");
            assert!(!title_of(code).is_empty());
            let error = ApiError::new(code, "why").with_retry_after_ms(3_600_000);
            let response = Failure::from(error).into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], "60", "{code:?}");
        }
    }

    #[test]
    fn a_settled_failure_is_not_to_be_repeated() {
        let error = ApiError::new(ErrorCode::Unavailable, "why").with_retry_after_ms(1);
        let response = Failure::of_job(error, JobId::generate()).into_response();
        assert_eq!(response.headers()[SHOULD_RETRY], "false");
        assert!(response.headers().get(header::RETRY_AFTER).is_none());
    }
}
