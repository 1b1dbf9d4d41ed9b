//! The index of files beside the jobs: what there is, whose it is, which content it has. Content is
//! known by its digest alone; where it lies is none of the store's business.

use aisemble_protocol::FileId;
use aisemble_protocol::file::Purpose;

use super::StoreFuture;
use crate::error::JobsError;

/// A file as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Identity.
    pub id: FileId,
    /// Whose it is.
    pub owner: String,
    /// What its owner calls it.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Size, bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// When it was stored, milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it is to be deleted, milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
}

/// What one owner may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Files.
    pub files_max: u64,
    /// Bytes of all of them together.
    pub bytes_max: u64,
}

/// Which files to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFilter {
    /// Only this owner's; `None` = everybody's.
    pub owner: Option<String>,
    /// Only for this.
    pub purpose: Option<Purpose>,
    /// Those that come after this one; one that is not there gives an empty page.
    pub after: Option<FileId>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
    /// Files on the page.
    pub limit: u32,
}

/// A page of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// In the order that was asked for.
    pub files: Vec<FileRecord>,
    /// There are more.
    pub more: bool,
}

/// What a deletion has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedFile {
    /// The file as it was.
    pub record: FileRecord,
    /// No other file has its content.
    pub last: bool,
}

/// What an owner keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The index of files.
pub trait FileStore {
    /// Adds a file. One of the same id, owner and content is left as it is: adding is repeatable.
    fn put_file(&self, record: FileRecord, quota: Quota) -> StoreFuture<'_, FileRecord>;

    /// The file of that id.
    fn file(&self, id: FileId) -> StoreFuture<'_, Option<FileRecord>>;

    /// A page of files.
    fn files(&self, filter: FileFilter) -> StoreFuture<'_, Files>;

    /// Takes a file out of the index.
    fn drop_file(&self, id: FileId) -> StoreFuture<'_, Option<DroppedFile>>;

    /// Files whose time is over, up to `files_max`.
    fn files_due(&self, now_ms: u64, files_max: usize) -> StoreFuture<'_, Vec<FileId>>;

    /// The digest of every content that some file has, each once.
    fn contents(&self) -> StoreFuture<'_, Vec<[u8; 32]>>;

    /// What an owner keeps.
    fn file_usage(&self, owner: String) -> StoreFuture<'_, Usage>;
}

/// What adding a file that is there already gives: itself, when it is the same.
pub(super) fn same(known: FileRecord, record: &FileRecord) -> Result<FileRecord, JobsError> {
    if known.owner == record.owner && known.sha256 == record.sha256 {
        return Ok(known);
    }
    let reason = "is that of another file".to_owned();
    Err(JobsError::Invalid { field: "id", reason })
}

/// Whether one more file is within what its owner may keep.
pub(super) fn within(usage: Usage, record: &FileRecord, quota: Quota) -> Result<(), JobsError> {
    let bytes = usage.bytes.saturating_add(record.bytes);
    if usage.files < quota.files_max && bytes <= quota.bytes_max {
        return Ok(());
    }
    let Quota { files_max, bytes_max } = quota;
    Err(JobsError::QuotaFull { files: usage.files, bytes: usage.bytes, files_max, bytes_max })
}
