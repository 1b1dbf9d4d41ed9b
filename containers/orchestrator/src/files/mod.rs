//! Files of callers: their content on the disk under its digest, their index in the job store.
//!
//! A name that a caller gives is only shown, never a path. Content becomes part of the store by a
//! rename, after it is on the disk; what a crash leaves in between is swept at the next start. It
//! must not know HTTP.

mod blobs;
mod incoming;
mod read;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use aisemble_jobs::files::{FileFilter, FileRecord, Quota};
use aisemble_jobs::{Jobs, JobsError};
use aisemble_protocol::file::{FileDeleted, FileList, FileView, Purpose, check_file_name};
use aisemble_protocol::{ApiError, ErrorCode, FileId};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

pub use incoming::{Content, Incoming};
pub use read::BlobReader;

use crate::app::{Caller, now_ms, store_error};
use crate::config::FilesConfig;
use blobs::Blobs;

/// Files that one round of retention deletes.
const EXPIRED_ROUND_MAX: usize = 200;
/// The folder below `incoming` that data processors write to.
pub const EXCHANGE: &str = "data";

/// The files of all callers.
#[derive(Debug, Clone)]
pub struct Files {
    jobs: Jobs,
    blobs: Arc<Blobs>,
    config: Arc<FilesConfig>,
}

/// A file to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its identity when it is made again after a crash; else a new one.
    pub id: Option<FileId>,
    /// What its owner calls it.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// When it is deleted by itself, seconds from now.
    pub expires_after_s: Option<u64>,
}

impl NewFile {
    /// A file of that name and purpose that stays until it is deleted.
    #[must_use]
    pub fn new(name: impl Into<String>, purpose: Purpose) -> Self {
        Self { id: None, name: name.into(), purpose, expires_after_s: None }
    }

    /// The same under an id of the caller's making: storing it again gives the one that is there.
    #[must_use]
    pub fn with_id(self, id: FileId) -> Self {
        Self { id: Some(id), ..self }
    }
}

/// A file and where its content lies.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The content; it never changes while it is there.
    pub path: PathBuf,
    /// The file.
    pub view: FileView,
    /// Whose it is.
    pub owner: String,
}

/// Which files to list.
#[derive(Debug, Clone, Default)]
pub struct FilesQuery {
    /// Only for this.
    pub purpose: Option<Purpose>,
    /// Those after this one.
    pub after: Option<FileId>,
    /// Oldest first.
    pub ascending: bool,
    /// Files on the page.
    pub limit: u32,
}

/// Whose files a request sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'k> {
    /// Those of the key that asks.
    Own(&'k str),
    /// Everybody's: the key that asks is an admin's.
    All(&'k str),
}

impl<'k> Reach<'k> {
    /// What a caller sees: an admin everybody's files, as with jobs.
    #[must_use]
    pub fn of(caller: &'k Caller) -> Self {
        if caller.is_admin() { Self::All(&caller.key_id) } else { Self::Own(&caller.key_id) }
    }

    fn key(self) -> &'k str {
        match self {
            Self::Own(key) | Self::All(key) => key,
        }
    }

    fn sees(self, owner: &str) -> bool {
        match self {
            Self::Own(key) => key == owner,
            Self::All(_) => true,
        }
    }
}

impl Files {
    /// Makes the folders, and throws away what uploads and data jobs of an earlier process left.
    ///
    /// # Errors
    /// When the folders cannot be made or read.
    pub fn open(config: &FilesConfig, jobs: Jobs) -> std::io::Result<Self> {
        let blobs = Arc::new(Blobs::open(&config.dir)?);
        Ok(Self { jobs, blobs, config: Arc::new(config.clone()) })
    }

