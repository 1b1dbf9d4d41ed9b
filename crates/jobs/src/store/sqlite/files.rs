//! The index of files as rows.

use aisemble_protocol::FileId;
use aisemble_protocol::file::Purpose;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::SqliteStore;
use super::failure::{int, uint};
use super::writer::Writing;
use crate::error::{JobsError, StoreError};
use crate::store::StoreFuture;
use crate::store::files::{DroppedFile, FileFilter, FileRecord, FileStore, Files, Quota, Usage};

const SELECT: &str = "SELECT n, id, owner, name, purpose, bytes, sha256, created_at_ms, \
    expires_at_ms FROM files";

fn digest(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::BadRow { column: "sha256" })
}

fn read(row: &Row<'_>) -> Result<(i64, FileRecord), JobsError> {
    let id: Vec<u8> = row.get(1)?;
    let id = uuid::Uuid::from_slice(&id).map_err(|_| StoreError::BadRow { column: "id" })?;
    let purpose: String = row.get(4)?;
    let sha256: Vec<u8> = row.get(6)?;
    let record = FileRecord {
        id: FileId(id),
        owner: row.get(2)?,
        name: row.get(3)?,
        purpose: Purpose::parse(&purpose).ok_or(StoreError::BadRow { column: "purpose" })?,
        bytes: uint(row.get(5)?),
        sha256: digest(&sha256)?,
        created_at_ms: uint(row.get(7)?),
        expires_at_ms: row.get::<_, Option<i64>>(8)?.map(uint),
    };
    Ok((row.get(0)?, record))
}

fn find(connection: &Connection, id: FileId) -> Result<Option<(i64, FileRecord)>, JobsError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    let found = statement.query_row([id.0.as_bytes().as_slice()], |row| Ok(read(row)));
    found.optional()?.transpose()
}

fn usage(connection: &Connection, owner: &str) -> Result<Usage, JobsError> {
    let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE owner = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([owner], |row| {
        Ok(Usage { files: uint(row.get(0)?), bytes: uint(row.get(1)?) })
    })?)
}

fn list(connection: &Connection, filter: &FileFilter) -> Result<Files, JobsError> {
    let mut sql = format!("{SELECT} WHERE 1");
    let mut values = Vec::new();
    if let Some(owner) = &filter.owner {
        sql.push_str(" AND owner = ?");
        values.push(Value::from(owner.clone()));
    }
    if let Some(purpose) = filter.purpose {
        sql.push_str(" AND purpose = ?");
        values.push(Value::from(purpose.as_str().to_owned()));
    }
    if let Some(after) = filter.after {
        let Some((n, _)) = find(connection, after)? else { return Ok(Files::default()) };
        sql.push_str(if filter.ascending { " AND n > ?" } else { " AND n < ?" });
        values.push(Value::from(n));
    }
    sql.push_str(if filter.ascending { " ORDER BY n LIMIT ?" } else { " ORDER BY n DESC LIMIT ?" });
    values.push(Value::from(i64::from(filter.limit) + 1));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = Files::default();
    while let Some(row) = rows.next()? {
        if page.files.len() == filter.limit as usize {
            page.more = true;
            break;
        }
        page.files.push(read(row)?.1);
    }
    Ok(page)
}

impl Writing<'_> {
    fn put_file(&self, record: &FileRecord, quota: Quota) -> Result<FileRecord, JobsError> {
        if let Some((_, known)) = find(self.connection, record.id)? {
            return crate::store::files::same(known, record);
        }
        crate::store::files::within(usage(self.connection, &record.owner)?, record, quota)?;
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO files (id, owner, name, purpose, bytes, sha256, created_at_ms, \
             expires_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        statement.execute(params![
            record.id.0.as_bytes().as_slice(),
            record.owner,
            record.name,
            record.purpose.as_str(),
            int(record.bytes),
            record.sha256.as_slice(),
            int(record.created_at_ms),
            record.expires_at_ms.map(int),
        ])?;
        Ok(record.clone())
    }

    fn drop_file(&self, id: FileId) -> Result<Option<DroppedFile>, JobsError> {
        let Some((n, record)) = find(self.connection, id)? else { return Ok(None) };
        self.connection.prepare_cached("DELETE FROM files WHERE n = ?1")?.execute([n])?;
        let sql = "SELECT 1 FROM files WHERE sha256 = ?1 LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let last = !statement.exists([record.sha256.as_slice()])?;
        Ok(Some(DroppedFile { record, last }))
    }
}

impl FileStore for SqliteStore {
    fn put_file(&self, record: FileRecord, quota: Quota) -> StoreFuture<'_, FileRecord> {
        self.write(move |writing| writing.put_file(&record, quota))
    }
    fn file(&self, id: FileId) -> StoreFuture<'_, Option<FileRecord>> {
        self.read(move |connection| Ok(find(connection, id)?.map(|(_, record)| record)))
    }
    fn files(&self, filter: FileFilter) -> StoreFuture<'_, Files> {
        self.read(move |connection| list(connection, &filter))
    }
    fn drop_file(&self, id: FileId) -> StoreFuture<'_, Option<DroppedFile>> {
        self.write(move |writing| writing.drop_file(id))
    }
    fn files_due(&self, now_ms: u64, files_max: usize) -> StoreFuture<'_, Vec<FileId>> {
        self.read(move |connection| {
            let sql = format!(
                "{SELECT} WHERE expires_at_ms IS NOT NULL AND expires_at_ms <= ?1 \
                 ORDER BY expires_at_ms, n LIMIT ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let limit = i64::try_from(files_max).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![int(now_ms), limit])?;
            let mut ids = Vec::new();
            while let Some(row) = rows.next()? {
                ids.push(read(row)?.1.id);
            }
            Ok(ids)
        })
    }
    fn contents(&self) -> StoreFuture<'_, Vec<[u8; 32]>> {
        self.read(|connection| {
            let sql = "SELECT DISTINCT sha256 FROM files ORDER BY sha256";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                all.push(digest(&row.get::<_, Vec<u8>>(0)?)?);
            }
            Ok(all)
        })
    }
    fn file_usage(&self, owner: String) -> StoreFuture<'_, Usage> {
        self.read(move |connection| usage(connection, &owner))
    }
}
