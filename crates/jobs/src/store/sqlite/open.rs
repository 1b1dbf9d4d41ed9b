//! Opening the database: directory and file modes, the lock, the check, the settings of a
//! connection.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::failure::{failed, int};
use super::schema;
use crate::config::StoreConfig;
use crate::error::StoreError;

pub(super) const DATABASE: &str = "jobs.db";
const LOCK: &str = "jobs.lock";
/// Statements that a connection keeps prepared; more than all that there are.
const STATEMENTS_MAX: usize = 128;
/// Memory of the writer's page cache, KiB.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Memory of a reader's page cache, KiB.
const READER_CACHE_KIB: i64 = 4 * 1024;
/// Pages of the write-ahead log after which it is moved into the database.
const CHECKPOINT_PAGES: i64 = 2_000;
/// The write-ahead log is cut back to this size, bytes.
const LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// An open database, with what its owner must hold.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    /// Holds the lock until it is dropped; the kernel drops it when the process dies.
    pub(super) lock: File,
    pub(super) path: PathBuf,
}

/// Opens the database of `config`, making it when it is not there.
pub(super) fn open(config: &StoreConfig) -> Result<Opened, StoreError> {
    config.validate()?;
    make_dir(&config.dir)?;
    let lock = lock(&config.dir.join(LOCK))?;
    let path = config.dir.join(DATABASE);
    let bytes = make_file(&path)?;
    let mut writer = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    if bytes > 0 {
        refuse_newer_or_damaged(&writer, bytes <= config.check_bytes_max)?;
    }
    durable(&writer, config.bytes_max)?;
    schema::migrate(&mut writer)?;
    // The names of new files are durable too.
    sync_dir(&config.dir)?;
    let mut readers = Vec::with_capacity(config.readers);
    for _ in 0..config.readers {
        readers.push(connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)?);
    }
    Ok(Opened { writer, readers, lock, path })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Path { path, source }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

fn private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(at(path))?;
    let mode = file.metadata().map_err(at(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(at(path))?;
    }
    Ok(file)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = private(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Path { path: path.to_owned(), source }),
    }
}

/// Makes the file with its mode before SQLite sees it: its log files take the same mode. Gives its
/// size. It is closed again before SQLite opens it: closing it later would drop SQLite's own locks.
fn make_file(path: &Path) -> Result<u64, StoreError> {
    let file = private(path)?;
    Ok(file.metadata().map_err(at(path))?.len())
}

fn connect(path: &Path, access: OpenFlags, cache_kib: i64) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    let set = |name, value: &str| connection.pragma_update(None, name, value).map_err(failed);
    set("cache_size", &(-cache_kib).to_string())?;
    set("temp_store", "MEMORY")?;
    set("trusted_schema", "OFF")?;
    set("cell_size_check", "ON")?;
    Ok(connection)
}

fn refuse_newer_or_damaged(connection: &Connection, check: bool) -> Result<(), StoreError> {
    let found = schema::version(connection)?;
    if found > schema::VERSION {
        return Err(StoreError::NewerSchema { found, known: schema::VERSION });
    }
    if !check {
        tracing::warn!("the job database is not checked: it is larger than store.check_bytes_max");
        return Ok(());
    }
    let answer: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if answer == "ok" { Ok(()) } else { Err(StoreError::Corrupt { detail: answer }) }
}

/// A write-ahead log that is on the disk when a commit returns.
fn durable(connection: &Connection, bytes_max: u64) -> Result<(), StoreError> {
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        let detail = format!("journal mode is {mode}, not wal");
        return Err(StoreError::Corrupt { detail });
    }
    let set = |name, value: i64| connection.pragma_update(None, name, value).map_err(failed);
    set("synchronous", 2)?;
    set("wal_autocheckpoint", CHECKPOINT_PAGES)?;
    set("journal_size_limit", LOG_BYTES_MAX)?;
    connection.pragma_update(None, "secure_delete", "FAST").map_err(failed)?;
    if bytes_max > 0 {
        let page_bytes: i64 =
            connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;
        set("max_page_count", (int(bytes_max) / page_bytes.max(1)).max(1))?;
    }
    Ok(())
}
