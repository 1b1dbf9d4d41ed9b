//! Uploads: a body as it is, or the `file` of a form, into the file store piece by piece.

use std::time::Duration;

use aisemble_protocol::file::{FileView, Purpose};
use aisemble_protocol::{ApiError, ErrorCode};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use multer::{Constraints, Multipart, SizeLimit};

use super::files::{read_expiry, read_purpose};
use crate::app::App;
use crate::files::{Content, NewFile};

/// Bytes of a form's field other than the file.
const FIELD_BYTES_MAX: u64 = 4_096;
/// Bytes of a refused upload that are still read.
const REFUSED_BYTES_READ_MAX: usize = 64 << 20;
/// How long a refused upload is still read.
const REFUSED_READ_MAX: Duration = Duration::from_secs(5);
/// Fields of a form.
const FIELDS_MAX: usize = 16;

/// What an upload says of itself.
#[derive(Debug, Default)]
pub(super) struct Named {
    filename: Option<String>,
    purpose: Option<Purpose>,
    expires_after_s: Option<u64>,
}

impl Named {
    /// Checks what the query says.
    ///
    /// # Errors
    /// `invalid_request`, naming the parameter.
    pub(super) fn read(
        filename: Option<String>,
        purpose: Option<String>,
        expires_after_s: Option<u64>,
    ) -> Result<Self, ApiError> {
        let purpose = purpose.as_deref().map(upload_purpose).transpose()?;
        let expires_after_s = expires_after_s.map(read_expiry).transpose()?;
        Ok(Self { filename, purpose, expires_after_s })
    }

    fn file(self) -> NewFile {
        NewFile {
            id: None,
            name: self.filename.unwrap_or_else(|| "unnamed".to_owned()),
            purpose: self.purpose.unwrap_or(Purpose::UserData),
            expires_after_s: self.expires_after_s,
        }
    }
}

fn upload_purpose(text: &str) -> Result<Purpose, ApiError> {
    let purpose = read_purpose(text)?;
    if purpose.is_for_upload() {
        return Ok(purpose);
    }
    Err(ApiError::invalid("purpose", format!("files for {text} are made here, not uploaded")))
}

/// Stores the body of a request as a file of `owner`.
///
/// # Errors
/// As the file store; `request_timeout` when the body pauses too long; `invalid_request` for a form
/// that has no file.
pub(super) async fn store(
    app: &App,
    owner: &str,
    named: Named,
    request: Request,
) -> Result<FileView, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(content_type);
    let is_form = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/");
    let idle = Duration::from_millis(app.files.idle_ms_max());
    let mut pieces = Box::pin(pieces(request.into_body(), idle).fuse());
    let stored = if is_form {
        let boundary = boundary.map_err(|error| form_error(&error))?;
        store_form(app, (owner, named), pieces.by_ref(), boundary).await
    } else {
        app.files.store_stream(owner, named.file(), pieces.by_ref()).await
    };
    if stored.is_err() {
        read_on(pieces).await;
    }
    stored
}

async fn store_form<S>(
    app: &App,
    (owner, named): (&str, Named),
    pieces: S,
    boundary: String,
) -> Result<FileView, ApiError>
where
    S: Stream<Item = Result<Bytes, ApiError>> + Send,
{
    let mut failed = None;
    let told = pieces.map(|piece| {
        // The form's own error would hide why the body ended.
        piece.map_err(|error| {
            failed.get_or_insert(error);
            std::io::Error::other("the body broke off")
        })
    });
    let stored = form(app, named, told, boundary).await;
    if let Some(error) = failed {
        return Err(error);
    }
    let (named, content) = stored?;
    app.files.publish(owner, named.file(), content).await
}

/// Reads a bounded part of what is still to come of a body that was refused: many clients look at
/// the answer only when they have sent everything, and are cut off before if nobody reads.
async fn read_on(mut pieces: impl Stream<Item = Result<Bytes, ApiError>> + Unpin) {
    let mut left = REFUSED_BYTES_READ_MAX;
    let reading = async {
        while let Some(Ok(bytes)) = pieces.next().await {
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends more, or slower, is cut off.
    let _ = tokio::time::timeout(REFUSED_READ_MAX, reading).await;
}

/// The body, each piece within `idle` of the one before.
fn pieces(body: Body, idle: Duration) -> impl Stream<Item = Result<Bytes, ApiError>> + Send {
    futures_util::stream::unfold(Some(body.into_data_stream()), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(idle, body.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(None) => None,
            Ok(Some(Err(_))) => {
                let error = ApiError::new(ErrorCode::InvalidRequest, "the body broke off");
                Some((Err(error), None))
            }
            Err(_) => {
                let ms = idle.as_millis();
                let message = format!("nothing came of the body within {ms} ms");
                Some((Err(ApiError::new(ErrorCode::RequestTimeout, message)), None))
            }
        }
    })
}

async fn form<S>(
    app: &App,
    mut named: Named,
    body: S,
    boundary: String,
) -> Result<(Named, Content), ApiError>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send,
{
    let sizes = SizeLimit::new().per_field(FIELD_BYTES_MAX).for_field("file", u64::MAX);
    let constraints = Constraints::new().size_limit(sizes);
    let body = Box::pin(body);
    let mut form = Multipart::with_constraints(body, boundary, constraints);
    let mut content = None;
    let mut fields = 0;
    while let Some(mut field) = form.next_field().await.map_err(|error| form_error(&error))? {
        fields += 1;
        if fields > FIELDS_MAX {
            let message = format!("a form has at most {FIELDS_MAX} fields");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if content.is_some() {
                return Err(ApiError::invalid("file", "the form has two files"));
            }
            if let Some(filename) = field.file_name() {
                named.filename = Some(filename.to_owned());
            }
            let mut incoming = app.files.incoming().await?;
            while let Some(bytes) = field.chunk().await.map_err(|error| form_error(&error))? {
                incoming.write(&bytes).await?;
            }
            content = Some(incoming.finish().await?);
            continue;
        }
        let text = field.text().await.map_err(|error| form_error(&error))?;
        match name.as_str() {
            "purpose" => named.purpose = Some(upload_purpose(&text)?),
            "filename" => named.filename = Some(text),
            "expires_after[seconds]" => {
                let seconds = text.trim().parse().unwrap_or(0);
                named.expires_after_s = Some(read_expiry(seconds)?);
            }
            "expires_after[anchor]" if text == "created_at" => {}
            _ => {
                let shown: String = name.chars().take(64).collect();
                let message = format!("the form has an unknown field {shown}");
                return Err(ApiError::invalid(&shown, message));
            }
        }
    }
    let content = content.ok_or_else(|| ApiError::invalid("file", "the form has no file"))?;
    Ok((named, content))
}

fn form_error(error: &multer::Error) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, format!("the form is not valid: {error}"))
}