    /// Deletes contents that no file has: what a crash between two steps left.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<(), ApiError> {
        let _held = self.blobs.hold_all().await;
        let known = self.jobs.store().contents().await.map_err(|error| store_error(&error))?;
        let blobs = Arc::clone(&self.blobs);
        let swept = blocking(move || Ok(blobs.sweep(&known))).await?;
        if swept.deleted + swept.missing > 0 {
            tracing::warn!(
                files.orphans = swept.deleted,
                files.missing = swept.missing,
                "contents without a file were deleted; files without content cannot be read"
            );
        }
        Ok(())
    }

    /// A place for content that comes in pieces.
    ///
    /// # Errors
    /// `storage_full`, or `internal`.
    pub async fn incoming(&self) -> Result<Incoming, ApiError> {
        let bytes_max = self.config.file_bytes_max;
        let blobs = Arc::clone(&self.blobs);
        blocking(move || Incoming::create(&blobs, bytes_max)).await
    }

    /// Makes complete content a file of `owner`.
    ///
    /// # Errors
    /// `invalid_request` for a name that is none; `payload_too_large` beyond the owner's quota;
    /// `storage_full`; the store's. Then nothing is left of it.
    pub async fn publish(
        &self,
        owner: &str,
        new: NewFile,
        content: Content,
    ) -> Result<FileView, ApiError> {
        check_file_name(&new.name)?;
        let created_at_ms = now_ms();
        let expires = |s: u64| created_at_ms.saturating_add(s.saturating_mul(1_000));
        let record = FileRecord {
            id: new.id.unwrap_or_else(FileId::generate),
            owner: owner.to_owned(),
            name: new.name,
            purpose: new.purpose,
            bytes: content.bytes,
            sha256: content.sha256,
            created_at_ms,
            expires_at_ms: new.expires_after_s.map(expires),
        };
        let Quota { files_max, bytes_max } = self.quota();
        let sha256 = content.sha256;
        // Between the rename and the index nobody may delete the same content as the last of its
        // kind.
        let _held = self.blobs.hold(&sha256).await;
        let blobs = Arc::clone(&self.blobs);
        let fresh = blocking(move || blobs.take(content)).await?;
        let put = self.jobs.store().put_file(record, Quota { files_max, bytes_max }).await;
        match put {
            Ok(record) => {
                tracing::info!(
                    file.id = %record.id,
                    file.bytes = record.bytes,
                    key.id = record.owner,
                    "file stored"
                );
                Ok(view(&record))
            }
            Err(error) => {
                // When it could not even be asked whether the content is another file's, too, the
                // next start decides.
                let asked = self.jobs.store().contents().await;
                if fresh && asked.is_ok_and(|known| !known.contains(&sha256)) {
                    let blobs = Arc::clone(&self.blobs);
                    blocking(move || blobs.delete(&sha256)).await?;
                }
                Err(file_error(&error))
            }
        }
    }

    /// Stores a stream as a file of `owner`.
    ///
    /// # Errors
    /// As [`Self::publish`]; `payload_too_large` when it is over the limit; the stream's own.
    pub async fn store_stream(
        &self,
        owner: &str,
        new: NewFile,
        mut stream: impl Stream<Item = Result<Bytes, ApiError>> + Unpin,
    ) -> Result<FileView, ApiError> {
        check_file_name(&new.name)?;
        let mut incoming = self.incoming().await?;
        while let Some(bytes) = stream.next().await {
            incoming.write(&bytes?).await?;
        }
        self.publish(owner, new, incoming.finish().await?).await
    }

    /// Stores bytes as a file of `owner`.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn store_bytes(
        &self,
        owner: &str,
        new: NewFile,
        bytes: Bytes,
    ) -> Result<FileView, ApiError> {
        let stream = futures_util::stream::iter([Ok(bytes)]);
        self.store_stream(owner, new, stream).await
    }

    /// Makes what a data job wrote a file of `owner`: `relative` is its path below the exchange
    /// folder. The content is moved, or copied when another user owns it.
    ///
    /// # Errors
    /// `internal` when there is no such plain file; else as [`Self::publish`].
    pub async fn import_path(
        &self,
        owner: &str,
        relative: &Path,
        new: NewFile,
    ) -> Result<FileView, ApiError> {
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            tracing::error!("a data processor named an output outside of its folder");
            return Err(ApiError::new(ErrorCode::Internal, "the output cannot be taken over"));
        }
        let (blobs, relative) = (Arc::clone(&self.blobs), relative.to_owned());
        let bytes_max = self.config.file_bytes_max;
        let content = blocking(move || Content::adopt(&blobs, &relative, bytes_max)).await?;
        self.publish(owner, new, content).await
    }

    /// Deletes the folder of a data job below the exchange folder.
    pub async fn clear_exchange(&self, job_folder: &str) {
        let plain = Path::new(job_folder).components().eq([Component::Normal(job_folder.as_ref())]);
        if plain {
            let path = self.blobs.exchange().join(job_folder);
            // It may never have been made.
            let _ = blocking(move || {
                let _ = std::fs::remove_dir_all(path);
                Ok(())
            })
            .await;
        }
    }

    /// The file of that id and where its content lies, if it is `owner`'s.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn open_blob(&self, owner: &str, id: FileId) -> Result<Blob, ApiError> {
        self.look_up(Reach::Own(owner), id).await
    }

    /// The file of that id and where its content lies, if it is within `reach`.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn look_up(&self, reach: Reach<'_>, id: FileId) -> Result<Blob, ApiError> {
        let record = self.jobs.store().file(id).await.map_err(|error| store_error(&error))?;
        let now_ms = now_ms();
        let live = |record: &FileRecord| {
            reach.sees(&record.owner) && record.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)
        };
        let Some(record) = record.filter(live) else { return Err(not_found(id)) };
        let key = reach.key();
        if record.owner != key {
            let owner = &record.owner;
            tracing::info!(audit = true, file.id = %id, file.owner = owner, key.id = key,
                "an admin looked up another key's file");
        }
        let path = self.blobs.path(&record.sha256);
        Ok(Blob { path, view: view(&record), owner: record.owner })
    }

    /// The whole content of a file of at most `bytes_max`.
    ///
    /// # Errors
    /// `not_found`; `payload_too_large`, naming the limit; `internal` when the content is gone.
    pub async fn read_bytes_limited(
        &self,
        owner: &str,
        id: FileId,
        bytes_max: u64,
    ) -> Result<Bytes, ApiError> {
        let blob = self.open_blob(owner, id).await?;
        if blob.view.bytes > bytes_max {
            let message = format!("file {id} has {} bytes; {bytes_max} are taken", blob.view.bytes);
            return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
        }
        blocking(move || std::fs::read(&blob.path).map(Bytes::from).map_err(|e| disk(&e))).await
    }

    /// The content of a file, in blocks: `range` is where it begins and ends, bytes.
    ///
    /// # Errors
    /// `internal` when the content is gone.
    pub async fn reader(
        &self,
        blob: &Blob,
        range: std::ops::Range<u64>,
    ) -> Result<BlobReader, ApiError> {
        let path = blob.path.clone();
        blocking(move || BlobReader::open(&path, range)).await
    }

    /// A page of the files within `reach`.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, reach: Reach<'_>, query: FilesQuery) -> Result<FileList, ApiError> {
        let FilesQuery { purpose, after, ascending, limit } = query;
        let owner = match reach {
            Reach::Own(key) => Some(key.to_owned()),
            Reach::All(_) => None,
        };
        let filter = FileFilter { owner, purpose, after, ascending, limit };
        let page = self.jobs.store().files(filter).await.map_err(|error| store_error(&error))?;
        let data: Vec<_> = page.files.iter().map(view).collect();
        Ok(FileList {
            object: "list".to_owned(),
            first_id: data.first().map(|file| file.id),
            last_id: data.last().map(|file| file.id),
            has_more: page.more,
            data,
        })
    }

    /// Deletes a file within `reach`, and its content when no other file has it.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn delete(&self, reach: Reach<'_>, id: FileId) -> Result<FileDeleted, ApiError> {
        self.look_up(reach, id).await?;
        if !self.drop_file(id).await? {
            return Err(not_found(id));
        }
        tracing::info!(audit = true, file.id = %id, key.id = reach.key(), "file deleted");
        Ok(FileDeleted { id, object: "file".to_owned(), deleted: true })
    }

    /// Deletes files whose time is over; gives how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn expire(&self) -> Result<usize, ApiError> {
        let due = self.jobs.store().files_due(now_ms(), EXPIRED_ROUND_MAX).await;
        let due = due.map_err(|error| store_error(&error))?;
        for id in &due {
            self.drop_file(*id).await?;
        }
        Ok(due.len())
    }

    async fn drop_file(&self, id: FileId) -> Result<bool, ApiError> {
        let store = self.jobs.store();
        let known = store.file(id).await.map_err(|error| store_error(&error))?;
        let Some(known) = known else { return Ok(false) };
        let _held = self.blobs.hold(&known.sha256).await;
        let dropped = store.drop_file(id).await.map_err(|error| store_error(&error))?;
        let Some(dropped) = dropped else { return Ok(false) };
        if dropped.last {
            let (blobs, sha256) = (Arc::clone(&self.blobs), dropped.record.sha256);
            blocking(move || blobs.delete(&sha256)).await?;
        }
        Ok(true)
    }

    /// The longest pause within an upload, milliseconds.
    #[must_use]
    pub fn idle_ms_max(&self) -> u64 {
        self.config.idle_ms_max
    }

    /// How often [`Self::expire`] is to be called, milliseconds.
    #[must_use]
    pub fn purge_ms(&self) -> u64 {
        self.config.purge_ms
    }

    fn quota(&self) -> Quota {
        let FilesConfig { files_per_key_max, bytes_per_key_max, .. } = *self.config;
        Quota { files_max: files_per_key_max, bytes_max: bytes_per_key_max }
    }
}

