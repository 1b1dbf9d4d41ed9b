//! `/files` and `/v1/files`: upload, list, show, download, delete.

use std::ops::Range;
use std::sync::Arc;

use aisemble_protocol::file::{
    FILE_EXPIRY_S_MAX, FILE_EXPIRY_S_MIN, FILES_PAGE_DEFAULT, FILES_PAGE_MAX, FileDeleted,
    FileList, FileView, Purpose,
};
use aisemble_protocol::{ApiError, FileId};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{Failure, Problem};
use super::extract::{From, Params};
use super::upload::{self, Named};
use crate::app::App;
use crate::files::{Blob, FilesQuery, Reach};

/// The `{id}` of a file's path.
pub(super) struct File(FileId);

impl FromRequestParts<Arc<App>> for File {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let malformed = || ApiError::invalid("id", "the file's id is not `file-` and a UUID");
        let Path(text) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| malformed())?;
        Ok(Self(text.parse().map_err(|_| malformed())?))
    }
}

/// What an upload that is no form says of itself.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// What its owner calls it; only shown.
    filename: Option<String>,
    /// What it is for: `data`, `vision`, `batch`, `user_data`. Default `user_data`.
    purpose: Option<String>,
    /// Seconds after which it is deleted by itself.
    expires_after_s: Option<u64>,
}

/// Which files to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct List {
    /// Only for this.
    purpose: Option<String>,
    /// Files on the page: 1 to 10,000, default 1,000.
    limit: Option<u32>,
    /// `asc` or `desc` by the time of upload; default `desc`.
    order: Option<String>,
    /// `last_id` of the page before.
    after: Option<String>,
}

/// Stores a file: the body as it is, or a form with `purpose` and `file`.
#[utoipa::path(post, path = "/files", tag = "files", security(("key" = ["jobs"])),
    params(UploadQuery), request_body(content = String, content_type = "*/*"),
    responses((status = 200, body = FileView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Params(query): Params<UploadQuery>,
    request: Request,
) -> Result<Json<FileView>, Failure> {
    let named = Named::read(query.filename, query.purpose, query.expires_after_s)?;
    Ok(Json(upload::store(&app, &origin.caller.key_id, named, request).await?))
}

/// Stores a file, as OpenAI does: a form with `purpose` and `file`.
#[utoipa::path(post, path = "/v1/files", tag = "openai", security(("key" = ["jobs"])),
    params(UploadQuery), request_body(content = String, content_type = "multipart/form-data"),
    responses((status = 200, body = FileView)))]
pub(super) async fn create_v1(
    app: State<Arc<App>>,
    origin: From,
    query: Params<UploadQuery>,
    request: Request,
) -> Result<Json<FileView>, Failure> {
    create(app, origin, query, request).await
}

/// Lists the key's files; every key's for an admin.
#[utoipa::path(get, path = "/files", tag = "files", security(("key" = ["jobs"])), params(List),
    responses((status = 200, body = FileList),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    From(origin): From,
    Params(List { purpose, limit, order, after }): Params<List>,
) -> Result<Json<FileList>, Failure> {
    let limit = limit.unwrap_or(FILES_PAGE_DEFAULT);
    if !(1..=FILES_PAGE_MAX).contains(&limit) {
        let message = format!("limit is {limit}; it must be between 1 and {FILES_PAGE_MAX}");
        return Err(ApiError::invalid("limit", message).into());
    }
    let ascending = match order.as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(ApiError::invalid("order", "order is asc or desc").into()),
    };
    let after = after.map(|id| id.parse()).transpose();
    let after = after.map_err(|_| ApiError::invalid("after", "after is not the id of a file"))?;
    let purpose = purpose.as_deref().map(read_purpose).transpose()?;
    let query = FilesQuery { purpose, after, ascending, limit };
    Ok(Json(app.files.list(Reach::of(&origin.caller), query).await?))
}

/// Lists the key's files, as OpenAI does.
#[utoipa::path(get, path = "/v1/files", tag = "openai", security(("key" = ["jobs"])), params(List),
    responses((status = 200, body = FileList)))]
pub(super) async fn list_v1(
    app: State<Arc<App>>,
    origin: From,
    query: Params<List>,
) -> Result<Json<FileList>, Failure> {
    list(app, origin, query).await
}

/// The purpose of that name.
pub(super) fn read_purpose(text: &str) -> Result<Purpose, ApiError> {
    Purpose::parse(text).ok_or_else(|| {
        let all: Vec<_> = Purpose::ALL.into_iter().map(Purpose::as_str).collect();
        ApiError::invalid("purpose", format!("purpose is one of {}", all.join(", ")))
    })
}

/// When a file is to go, seconds from now.
pub(super) fn read_expiry(seconds: u64) -> Result<u64, ApiError> {
    if (FILE_EXPIRY_S_MIN..=FILE_EXPIRY_S_MAX).contains(&seconds) {
        return Ok(seconds);
    }
    let message = format!("must be between {FILE_EXPIRY_S_MIN} and {FILE_EXPIRY_S_MAX} seconds");
    Err(ApiError::invalid("expires_after", format!("expires_after {message}")))
}

