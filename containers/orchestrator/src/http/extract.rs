//! Extractors: JSON bodies within their limits and in time, job ids, queries, and how the caller
//! wants the answer. Each refusal says what is wrong and what is allowed.

use std::sync::Arc;
use std::time::Duration;

use aisemble_protocol::{ApiError, ErrorCode, JobId, limits};
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::error::Failure;
use crate::app::{App, Origin};

/// What is read and thrown away of a body that is too large, so that the client sees the answer and
/// not a broken connection.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// And for how long.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// The caller and the request's ids, as the guard found them.
pub(super) struct From(pub(super) Origin);

impl FromRequestParts<Arc<App>> for From {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Failure> {
        // Every route whose handler asks for it needs a key, so the guard has put it there.
        let missing = || ApiError::new(ErrorCode::Unauthenticated, "an API key is needed");
        parts.extensions.get::<Origin>().cloned().map(Self).ok_or_else(|| missing().into())
    }
}

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        check_json(content_type.map(|value| value.to_str().unwrap_or_default()))?;
        let bytes = body(request, app.limits.body_max(), limits::BODY_BYTES_MAX).await?;
        Ok(Self(parse(&bytes)?))
    }
}

/// Checks that a body of this content type is JSON; none is.
///
/// # Errors
/// `invalid_request`.
pub(super) fn check_json(content_type: Option<&str>) -> Result<(), ApiError> {
    let is_json = content_type.is_none_or(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json" || essence.ends_with("+json")
    });
    if is_json {
        return Ok(());
    }
    let message = "the body's content-type must be application/json";
    Err(ApiError::invalid("content-type", message))
}

/// Parses a JSON object; the error names the field and the place.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let message = match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => None,
        Some(_) => Some("the body is not valid: it must be a JSON object"),
        None => Some("the body is empty; send a JSON object"),
    };
    if let Some(message) = message {
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        field_error(&path, &error.into_inner().to_string())
    })?;
    let trailing = |error: serde_json::Error| {
        ApiError::new(ErrorCode::InvalidRequest, format!("the body is not one JSON value: {error}"))
    };
    deserializer.end().map_err(trailing)?;
    Ok(parsed)
}

/// `invalid_request` on the field at `path` (`.` for the whole).
pub(super) fn field_error(path: &str, reason: &str) -> ApiError {
    if path == "." || path == "?" {
        return ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body is not valid: {reason}"),
        );
    }
    ApiError::invalid(path, format!("{path}: {reason}"))
}

/// Reads a body: at most `bytes_max`, within `patience`.
///
/// # Errors
/// `payload_too_large`; `request_timeout`; `invalid_request` when it breaks off.
pub(super) async fn body(
    request: Request,
    patience: Duration,
    bytes_max: usize,
) -> Result<Bytes, ApiError> {
    let awaits_continue = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > bytes_max {
        // A client that waits for "100 Continue" sends nothing after this answer.
        if !awaits_continue {
            discard(body).await;
        }
        return Err(too_large(bytes_max));
    }
    tokio::time::timeout(patience, read(body, bytes_max)).await.unwrap_or_else(|_| {
        let ms = patience.as_millis();
        let message = format!("the body did not come within {ms} ms");
        Err(ApiError::new(ErrorCode::RequestTimeout, message))
    })
}

async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| ApiError::new(ErrorCode::InvalidRequest, "the body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            discard(body).await;
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES_MAX;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Past it, the client gets the answer or a closed connection: it was told its limit.
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, all).await;
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(ErrorCode::PayloadTooLarge, format!("the body is over {bytes_max} bytes"))
}

/// The `{id}` of a path.
pub(super) struct Id(pub(super) JobId);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let malformed = || ApiError::invalid("id", "the job's id is not a UUID");
        let Path(text) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| malformed())?;
        Ok(Self(text.parse().map_err(|_| malformed())?))
    }
}

/// The query, refused by name when it has a parameter that is not known or not as it should be.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let OriginalUri(uri) = OriginalUri::from_request_parts(parts, app)
            .await
            .unwrap_or_else(|never| match never {});
        let query = Query::<T>::try_from_uri(&uri).map_err(|error| {
            ApiError::new(ErrorCode::InvalidRequest, format!("the query is not valid: {error}"))
        })?;
        Ok(Self(query.0))
    }
}

/// How the caller wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// At once: the job.
    Job,
    /// The result, if it is there within this time.
    Wait(Duration),
    /// Events.
    Stream,
}

impl Delivery {
    /// The same, or events when the body asks for them.
    pub(super) fn or_stream(self, stream: bool) -> Self {
        if stream { Self::Stream } else { self }
    }
}

impl FromRequestParts<Arc<App>> for Delivery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Failure> {
        Ok(delivery(&parts.headers)?)
    }
}

fn delivery(headers: &HeaderMap) -> Result<Delivery, ApiError> {
    let texts = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let accepts_events = texts(header::ACCEPT)
        .flat_map(|text| text.split(','))
        .any(|range| range.split(';').next().unwrap_or_default().trim() == "text/event-stream");
    if accepts_events {
        return Ok(Delivery::Stream);
    }
    let mut preferences = texts(header::HeaderName::from_static("prefer"))
        .flat_map(|text| text.split([',', ';']))
        .map(str::trim);
    let wait = preferences.find_map(|one| {
        let (name, value) = one.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    });
    let Some(wait) = wait else { return Ok(Delivery::Job) };
    let malformed = || ApiError::invalid("Prefer", "Prefer: wait=N takes N in whole seconds");
    let seconds: u64 = wait.parse().map_err(|_| malformed())?;
    match seconds.min(limits::PREFER_WAIT_S_MAX) {
        0 => Ok(Delivery::Job),
        seconds => Ok(Delivery::Wait(Duration::from_secs(seconds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: Option<Delivery>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        assert_eq!(delivery(&map).ok(), expected, "{headers:?}");
    }

    #[test]
    fn the_caller_says_how_the_answer_comes() {
        let wait = |seconds| Some(Delivery::Wait(Duration::from_secs(seconds)));
        check(&[], Some(Delivery::Job));
        check(&[("prefer", "wait=10")], wait(10));
        check(&[("prefer", "respond-async, Wait = \"5\"")], wait(5));
        check(&[("prefer", "handling=strict"), ("prefer", "wait=7")], wait(7));
        check(&[("prefer", "wait=99999")], wait(limits::PREFER_WAIT_S_MAX));
        check(&[("prefer", "wait=0")], Some(Delivery::Job));
        check(&[("prefer", "wait=soon")], None);
        check(&[("accept", "text/event-stream;q=0.9, */*")], Some(Delivery::Stream));
        check(&[("accept", "application/json")], Some(Delivery::Job));
    }

    #[test]
    fn a_wrong_body_is_named_with_its_place() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Thing {
            #[expect(dead_code, reason = "only its type matters")]
            count: u32,
        }
        let message = |text: &str| parse::<Thing>(text.as_bytes()).unwrap_err().message;
        assert!(message("").contains("empty"));
        assert!(message("{").contains("line 1 column 1"));
        assert!(message(r#"{"count": "x"}"#).starts_with("count: invalid type: string"));
        assert!(message(r#"{"count": 4000000000.0}"#).starts_with("count: invalid"));
        assert!(message(r#"{"cuont": 1}"#).contains("unknown field `cuont`"));
        assert!(message(r#"{"count": 1} 2"#).contains("not one JSON value"));
    }
}
