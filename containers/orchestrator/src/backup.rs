//! `--backup DIR`: a consistent copy of the jobs and files while the orchestrator runs, by a
//! process of its own that asks it for nothing.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aisemble_jobs::store::sqlite;
use aisemble_service::StartError;

use crate::config::Config;

/// Takes `--backup DIR` out of the arguments: the rest is the service's own.
#[must_use]
pub fn asked(arguments: impl Iterator<Item = OsString>) -> (Option<PathBuf>, Vec<OsString>) {
    let (mut to, mut rest) = (None, Vec::new());
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        // Without a folder it is left for the service to refuse.
        if argument == "--backup" && arguments.peek().is_some() {
            to = arguments.next().map(PathBuf::from);
        } else {
            rest.push(argument);
        }
    }
    (to, rest)
}

/// Writes the copy to the new folder `to`: `jobs.db`, and `files` with every content that it names.
///
/// # Errors
/// When `to` exists or cannot be written, or the store is damaged.
pub fn run(config: &Config, to: &Path) -> Result<ExitCode, StartError> {
    let failed = |what: &str| {
        let what = format!("{what} {}", to.display());
        move |source: io::Error| StartError::failed(what).with_source(source)
    };
    DirBuilder::new().mode(0o700).create(to).map_err(failed("cannot make the new folder"))?;
    let copy = to.join("jobs.db");
    let contents = sqlite::backup(&config.store.dir, &copy).map_err(|source| {
        StartError::failed("the job store cannot be copied").with_source(source)
    })?;
    let (mut copied, mut gone) = (0_usize, 0_usize);
    for sha256 in contents {
        let name: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let relative = Path::new("blobs").join(&name[..2]).join(&name);
        match place(&config.files.dir.join(&relative), &to.join("files").join(&relative)) {
            Ok(()) => copied += 1,
            // Deleted since the snapshot: the copy forgets it, too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sqlite::forget(&copy, &sha256).map_err(|source| {
                    StartError::failed("the copy cannot be completed").with_source(source)
                })?;
                gone += 1;
            }
            Err(source) => return Err(failed("cannot copy files to")(source)),
        }
    }
    sync_all(to).map_err(failed("cannot sync"))?;
    tracing::info!(
        backup.folder = %to.display(),
        files.copied = copied,
        files.deleted_meanwhile = gone,
        "the backup is complete"
    );
    Ok(ExitCode::SUCCESS)
}

/// Links a content, which never changes, or copies it when it is on another file system.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Where links are not allowed, or cross file systems, it is copied.
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
        linked => linked,
    }
}

/// Makes the names in every folder durable.
fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        }
    }
    File::open(dir)?.sync_all()
}
