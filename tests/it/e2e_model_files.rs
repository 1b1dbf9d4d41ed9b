//! Model files that are not what they say: refused before anything of them is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aisemble_tests::binary;
use aisemble_tests::stack::model_file;

/// Starts the llm service on `model`; gives its exit code and what it said.
fn refuse(model: &Path, sha256: Option<&str>) -> (i32, String) {
    let run = tempfile::Builder::new().prefix("ais").tempdir().unwrap();
    let mut command = Command::new(binary("ai-semble-llm"));
    command
        .arg("--set")
        .arg(format!("model.path={}", model.display()))
        .arg("--set")
        .arg("model.name=suspect")
        .arg("--set")
        .arg(format!("socket.path={}", run.path().join("llm.sock").display()));
    if let Some(sha256) = sha256 {
        command.arg("--set").arg(format!("model.sha256={sha256}"));
    }
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn beginning_of_the_real_model(bytes: usize) -> Vec<u8> {
    let mut whole = fs::read(model_file()).unwrap();
    whole.truncate(bytes);
    whole
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn a_truncated_gguf_is_refused() {
    for bytes in [0, 3, 20, 10_000, 2_000_000, 50_000_000] {
        let (_folder, path) = written("cut.gguf", &beginning_of_the_real_model(bytes));
        let (code, said) = refuse(&path, None);
        assert!(code > 0, "{bytes} bytes: exit code {code}\n{said}");
        assert!(said.contains("cut.gguf"), "{bytes} bytes: {said}");
        assert!(!said.contains("panicked"), "{bytes} bytes: {said}");
    }
}

#[test]
fn a_gguf_with_absurd_counts_is_refused() {
    for (offset, what) in [(8, "tensors"), (16, "metadata")] {
        let mut bytes = beginning_of_the_real_model(4096);
        bytes[offset..offset + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let (_folder, path) = written("absurd.gguf", &bytes);
        let (code, said) = refuse(&path, None);
        assert!(code > 0 && !said.contains("panicked"), "{what}: exit code {code}\n{said}");
        assert!(said.contains("absurd.gguf"), "{what}: {said}");
    }
}

#[test]
fn a_model_with_another_digest_is_refused() {
    let wrong = "00".repeat(32);
    let (code, said) = refuse(&model_file(), Some(&wrong));
    assert!(code > 0, "{said}");
    assert!(said.contains(&wrong), "names what was expected: {said}");
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let (code, said) = refuse(Path::new("/nonexistent/model.gguf"), None);
    assert!(code > 0, "{said}");
    assert!(said.contains("/nonexistent/model.gguf"), "{said}");
}
