//! SHA-256 of files, and the one way in which a large file comes into the home: digested while it
//! is written under a temporary name, and renamed only when the digest is right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::failure::{Exit, Failure, Outcome};

const PIECE_BYTES: usize = 256 * 1024;

/// Lower-case hex SHA-256 of a file. `progress` hears the bytes read so far.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_file(path: &Path, progress: impl FnMut(u64)) -> Outcome<String> {
    let file = File::open(path).map_err(|error| Failure::file("open", path, error))?;
    let mut sink = Digesting(Sha256::new());
    copy(file, &mut sink, u64::MAX, progress)
        .map_err(|error| Failure::file("read", path, error))?;
    Ok(hex(sink.0))
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Lower-case hex SHA-256; none = not known beforehand.
    pub sha256: Option<String>,
    /// Bytes that are taken at most.
    pub bytes_max: u64,
}

/// Writes what `source` gives to `target`, if it is what is expected. Gives the digest.
///
/// # Errors
/// `CheckFailed` when the digest is wrong or the source is longer than allowed; `target` is then
/// untouched and nothing new lies beside it.
pub fn install(
    source: impl Read,
    target: &Path,
    expected: &Expected,
    progress: impl FnMut(u64),
) -> Outcome<String> {
    let mut incoming = Incoming::begin(target, expected)?;
    incoming.take(source, progress)?;
    incoming.finish()
}

/// A file that is being written under a temporary name. Dropped before it is finished, it leaves
/// nothing.
pub struct Incoming<'a> {
    target: &'a Path,
    expected: &'a Expected,
    temporary: Temporary,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl<'a> Incoming<'a> {
    /// Opens the temporary file beside `target`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(target: &'a Path, expected: &'a Expected) -> Outcome<Self> {
        let temporary = Temporary::beside(target);
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&temporary.path)
            .map_err(|error| Failure::file("write", &temporary.path, error))?;
        Ok(Self { target, expected, temporary, file, hash: Sha256::new(), bytes: 0 })
    }

    /// Adds all that `source` gives, or fails one byte after what is allowed.
    ///
    /// # Errors
    /// When it cannot be read or written, or is too long.
    pub fn take(&mut self, source: impl Read, progress: impl FnMut(u64)) -> Outcome<()> {
        let left = self.expected.bytes_max - self.bytes.min(self.expected.bytes_max);
        let target = self.target;
        let copied = copy(source, self, left, progress);
        match copied {
            Ok(_) => Ok(()),
            Err(_) if self.bytes > self.expected.bytes_max => Err(self.too_long()),
            Err(error) => Err(Failure::file("write", target, error)),
        }
    }

    /// Adds what `write` writes.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn write_with(
        &mut self,
        write: impl FnOnce(&mut Self) -> std::io::Result<()>,
    ) -> Outcome<()> {
        match write(self) {
            Ok(()) => Ok(()),
            Err(_) if self.bytes > self.expected.bytes_max => Err(self.too_long()),
            Err(error) => Err(Failure::file("write", self.target, error)),
        }
    }

    /// Checks the digest, gives the file its name and the digest to the caller.
    ///
    /// # Errors
    /// `CheckFailed` when the digest is wrong; nothing is left then.
    pub fn finish(self) -> Outcome<String> {
        let Self { target, expected, temporary, file, hash, bytes: _ } = self;
        let digest = hex(hash);
        if let Some(wanted) = &expected.sha256
            && *wanted != digest
        {
            let message = format!("{} has the wrong digest; nothing was kept", name_of(target));
            return Err(Failure::new(Exit::CheckFailed, message)
                .because(format!("expected sha256 {wanted}, found {digest}"))
                .hint("the download was damaged or the source has changed: do not use it"));
        }
        let folder = target.parent().unwrap_or(Path::new("."));
        let named = file.sync_all().and_then(|()| fs::rename(&temporary.path, target));
        let done = named.and_then(|()| File::open(folder)?.sync_all());
        done.map_err(|error| Failure::file("write", target, error))?;
        Ok(digest)
    }

    fn too_long(&self) -> Failure {
        let limit = self.expected.bytes_max;
        let message = format!("{} would be larger than {limit} bytes", self.target.display());
        Failure::new(Exit::CheckFailed, message)
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.expected.bytes_max {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all(piece)?;
        self.hash.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Reads to the end, or to one byte over `bytes_max`. Gives the bytes.
fn copy(
    source: impl Read,
    sink: &mut impl Write,
    bytes_max: u64,
    mut progress: impl FnMut(u64),
) -> std::io::Result<u64> {
    let mut source = source.take(bytes_max.saturating_add(1));
    let mut piece = vec![0_u8; PIECE_BYTES];
    let mut bytes = 0_u64;
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sink.write_all(&piece[..read])?;
        bytes += read as u64;
        progress(bytes);
    }
    sink.flush()?;
    Ok(bytes)
}

/// A sink that keeps nothing but the digest.
struct Digesting(Sha256);

impl Write for Digesting {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.0.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file name that is removed when it is not renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(target: &Path) -> Self {
        let name = format!(".{}.{}.part", name_of(target), std::process::id());
        let path = target.with_file_name(name);
        let _ = fs::remove_file(&path);
        Self { path }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn expect(sha256: &str, bytes_max: u64) -> Expected {
        Expected { sha256: Some(sha256.to_owned()), bytes_max }
    }

    #[test]
    fn only_the_right_content_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let entries = || fs::read_dir(folder.path()).unwrap().count();

        let wrong = install(&b"abd"[..], &target, &expect(ABC, 10), |_| ()).unwrap_err();
        assert_eq!((wrong.exit, entries()), (Exit::CheckFailed, 0));
        let long = install(&b"abc"[..], &target, &expect(ABC, 2), |_| ()).unwrap_err();
        assert_eq!((long.exit, entries()), (Exit::CheckFailed, 0));
        let endless = install(std::io::repeat(1), &target, &expect(ABC, 100_000), |_| ());
        assert!(endless.is_err() && entries() == 0);

        install(&b"abc"[..], &target, &expect(ABC, 3), |_| ()).unwrap();
        assert_eq!(sha256_file(&target, |_| ()).unwrap(), ABC);
        let wrong = install(&b"abd"[..], &target, &expect(ABC, 10), |_| ());
        assert!(wrong.is_err());
        assert_eq!(fs::read(&target).unwrap(), b"abc", "the good file stays");
        assert_eq!(entries(), 1);
    }
}
