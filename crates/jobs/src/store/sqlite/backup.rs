//! A consistent copy of the database while it is in use: one snapshot, written as a new file.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use aisemble_protocol::FileId;
use rusqlite::{Connection, OpenFlags};

use super::failure::failed;
use super::{open, schema};
use crate::error::StoreError;

/// Writes what the store in `dir` holds now to the new file `to`, mode 0600, and syncs it. Another
/// process may have the store open. Gives the digests of the contents that its files have.
///
/// # Errors
/// When there is no store in `dir`, `to` exists or cannot be written, or the database is newer than
/// this program or damaged.
pub fn backup(dir: &Path, to: &Path) -> Result<Vec<[u8; 32]>, StoreError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Path { path, source }
    };
    // SQLite fills an empty file; made here, so that it never has another mode.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    file.map_err(at(to))?;
    let path = dir.join(open::DATABASE);
    std::fs::metadata(&path).map_err(at(&path))?;
    // Writing is not wanted, but reading a log that nobody has open needs its index made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(30)).map_err(failed)?;
    let found = schema::version(&connection)?;
    if found != schema::VERSION {
        return Err(StoreError::NewerSchema { found, known: schema::VERSION });
    }
    let name = to.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [&*name]).map_err(failed)?;
    drop(connection);
    let file = File::open(to).map_err(at(to))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(at(to))?;
    file.sync_all().map_err(at(to))?;
    contents(to)
}

fn contents(path: &Path) -> Result<Vec<[u8; 32]>, StoreError> {
    let connection = Connection::open(path).map_err(failed)?;
    let answer: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if answer != "ok" {
        return Err(StoreError::Corrupt { detail: answer });
    }
    let sql = "SELECT DISTINCT sha256 FROM files ORDER BY sha256";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    rows.map(|row| {
        let bytes = row.map_err(failed)?;
        bytes.as_slice().try_into().map_err(|_| StoreError::BadRow { column: "sha256" })
    })
    .collect()
}

/// Takes the files of a content out of a copy made by [`backup`]: it was deleted before it could be
/// copied, too. Gives their ids.
///
/// # Errors
/// SQLite's.
pub fn forget(copy: &Path, sha256: &[u8; 32]) -> Result<Vec<FileId>, StoreError> {
    let connection = Connection::open(copy).map_err(failed)?;
    let sql = "DELETE FROM files WHERE sha256 = ?1 RETURNING id";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([sha256.as_slice()], |row| row.get::<_, Vec<u8>>(0));
    rows.map_err(failed)?
        .map(|row| {
            let id = uuid::Uuid::from_slice(&row.map_err(failed)?);
            id.map(FileId).map_err(|_| StoreError::BadRow { column: "id" })
        })
        .collect()
}