/// Shows a file.
#[utoipa::path(get, path = "/files/{id}", tag = "files", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the file's id")),
    responses((status = 200, body = FileView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    From(origin): From,
    File(id): File,
) -> Result<Json<FileView>, Failure> {
    Ok(Json(app.files.look_up(Reach::of(&origin.caller), id).await?.view))
}

/// Shows a file, as OpenAI does.
#[utoipa::path(get, path = "/v1/files/{id}", tag = "openai", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the file's id")),
    responses((status = 200, body = FileView)))]
pub(super) async fn show_v1(
    app: State<Arc<App>>,
    origin: From,
    file: File,
) -> Result<Json<FileView>, Failure> {
    show(app, origin, file).await
}

/// Deletes a file.
#[utoipa::path(delete, path = "/files/{id}", tag = "files", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the file's id")),
    responses((status = 200, body = FileDeleted),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    From(origin): From,
    File(id): File,
) -> Result<Json<FileDeleted>, Failure> {
    Ok(Json(app.files.delete(Reach::of(&origin.caller), id).await?))
}

/// Deletes a file, as OpenAI does.
#[utoipa::path(delete, path = "/v1/files/{id}", tag = "openai", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the file's id")),
    responses((status = 200, body = FileDeleted)))]
pub(super) async fn remove_v1(
    app: State<Arc<App>>,
    origin: From,
    file: File,
) -> Result<Json<FileDeleted>, Failure> {
    remove(app, origin, file).await
}

/// Gives a file's content, or the part of it that `Range` names.
#[utoipa::path(get, path = "/files/{id}/content", tag = "files", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the file's id"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`"),
        ("If-None-Match" = Option<String>, Header, description = "the digest that is known")),
    responses((status = 200, body = String, content_type = "application/octet-stream"),
        (status = 206, body = String, content_type = "application/octet-stream"),
        (status = 304), (status = 416),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn content(
    State(app): State<Arc<App>>,
    From(origin): From,
    File(id): File,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let blob = app.files.look_up(Reach::of(&origin.caller), id).await?;
    let tag = format!("\"{}\"", blob.view.sha256);
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|known| known == "*" || known.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let size = blob.view.bytes;
    // A range of another content is not wanted: then the whole is.
    let same = text(header::IF_RANGE).is_none_or(|known| known == tag);
    let wanted = text(header::RANGE).filter(|_| same).map_or(Wanted::Whole, |r| range(r, size));
    let (status, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let headers = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
    };
    deliver(&app, &blob, status, range, &tag).await
}

/// Gives a file's content, as OpenAI does.
#[utoipa::path(get, path = "/v1/files/{id}/content", tag = "openai", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the file's id")),
    responses((status = 200, body = String, content_type = "application/octet-stream")))]
pub(super) async fn content_v1(
    app: State<Arc<App>>,
    origin: From,
    file: File,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    content(app, origin, file, headers).await
}

async fn deliver(
    app: &App,
    blob: &Blob,
    status: StatusCode,
    range: Range<u64>,
    tag: &str,
) -> Result<Response, Failure> {
    let reader = app.files.reader(blob, range.clone()).await?;
    let mut response = (status, Body::from_stream(reader.blocks())).into_response();
    let headers = response.headers_mut();
    let mut set = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "application/octet-stream");
    // What a caller stored is never a page of ours.
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CONTENT_DISPOSITION, "attachment");
    set(header::ACCEPT_RANGES, "bytes");
    set(header::ETAG, tag);
    set(header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        let text = format!("bytes {}-{last}/{}", range.start, blob.view.bytes);
        set(header::CONTENT_RANGE, &text);
    }
    Ok(response)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Nothing,
}

/// What one range asks for; several, or what is no range, ask for the whole.
fn range(text: &str, size: u64) -> Wanted {
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let number = |text: &str| text.trim().parse::<u64>();
    let range = match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Ok(count) => size.saturating_sub(count)..size,
            Err(_) => return Wanted::Whole,
        },
        (first, "") => match number(first) {
            Ok(first) => first..size,
            Err(_) => return Wanted::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
            _ => return Wanted::Whole,
        },
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Nothing }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_within_the_content() {
        let check = |text: &str, expected: Wanted| assert_eq!(range(text, 10), expected, "{text}");
        check("bytes=0-3", Wanted::Part(0..4));
        check("bytes=4-", Wanted::Part(4..10));
        check("bytes=-3", Wanted::Part(7..10));
        check("bytes=-30", Wanted::Part(0..10));
        check("bytes=9-99", Wanted::Part(9..10));
        check("bytes=10-", Wanted::Nothing);
        check("bytes=-0", Wanted::Nothing);
        for text in ["bytes=3-1", "bytes=a-b", "bytes=1-2,4-5", "items=1-2", "bytes"] {
            check(text, Wanted::Whole);
        }
    }

    proptest! {
        #[test]
        fn no_range_leads_outside(text in "(bytes=)?[0-9,-]{0,24}", size in 0_u64..100) {
            if let Wanted::Part(range) = range(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
