//! SHA-256 of model files, streamed, and the check against a pinned digest before anything of the
//! file is parsed. It knows bytes, not formats.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes read at once; progress is reported as often.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Hexadecimal digits of a SHA-256.
const HEX_DIGITS: usize = 64;

/// Why a file is not the one that was pinned.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The file cannot be read.
    #[error("cannot read the model file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The pinned digest is not a SHA-256 in hexadecimal.
    #[error("the expected digest `{expected}` is not {HEX_DIGITS} hexadecimal digits")]
    Malformed {
        /// What was given.
        expected: String,
    },
    /// The file has another content.
    #[error("{} has sha256 {found}, expected {expected}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The pinned digest.
        expected: String,
        /// The digest of the file.
        found: String,
    },
}

/// SHA-256 of a file in lower-case hexadecimal. `progress` is called with bytes done and bytes in
/// all after each chunk.
///
/// # Errors
/// [`DigestError::Read`].
pub fn sha256_file(path: &Path, progress: impl FnMut(u64, u64)) -> Result<String, DigestError> {
    let read = |source| DigestError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    sha256(&mut file, progress).map_err(read)
}

/// SHA-256 of bytes in lower-case hexadecimal.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Opens a file and proves that it has the `expected` SHA-256 (hexadecimal, any case). The returned
/// handle is the one that was read, so nobody can swap the file between check and use.
///
/// # Errors
/// [`DigestError`]; a mismatch names both digests.
pub fn open_verified(
    path: &Path,
    expected: &str,
    progress: impl FnMut(u64, u64),
) -> Result<File, DigestError> {
    let expected = expected.to_ascii_lowercase();
    if expected.len() != HEX_DIGITS || !expected.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(DigestError::Malformed { expected });
    }
    let read = |source| DigestError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let found = sha256(&mut file, progress).map_err(read)?;
    if found != expected {
        return Err(DigestError::Mismatch { path: path.to_owned(), expected, found });
    }
    file.rewind().map_err(read)?;
    Ok(file)
}

fn sha256(file: &mut File, mut progress: impl FnMut(u64, u64)) -> std::io::Result<String> {
    let total = file.metadata()?.len();
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
        done += read as u64;
        progress(done, total.max(done));
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn the_digest_of_the_standard_and_progress_to_the_end() {
        let mut last = (0, 0);
        let digest = sha256_file(file_of(b"abc").path(), |done, all| last = (done, all)).unwrap();
        assert_eq!((digest.as_str(), last), (ABC, (3, 3)));
    }

    #[test]
    fn a_verified_file_reads_from_its_beginning() {
        let file = file_of(b"abc");
        let mut text = String::new();
        let mut open = open_verified(file.path(), &ABC.to_uppercase(), |_, _| {}).unwrap();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_mismatch_names_both_digests() {
        let error = open_verified(file_of(b"abd").path(), ABC, |_, _| {}).unwrap_err().to_string();
        assert!(error.contains(ABC) && error.contains("a52d159f"), "{error}");
    }

    #[test]
    fn a_digest_of_another_form_is_refused() {
        for expected in ["", "ba78", &"g".repeat(64)] {
            let error = open_verified(file_of(b"abc").path(), expected, |_, _| {}).unwrap_err();
            assert!(matches!(error, DigestError::Malformed { .. }), "{error}");
        }
    }
}
