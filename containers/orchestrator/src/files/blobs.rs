//! Where contents lie: `blobs/AB/ABCD…` by digest, read-only; `incoming/` for what is not complete.
//! Both are on one file system, so that content moves by a rename.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aisemble_protocol::ApiError;
use tokio::sync::{Mutex, MutexGuard};

use super::incoming::Content;
use super::{EXCHANGE, disk, hex};

/// Locks of contents: those with the same first four bits share one.
const LOCKS: usize = 16;

/// The folders of the file store.
#[derive(Debug)]
pub(super) struct Blobs {
    root: PathBuf,
    locks: [Mutex<()>; LOCKS],
}

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swept {
    /// Contents that no file has.
    pub(super) deleted: usize,
    /// Contents of files that are not there.
    pub(super) missing: usize,
}

impl Blobs {
    /// Makes the folders and empties `incoming`.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let blobs = Self { root: root.to_owned(), locks: std::array::from_fn(|_| Mutex::new(())) };
        for dir in [blobs.contents(), blobs.exchange()] {
            DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        }
        for entry in fs::read_dir(blobs.incoming())? {
            let path = entry?.path();
            if path != blobs.exchange() {
                remove(&path)?;
            }
        }
        for entry in fs::read_dir(blobs.exchange())? {
            // A data processor of another user may own it and clears it itself.
            let _ = remove(&entry?.path());
        }
        Ok(blobs)
    }

    fn contents(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    pub(super) fn exchange(&self) -> PathBuf {
        self.incoming().join(EXCHANGE)
    }

    /// Where the content of that digest lies.
    pub(super) fn path(&self, sha256: &[u8; 32]) -> PathBuf {
        let name = hex(sha256);
        self.contents().join(&name[..2]).join(name)
    }

    /// Keeps others from adding or deleting the same content meanwhile.
    pub(super) async fn hold(&self, sha256: &[u8; 32]) -> MutexGuard<'_, ()> {
        self.locks[usize::from(sha256[0] >> 4) % LOCKS].lock().await
    }

    /// Keeps others from adding or deleting anything meanwhile.
    pub(super) async fn hold_all(&self) -> Vec<MutexGuard<'_, ()>> {
        let mut held = Vec::with_capacity(LOCKS);
        for lock in &self.locks {
            held.push(lock.lock().await);
        }
        held
    }

    /// Moves complete content to its place and makes the move durable; says whether it is new.
    pub(super) fn take(&self, content: Content) -> Result<bool, ApiError> {
        let path = self.path(&content.sha256);
        if path.exists() {
            return Ok(false);
        }
        self.place(&content, &path).map_err(|error| disk(&error))?;
        content.moved();
        Ok(true)
    }

    fn place(&self, content: &Content, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.exists() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
            sync_dir(&self.contents())?;
        }
        fs::rename(content.path(), path)?;
        sync_dir(folder)
    }

    /// Deletes a content.
    pub(super) fn delete(&self, sha256: &[u8; 32]) -> Result<(), ApiError> {
        match fs::remove_file(self.path(sha256)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(disk(&error)),
        }
    }

    /// Deletes what is not `known`, and counts what is known and not there.
    pub(super) fn sweep(&self, known: &[[u8; 32]]) -> Swept {
        let names: HashSet<String> = known.iter().map(|sha256| hex(sha256)).collect();
        let mut swept = Swept::default();
        let mut found = 0;
        for folder in fs::read_dir(self.contents()).into_iter().flatten().flatten() {
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                if names.contains(&*entry.file_name().to_string_lossy()) {
                    found += 1;
                } else if remove(&entry.path()).is_ok() {
                    swept.deleted += 1;
                }
            }
        }
        swept.missing = names.len().saturating_sub(found);
        swept
    }
}

fn remove(path: &Path) -> io::Result<()> {
    // Not following a link: what it leads to is not ours.
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