fn view(record: &FileRecord) -> FileView {
    FileView {
        id: record.id,
        object: "file".to_owned(),
        bytes: record.bytes,
        created_at: record.created_at_ms / 1_000,
        expires_at: record.expires_at_ms.map(|ms| ms / 1_000),
        filename: record.name.clone(),
        purpose: record.purpose,
        status: "processed".to_owned(),
        sha256: hex(&record.sha256),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_found(id: FileId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no file {id}"))
}

fn file_error(error: &JobsError) -> ApiError {
    if matches!(error, JobsError::QuotaFull { .. }) {
        ApiError::from(error)
    } else {
        store_error(error)
    }
}

/// What a refusal of the disk means; the cause is logged here.
fn disk(error: &std::io::Error) -> ApiError {
    use std::io::ErrorKind;
    tracing::error!(error.cause = %error, "the disk that holds files refused");
    let kind = error.kind();
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    if full.contains(&kind) {
        ApiError::new(ErrorCode::StorageFull, "the disk that holds files is full")
    } else if kind == ErrorKind::NotFound {
        ApiError::new(ErrorCode::Internal, "the file's content is gone")
    } else {
        ApiError::new(ErrorCode::Internal, "the disk that holds files failed")
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let broken = |_| ApiError::new(ErrorCode::Internal, "an operation on files broke off");
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

#[cfg(test)]
mod tests;
