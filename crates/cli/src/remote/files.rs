//! `ai-semble files`: upload, download, list, delete.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aisemble_client::{Client, Upload};
use aisemble_protocol::FileId;
use aisemble_protocol::file::{FileView, Purpose};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::connect;
use super::texts::short;
use crate::args::{FilesCommand, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{Terminal, size, span};

const PIECE_BYTES: usize = 256 * 1024;
/// Files on one page of the list.
const PAGE_MAX: u32 = 1000;

/// Runs the command.
///
/// # Errors
/// As the call; when a file cannot be read or written.
pub async fn run(global: &Global, command: FilesCommand, terminal: Terminal) -> Outcome<()> {
    let client = connect(global)?;
    match command {
        FilesCommand::Put { paths, purpose } => {
            for path in &paths {
                let file = upload(&client, path, purpose, terminal).await?;
                if terminal.json {
                    terminal.data(&file)?;
                } else {
                    terminal.line(&file.id.to_string())?;
                }
            }
            Ok(())
        }
        FilesCommand::Get { id, output, force } => {
            let file = client.file(parse(&id)?).await?;
            get(&client, &file, output, force, terminal).await
        }
        FilesCommand::List { limit } => list(&client, limit, terminal).await,
        FilesCommand::Rm { ids } => {
            for id in &ids {
                let deleted = client.delete_file(parse(id)?).await?;
                terminal.note(&format!("Deleted {}", deleted.id));
                if terminal.json {
                    terminal.data(&deleted)?;
                }
            }
            Ok(())
        }
    }
}

pub(super) fn parse(id: &str) -> Outcome<FileId> {
    id.parse().map_err(|_| {
        Failure::new(Exit::Usage, format!("{id:?} is no file id"))
            .hint("`ai-semble files list` shows them")
    })
}

/// Uploads a file under its own name.
pub(super) async fn upload(
    client: &Client,
    path: &Path,
    purpose: Purpose,
    terminal: Terminal,
) -> Outcome<FileView> {
    let file = File::open(path).map_err(|error| Failure::file("open", path, error))?;
    let data = file.metadata().map_err(|error| Failure::file("open", path, error))?;
    if !data.is_file() {
        return Err(Failure::new(Exit::Usage, format!("{} is no file", path.display())));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let upload = Upload { name: name.unwrap_or_default(), purpose, bytes: data.len() };
    let bar = terminal.bytes_bar(&format!("uploading {}", short(&upload.name, 40)), data.len());
    let watched = bar.clone();
    // Local files are read where the command waits anyway: there is nothing else to do meanwhile.
    let pieces = futures_util::stream::unfold(Some(file), move |file| {
        let watched = watched.clone();
        async move {
            let mut file = file?;
            let mut piece = vec![0; PIECE_BYTES];
            match file.read(&mut piece) {
                Ok(0) => None,
                Ok(read) => {
                    piece.truncate(read);
                    watched.inc(read as u64);
                    Some((Ok(Bytes::from(piece)), Some(file)))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    let stored = client.upload_file(&upload, pieces).await;
    bar.finish_and_clear();
    Ok(stored?)
}

async fn get(
    client: &Client,
    file: &FileView,
    output: Option<PathBuf>,
    force: bool,
    terminal: Terminal,
) -> Outcome<()> {
    if output.as_deref() == Some(Path::new("-")) {
        let mut out = std::io::stdout().lock();
        return client
            .download_file(file.id, |piece| {
                out.write_all(piece).map_err(|error| {
                    Failure::new(Exit::Failed, "cannot write to standard output").because(error)
                })
            })
            .await;
    }
    let path = match output {
        Some(path) => path,
        // The name came from whoever stored the file: it must not lead elsewhere.
        None => crate::models::plain_name(Path::new(&file.filename))?.into(),
    };
    save(client, file, &path, force, terminal).await?;
    if terminal.json {
        return terminal.data(file);
    }
    terminal.note(&format!("Wrote {} ({})", path.display(), size(file.bytes)));
    Ok(())
}

/// Downloads a file and checks its digest; on a wrong one nothing is left behind.
pub(super) async fn save(
    client: &Client,
    file: &FileView,
    path: &Path,
    force: bool,
    terminal: Terminal,
) -> Outcome<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(force).create_new(!force).truncate(force);
    let mut target = options.open(path).map_err(|error| {
        let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let failure = Failure::file("write", path, error);
        if is_there { failure.hint("it is there: --force writes over it") } else { failure }
    })?;
    let bar = terminal.bytes_bar("downloading", file.bytes);
    let mut hash = Sha256::new();
    let done = client
        .download_file(file.id, |piece| {
            hash.update(piece);
            bar.inc(piece.len() as u64);
            target.write_all(piece).map_err(|error| Failure::file("write", path, error))
        })
        .await;
    bar.finish_and_clear();
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let checked = done.and_then(|()| {
        if found == file.sha256 {
            return Ok(());
        }
        let message = format!("{} came with another digest", file.id);
        Err(Failure::new(Exit::CheckFailed, message)
            .because(format!("expected sha256 {}, found {found}", file.sha256)))
    });
    if checked.is_err() {
        let _ = fs::remove_file(path);
    }
    checked
}

async fn list(client: &Client, limit: u32, terminal: Terminal) -> Outcome<()> {
    let (mut files, mut after) = (Vec::new(), None);
    loop {
        let missing = limit.saturating_sub(u32::try_from(files.len()).unwrap_or(u32::MAX));
        if missing == 0 {
            break;
        }
        let page = client.files(after, missing.min(PAGE_MAX)).await?;
        files.extend(page.data);
        after = page.last_id;
        if !page.has_more || after.is_none() {
            break;
        }
    }
    if terminal.json {
        return files.iter().try_for_each(|file| terminal.data(file));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let row = |file: &FileView| {
        let age = since.saturating_sub(Duration::from_secs(file.created_at));
        vec![
            file.id.to_string(),
            short(&file.filename, 40),
            size(file.bytes),
            file.purpose.as_str().to_owned(),
            span(age),
        ]
    };
    let rows: Vec<_> = files.iter().map(row).collect();
    terminal.table(&["ID", "NAME", "SIZE", "PURPOSE", "AGE"], &rows)
}
