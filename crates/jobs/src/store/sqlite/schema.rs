//! The tables, and how a database of an older version becomes one of this version.
//!
//! `jobs` holds what changes; payloads lie in `bodies` so that no change of state copies them.
//! Times are milliseconds since 1970, states and priorities the numbers of `rows`.

use rusqlite::Connection;

use super::failure::failed;
use crate::error::StoreError;

/// Each brings the schema from its index to the next version.
const MIGRATIONS: [&str; 2] = [V1, V2];

/// The version that this program writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

const V1: &str = "
CREATE TABLE jobs (
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  capability TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  attempts_max INTEGER NOT NULL,
  lease INTEGER NOT NULL,
  lease_until_ms INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  started_at_ms INTEGER,
  finished_at_ms INTEGER,
  run_at_ms INTEGER,
  ready_at_ms INTEGER NOT NULL,
  deadline_at_ms INTEGER,
  cancel_requested INTEGER NOT NULL,
  error_code TEXT,
  error_message TEXT,
  needs INTEGER NOT NULL,
  needs_open INTEGER NOT NULL,
  dependants INTEGER NOT NULL,
  event_seq INTEGER NOT NULL,
  emitted INTEGER NOT NULL,
  emitted_bytes INTEGER NOT NULL,
  keep_until_ms INTEGER NOT NULL,
  purge_at_ms INTEGER,
  due_at_ms INTEGER
) STRICT;
-- What may be claimed, what runs, and the depth of each queue: one index, so that a change of state
-- moves one entry. A query must say 'state < 4' for SQLite to take a partial index.
CREATE INDEX jobs_active ON jobs (state, capability, owner, priority, ready_at_ms)
  WHERE state < 4;
CREATE INDEX jobs_due ON jobs (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX jobs_purge ON jobs (purge_at_ms) WHERE purge_at_ms IS NOT NULL;
CREATE INDEX jobs_owner ON jobs (owner);
CREATE TABLE bodies (
  job INTEGER PRIMARY KEY,
  metadata TEXT,
  trace_parent TEXT,
  payload BLOB NOT NULL
) STRICT;
CREATE TABLE results (job INTEGER PRIMARY KEY, result BLOB NOT NULL) STRICT;
CREATE TABLE events (
  job INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE needs (
  job INTEGER NOT NULL,
  ord INTEGER NOT NULL,
  need BLOB NOT NULL,
  PRIMARY KEY (job, ord)
) STRICT, WITHOUT ROWID;
CREATE INDEX needs_need ON needs (need);
CREATE TABLE idempotency (
  owner TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  job_id BLOB NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires_at_ms);
";

const V2: &str = "
ALTER TABLE jobs ADD COLUMN parent BLOB;
ALTER TABLE jobs ADD COLUMN resumes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_parent ON jobs (parent) WHERE parent IS NOT NULL;
CREATE TABLE row_results (
  job INTEGER NOT NULL,
  row INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (job, row)
) STRICT;
CREATE TABLE files (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  name TEXT NOT NULL,
  purpose TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER
) STRICT;
CREATE INDEX files_owner ON files (owner);
CREATE INDEX files_sha256 ON files (sha256);
CREATE INDEX files_expires ON files (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE TABLE schedules (
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  body BLOB NOT NULL,
  next_at_ms INTEGER,
  last_at_ms INTEGER,
  last_job BLOB,
  created_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX schedules_next ON schedules (next_at_ms) WHERE next_at_ms IS NOT NULL;
CREATE TABLE paused (capability TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// The version that the file says.
pub(super) fn version(connection: &Connection) -> Result<u32, StoreError> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)
}

/// Brings the database to [`VERSION`], each step in its own transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    if found > VERSION {
        return Err(StoreError::NewerSchema { found, known: VERSION });
    }
    for (step, version) in MIGRATIONS.iter().zip(1_u32..).skip(found as usize) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", version).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        tracing::info!(store.schema = version, "job database brought to a new schema");
    }
    Ok(())
}
