//! The folder that a query writes its output in: made for it, measured after it, taken away when
//! nobody wants it. Nothing of the file is parsed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aisemble_protocol::data::TableFormat;
use aisemble_protocol::v1;
use sha2::{Digest as _, Sha256};

/// A folder that is older than this at the start was left by a process that is no more.
const LEFT_AGE: Duration = Duration::from_secs(3600);
/// Bytes that are digested at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// An output's folder. Dropping it removes what is in it, unless it was handed over.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    path: PathBuf,
    name: String,
    kept: bool,
}

impl OutputFolder {
    pub(crate) fn create(exchange: &Path) -> io::Result<Self> {
        let name = uuid::Uuid::new_v4().as_simple().to_string();
        let path = exchange.join(&name);
        fs::create_dir(&path)?;
        Ok(Self { path, name, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the digest of the file that should be there, makes it read-only, and leaves it to the
    /// caller. Blocks.
    pub(crate) fn hand_over(mut self, format: TableFormat) -> io::Result<v1::OutputFile> {
        let name = file_name(format);
        // Not followed: the worker that wrote here had read what a stranger sent.
        let mut file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path.join(&name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let (bytes, sha256) = digest(&mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o440))?;
        self.kept = true;
        Ok(v1::OutputFile { path: format!("{}/{name}", self.name), bytes, sha256 })
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for format in TableFormat::ALL {
            // Most are not there.
            let _ = fs::remove_file(self.path.join(file_name(format)));
        }
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(%error, "the folder of an output stays until the next start");
        }
    }
}

/// The name of an output inside its folder.
pub(crate) fn file_name(format: TableFormat) -> String {
    format!("output.{}", format.as_str())
}

fn digest(file: &mut File) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => {
                hasher.update(&chunk[..read]);
                bytes += read as u64;
            }
        }
    }
    let hex = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, hex))
}

/// Removes folders that nobody will ask for any more.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn remove_left(exchange: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(exchange)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
        if metadata.is_dir() && age > LEFT_AGE && fs::remove_dir_all(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_handed_over_with_its_digest_or_removed() {
        let exchange = tempfile::tempdir().unwrap();
        let folder = OutputFolder::create(exchange.path()).unwrap();
        fs::write(folder.path().join("output.csv"), "abc").unwrap();
        let left = folder.path().to_owned();
        drop(folder);
        assert!(!left.exists());

        let folder = OutputFolder::create(exchange.path()).unwrap();
        fs::write(folder.path().join("output.csv"), "abc").unwrap();
        let file = folder.hand_over(TableFormat::Csv).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((file.bytes, file.sha256.as_str()), (3, abc));
        let path = exchange.path().join(&file.path);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o440);
        assert_eq!(remove_left(exchange.path()).unwrap(), 0, "it is not old");
    }

    #[test]
    fn a_link_in_the_place_of_the_output_is_not_followed() {
        let exchange = tempfile::tempdir().unwrap();
        let folder = OutputFolder::create(exchange.path()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("output.csv")).unwrap();
        assert!(folder.hand_over(TableFormat::Csv).is_err());
        assert_eq!(fs::read_dir(exchange.path()).unwrap().count(), 0);
    }
}
