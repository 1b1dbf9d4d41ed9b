//! What the whole-product tests stand on: where the repository and its binaries are, and a real
//! local stack of them. It knows the products only from outside: command line, HTTP, sockets.

use std::path::PathBuf;

/// The folder that holds the root manifest.
#[must_use]
pub fn repository_root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}
