//! Content on its way in: written beside the store, digested as it comes, synced before it counts.
//! What is dropped before it is complete is deleted.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aisemble_protocol::{ApiError, ErrorCode};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::blobs::Blobs;
use super::{blocking, disk};

/// Bytes that are gathered before they are written and digested.
const BLOCK_BYTES: usize = 256 * 1024;
/// Mode of a content in its place.
const BLOB_MODE: u32 = 0o440;
/// `O_NOFOLLOW` of Linux on x86-64 and aarch64: an output that is a link is no output.
#[cfg(target_arch = "aarch64")]
const NO_FOLLOW: i32 = 0o100_000;
#[cfg(not(target_arch = "aarch64"))]
const NO_FOLLOW: i32 = 0o400_000;

/// Content that is not complete.
#[derive(Debug)]
pub struct Incoming {
    /// `None` only while a block is being written.
    sink: Option<Sink>,
    block: Vec<u8>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Sink {
    file: File,
    digest: Sha256,
    path: Temporary,
}

/// A path that is deleted with this.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The next start clears what cannot be deleted now.
            let _ = fs::remove_file(path);
        }
    }
}

/// Content that is complete and on the disk, but not yet in its place.
#[derive(Debug)]
pub struct Content {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// Size, bytes.
    pub bytes: u64,
    path: Temporary,
}

impl Incoming {
    pub(super) fn create(blobs: &Blobs, bytes_max: u64) -> Result<Self, ApiError> {
        let sink = Sink::create(blobs)?;
        Ok(Self { sink: Some(sink), block: Vec::new(), bytes: 0, bytes_max })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// `payload_too_large` beyond the limit of a file; `storage_full`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        let block = std::mem::take(&mut self.block);
        let Some(mut sink) = self.sink.take() else { return Err(broken()) };
        let (sink, mut block) = blocking(move || {
            sink.write(&block)?;
            Ok((sink, block))
        })
        .await?;
        block.clear();
        (self.sink, self.block) = (Some(sink), block);
        Ok(())
    }

    /// Ends the content: it is on the disk when this returns.
    ///
    /// # Errors
    /// `storage_full`, or `internal`.
    pub async fn finish(mut self) -> Result<Content, ApiError> {
        self.flush().await?;
        let Some(sink) = self.sink.take() else { return Err(broken()) };
        let bytes = self.bytes;
        blocking(move || sink.finish(bytes)).await
    }
}

impl Sink {
    fn create(blobs: &Blobs) -> Result<Self, ApiError> {
        let path = blobs.incoming().join(Uuid::new_v4().simple().to_string());
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| disk(&error))?;
        Ok(Self { file, digest: Sha256::new(), path: Temporary(Some(path)) })
    }

    fn write(&mut self, block: &[u8]) -> Result<(), ApiError> {
        self.file.write_all(block).map_err(|error| disk(&error))?;
        self.digest.update(block);
        Ok(())
    }

    fn finish(self, bytes: u64) -> Result<Content, ApiError> {
        let Self { file, digest, path } = self;
        seal(&file).map_err(|error| disk(&error))?;
        Ok(Content { sha256: digest.finalize().into(), bytes, path })
    }
}

impl Content {
    /// Takes over what a data processor wrote. When another user owns it, or other names lead to
    /// it, whoever that is could still change it: then it is copied.
    pub(super) fn adopt(blobs: &Blobs, relative: &Path, bytes_max: u64) -> Result<Self, ApiError> {
        let path = blobs.exchange().join(relative);
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(NO_FOLLOW).open(&path);
        let mut file = file.map_err(|error| disk(&error))?;
        let metadata = file.metadata().map_err(|error| disk(&error))?;
        if !metadata.is_file() {
            return Err(ApiError::new(ErrorCode::Internal, "the output is not a plain file"));
        }
        if metadata.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        let own = fs::metadata(blobs.incoming()).map_err(|error| disk(&error))?;
        let ours = metadata.uid() == own.uid() && metadata.nlink() == 1;
        let mut copy = if ours { None } else { Some(Sink::create(blobs)?) };
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block).map_err(|error| disk(&error))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > bytes_max {
                return Err(too_large(bytes_max));
            }
            match &mut copy {
                Some(sink) => sink.write(&block[..read])?,
                None => digest.update(&block[..read]),
            }
        }
        if let Some(sink) = copy {
            return sink.finish(bytes);
        }
        seal(&file).map_err(|error| disk(&error))?;
        Ok(Self { sha256: digest.finalize().into(), bytes, path: Temporary(Some(path)) })
    }

    pub(super) fn path(&self) -> &Path {
        self.path.0.as_deref().unwrap_or(Path::new(""))
    }

    /// It has been moved: nothing is left to delete.
    pub(super) fn moved(mut self) {
        self.path.0 = None;
    }
}

/// Nobody writes it any more, and it is on the disk.
fn seal(file: &File) -> std::io::Result<()> {
    file.set_permissions(Permissions::from_mode(BLOB_MODE))?;
    file.sync_all()
}

fn too_large(bytes_max: u64) -> ApiError {
    let message = format!("the file is over {bytes_max} bytes");
    ApiError::new(ErrorCode::PayloadTooLarge, message)
}

fn broken() -> ApiError {
    ApiError::new(ErrorCode::Internal, "an upload broke off")
}
