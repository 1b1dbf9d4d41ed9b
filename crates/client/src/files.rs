//! `/files`: upload, list, show, download, delete. Content goes in pieces, in both directions.

use std::time::Duration;

use aisemble_protocol::FileId;
use aisemble_protocol::file::{FileDeleted, FileList, FileView, Purpose};
use bytes::Bytes;
use futures_util::Stream;

use crate::error::ClientError;
use crate::http::{Call, Client, IDLE_MAX};
use crate::jobs::escaped;

/// The slowest connection on which an upload is not given up, bytes a second.
const UPLOAD_BYTES_PER_S_MIN: u64 = 100_000;

/// A file that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// What its owner calls it; only shown, but its ending tells a table's format.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its length.
    pub bytes: u64,
}

impl Client {
    /// Stores a file. It is tried once: a stream cannot be sent again.
    ///
    /// # Errors
    /// As any call.
    pub async fn upload_file(
        &self,
        upload: &Upload,
        content: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<FileView, ClientError> {
        let (name, purpose) = (escaped(&upload.name), upload.purpose.as_str());
        let path = format!("/files?filename={name}&purpose={purpose}");
        let mut call = Call::new(reqwest::Method::POST, path)
            .header("content-type", "application/octet-stream")
            .header("content-length", upload.bytes.to_string());
        call.patience = Duration::from_secs(60 + upload.bytes / UPLOAD_BYTES_PER_S_MIN);
        self.send_stream(&call, reqwest::Body::wrap_stream(content)).await?.decode()
    }

    /// A page of the key's files, newest first; `after` is the `last_id` of the page before.
    ///
    /// # Errors
    /// As any call.
    pub async fn files(&self, after: Option<FileId>, limit: u32) -> Result<FileList, ClientError> {
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        self.fetch(&Call::get(format!("/files?limit={limit}{after}"))).await?.decode()
    }

    /// The file, without its content.
    ///
    /// # Errors
    /// As any call; `not_found` for another key's file too.
    pub async fn file(&self, id: FileId) -> Result<FileView, ClientError> {
        self.fetch(&Call::get(format!("/files/{id}"))).await?.decode()
    }

    /// The file's content; `each` hears it piece by piece and may end it.
    ///
    /// # Errors
    /// As any call; what `each` says.
    pub async fn download_file<E: From<ClientError>>(
        &self,
        id: FileId,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let call = Call::get(format!("/files/{id}/content"));
        let mut response = self.open(&call).await?;
        loop {
            let piece = tokio::time::timeout(IDLE_MAX, response.chunk())
                .await
                .map_err(|_| ClientError::Deadline { what: call.what(), deadline: IDLE_MAX })?;
            match piece.map_err(|source| self.broke(source))? {
                Some(piece) => each(&piece)?,
                None => return Ok(()),
            }
        }
    }

    /// Deletes the file.
    ///
    /// # Errors
    /// As any call.
    pub async fn delete_file(&self, id: FileId) -> Result<FileDeleted, ClientError> {
        self.fetch(&Call::new(reqwest::Method::DELETE, format!("/files/{id}"))).await?.decode()
    }
}
