//! The closed set of error codes and the one error type that crosses process boundaries.
//!
//! It knows nothing of HTTP: the orchestrator maps a code to a status in one file. The message of
//! an [`ApiError`] is public text; internal causes are logged where they happen and never put in
//! it.

use serde::{Deserialize, Serialize};

/// What went wrong, as a machine reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed, or a field has a wrong type or an impossible value.
    InvalidRequest,
    /// No key, or one that is unknown, expired or revoked.
    Unauthenticated,
    /// The key's scopes do not cover the route.
    Forbidden,
    /// No such job, model or route.
    NotFound,
    /// The method is not offered by the route.
    MethodNotAllowed,
    /// The state of the job does not allow it, or the same idempotency key is still being answered.
    Conflict,
    /// The body, prompt or file is over a limit.
    PayloadTooLarge,
    /// Well-formed, but cannot be done: prompt longer than the context, key reused for another
    /// body.
    Unprocessable,
    /// A queue is full. Carries when to come again.
    Overloaded,
    /// The request's own deadline passed.
    Timeout,
    /// The caller did not send its request in time.
    RequestTimeout,
    /// Cancelled on request.
    Cancelled,
    /// The service is not ready, or went away in the middle. Carries when to come again.
    Unavailable,
    /// The disk that holds jobs is full.
    StorageFull,
    /// A defect of ours.
    Internal,
}

impl ErrorCode {
    /// Every code, for documentation and tests.
    pub const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::Unprocessable,
        Self::Overloaded,
        Self::Timeout,
        Self::RequestTimeout,
        Self::Cancelled,
        Self::Unavailable,
        Self::StorageFull,
        Self::Internal,
    ];

    /// Whether the same request may succeed later, unchanged: what the job scheduler retries.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Overloaded | Self::Unavailable | Self::StorageFull | Self::Internal => true,
            Self::InvalidRequest
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::Unprocessable
            | Self::Timeout
            | Self::RequestTimeout
            | Self::Cancelled => false,
        }
    }

    /// The code as it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unprocessable => "unprocessable",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::RequestTimeout => "request_timeout",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::StorageFull => "storage_full",
            Self::Internal => "internal",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidRequest | Self::Unprocessable => tonic::Code::InvalidArgument,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::Forbidden => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::MethodNotAllowed => tonic::Code::Unimplemented,
            Self::Conflict => tonic::Code::Aborted,
            Self::PayloadTooLarge => tonic::Code::OutOfRange,
            Self::Overloaded | Self::StorageFull => tonic::Code::ResourceExhausted,
            Self::Timeout | Self::RequestTimeout => tonic::Code::DeadlineExceeded,
            Self::Cancelled => tonic::Code::Cancelled,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Internal => tonic::Code::Internal,
        }
    }
}

/// An error as a caller may read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong, for a machine.
    pub code: ErrorCode,
    /// One sentence that names the thing and the limit.
    pub message: String,
    /// The request's field that is at fault, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// When to come again, milliseconds; with `overloaded` and `unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    /// An error of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, retry_after_ms: None }
    }

    /// `invalid_request` on the field `param`.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message).with_param(param)
    }

    /// The same error, naming the field at fault.
    #[must_use]
    pub fn with_param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The same error, saying when to come again.
    #[must_use]
    pub fn with_retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

const CODE_KEY: &str = "aisemble-code";
const PARAM_KEY: &str = "aisemble-param";
const RETRY_KEY: &str = "aisemble-retry-after-ms";

impl From<ApiError> for tonic::Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.code.grpc(), error.message);
        let metadata = status.metadata_mut();
        metadata.insert(CODE_KEY, tonic::metadata::MetadataValue::from_static(error.code.as_str()));
        if let Some(value) = error.param.and_then(|param| param.parse().ok()) {
            metadata.insert(PARAM_KEY, value);
        }
        if let Some(ms) = error.retry_after_ms {
            metadata.insert(RETRY_KEY, ms.into());
        }
        status
    }
}

impl From<tonic::Status> for ApiError {
    /// A status of one of our services gives back the error it was made from. Any other is the
    /// transport's own, and its text may tell of internals: the caller gets a fixed sentence.
    fn from(status: tonic::Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        if let Some(code) = text(CODE_KEY).and_then(ErrorCode::parse) {
            return Self {
                code,
                message: status.message().to_owned(),
                param: text(PARAM_KEY).map(str::to_owned),
                retry_after_ms: text(RETRY_KEY).and_then(|ms| ms.parse().ok()),
            };
        }
        let (code, message) = match status.code() {
            tonic::Code::DeadlineExceeded => (ErrorCode::Timeout, "the deadline passed"),
            tonic::Code::Cancelled => (ErrorCode::Cancelled, "cancelled"),
            tonic::Code::ResourceExhausted => (ErrorCode::Overloaded, "the service is full"),
            tonic::Code::OutOfRange => (ErrorCode::PayloadTooLarge, "the message is too large"),
            tonic::Code::InvalidArgument => (ErrorCode::InvalidRequest, "the service refused it"),
            tonic::Code::Unimplemented => (ErrorCode::NotFound, "the service does not offer this"),
            tonic::Code::Unavailable | tonic::Code::Unknown => {
                (ErrorCode::Unavailable, "the service went away")
            }
            tonic::Code::Ok
            | tonic::Code::NotFound
            | tonic::Code::AlreadyExists
            | tonic::Code::PermissionDenied
            | tonic::Code::FailedPrecondition
            | tonic::Code::Aborted
            | tonic::Code::Internal
            | tonic::Code::DataLoss
            | tonic::Code::Unauthenticated => (ErrorCode::Internal, "the service failed"),
        };
        Self::new(code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_socket() {
        for code in ErrorCode::ALL {
            let sent =
                ApiError::new(code, "why").with_param("max_tokens").with_retry_after_ms(1500);
            assert_eq!(ApiError::from(tonic::Status::from(sent.clone())), sent);
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn the_transport_s_own_text_does_not_reach_the_caller() {
        let status = tonic::Status::unavailable("connect /run/secret/path.sock refused");
        let error = ApiError::from(status);
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(!error.message.contains("secret"));
    }
}
