//! What the whole-product tests stand on: where the repository and its binaries are, and a real
//! local stack of them. It knows the products only from outside: command line, HTTP, sockets.

pub mod http;
pub mod quadlet;
pub mod stack;

use std::path::PathBuf;

/// The folder that holds the root manifest.
#[must_use]
pub fn repository_root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// The folder with the model and the clients that `scripts/test.sh` fetched.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("AISEMBLE_TEST_CACHE") {
        return cache.into();
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    PathBuf::from(home).join(".cache/ai-semble")
}

/// A binary of the workspace: cargo puts them one folder above the test's own.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.parent().and_then(|deps| deps.parent()).map(PathBuf::from);
    let path = folder.unwrap_or_default().join(name);
    assert!(path.exists(), "{} is not built: run scripts/test.sh", path.display());
    path
}
