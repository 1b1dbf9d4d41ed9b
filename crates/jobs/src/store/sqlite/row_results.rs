//! Results of rows, as rows.

use aisemble_protocol::JobId;
use rusqlite::{OptionalExtension, params};

use super::failure::{int, uint};
use super::writer::Writing;
use super::{SqliteStore, rows};
use crate::error::JobsError;
use crate::store::row_results::{
    ROWS_PAGE_BYTES_MAX, ROWS_PAGE_MAX, RowResult, RowStore, RowTally,
};
use crate::store::{Held, StoreFuture};

impl Writing<'_> {
    fn put_rows(&self, held: Held, results: &[RowResult]) -> Result<(), JobsError> {
        let Held { id, lease } = held;
        let sql = "SELECT n FROM jobs WHERE id = ?1 AND state = 3 AND lease = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let n: Option<i64> = statement
            .query_row(params![rows::bytes_of(&id), int(lease)], |row| row.get(0))
            .optional()?;
        let n = n.ok_or(JobsError::LeaseLost { id, lease })?;
        let mut statement = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO row_results (job, row, failed, tokens, data) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for result in results {
            let of = params![n, result.row, result.failed, int(result.tokens), result.data];
            statement.execute(of)?;
        }
        Ok(())
    }
}

impl RowStore for SqliteStore {
    fn put_rows(&self, held: Held, rows: Vec<RowResult>) -> StoreFuture<'_, ()> {
        self.write(move |writing| writing.put_rows(held, &rows))
    }
    fn rows(&self, id: JobId, from: u32) -> StoreFuture<'_, Vec<RowResult>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT row, failed, tokens, data FROM row_results \
                 WHERE job = (SELECT n FROM jobs WHERE id = ?1) AND row >= ?2 \
                 ORDER BY row LIMIT ?3",
            )?;
            let limit = ROWS_PAGE_MAX as i64;
            let mut found = statement.query(params![rows::bytes_of(&id), from, limit])?;
            let (mut page, mut bytes) = (Vec::new(), 0);
            while bytes < ROWS_PAGE_BYTES_MAX {
                let Some(row) = found.next()? else { break };
                let data: Vec<u8> = row.get(3)?;
                bytes += data.len();
                let tokens = uint(row.get(2)?);
                page.push(RowResult { row: row.get(0)?, failed: row.get(1)?, tokens, data });
            }
            Ok(page)
        })
    }
    fn row_tally(&self, parent: JobId) -> StoreFuture<'_, RowTally> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT count(*), coalesce(sum(failed), 0), coalesce(sum(tokens), 0) \
                 FROM row_results WHERE job IN (SELECT n FROM jobs WHERE parent = ?1)",
            )?;
            Ok(statement.query_row([rows::bytes_of(&parent)], |row| {
                let number = |index| row.get(index).map(uint);
                Ok(RowTally { done: number(0)?, failed: number(1)?, tokens: number(2)? })
            })?)
        })
    }
}
