//! What lies beside the jobs, in memory: files, schedules, rows, paused queues.

use aisemble_protocol::{FileId, JobId};
use uuid::Uuid;

use super::MemoryStore;
use crate::error::JobsError;
use crate::store::files::{
    self, DroppedFile, FileFilter, FileRecord, FileStore, Files, Quota, Usage,
};
use crate::store::row_results::{
    ROWS_PAGE_BYTES_MAX, ROWS_PAGE_MAX, RowResult, RowStore, RowTally,
};
use crate::store::schedules::{
    Fired, SCHEDULES_PER_OWNER_MAX, ScheduleRecord, ScheduleStore, too_many,
};
use crate::store::{Held, StoreFuture};

/// Files and schedules, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Beside {
    files: Vec<FileRecord>,
    schedules: Vec<ScheduleRecord>,
    pub(super) paused: std::collections::BTreeSet<String>,
}

impl Beside {
    fn usage(&self, owner: &str) -> Usage {
        let own: Vec<_> = self.files.iter().filter(|file| file.owner == owner).collect();
        Usage { files: own.len() as u64, bytes: own.iter().map(|file| file.bytes).sum() }
    }
}

impl FileStore for MemoryStore {
    fn put_file(&self, record: FileRecord, quota: Quota) -> StoreFuture<'_, FileRecord> {
        self.answer(|model| {
            if let Some(known) = model.beside.files.iter().find(|file| file.id == record.id) {
                return files::same(known.clone(), &record);
            }
            files::within(model.beside.usage(&record.owner), &record, quota)?;
            model.beside.files.push(record.clone());
            Ok(record)
        })
    }
    fn file(&self, id: FileId) -> StoreFuture<'_, Option<FileRecord>> {
        self.answer(|model| Ok(model.beside.files.iter().find(|file| file.id == id).cloned()))
    }
    fn files(&self, filter: FileFilter) -> StoreFuture<'_, Files> {
        self.answer(|model| {
            let mut all = model.beside.files.clone();
            if !filter.ascending {
                all.reverse();
            }
            if let Some(after) = filter.after {
                let place = all.iter().position(|file| file.id == after);
                all = place.map_or(Vec::new(), |place| all.split_off(place + 1));
            }
            all.retain(|file| {
                filter.owner.as_ref().is_none_or(|owner| file.owner == *owner)
                    && filter.purpose.is_none_or(|purpose| file.purpose == purpose)
            });
            let more = all.len() > filter.limit as usize;
            all.truncate(filter.limit as usize);
            Ok(Files { files: all, more })
        })
    }
    fn drop_file(&self, id: FileId) -> StoreFuture<'_, Option<DroppedFile>> {
        self.answer(|model| {
            let files = &mut model.beside.files;
            let Some(place) = files.iter().position(|file| file.id == id) else { return Ok(None) };
            let record = files.remove(place);
            let last = files.iter().all(|file| file.sha256 != record.sha256);
            Ok(Some(DroppedFile { record, last }))
        })
    }
    fn files_due(&self, now_ms: u64, files_max: usize) -> StoreFuture<'_, Vec<FileId>> {
        self.answer(|model| {
            let over = |file: &&FileRecord| file.expires_at_ms.is_some_and(|at| at <= now_ms);
            let mut due: Vec<_> = model.beside.files.iter().filter(over).collect();
            due.sort_by_key(|file| file.expires_at_ms);
            Ok(due.iter().take(files_max).map(|file| file.id).collect())
        })
    }
    fn contents(&self) -> StoreFuture<'_, Vec<[u8; 32]>> {
        self.answer(|model| {
            let mut all: Vec<_> = model.beside.files.iter().map(|file| file.sha256).collect();
            all.sort_unstable();
            all.dedup();
            Ok(all)
        })
    }
    fn file_usage(&self, owner: String) -> StoreFuture<'_, Usage> {
        self.answer(|model| Ok(model.beside.usage(&owner)))
    }
}

impl RowStore for MemoryStore {
    fn put_rows(&self, held: Held, rows: Vec<RowResult>) -> StoreFuture<'_, ()> {
        self.answer(|model| {
            let Held { id, lease } = held;
            let kept = model.number(id).and_then(|n| model.jobs.get_mut(&n));
            let kept = kept.filter(|kept| kept.record.held_under(lease));
            let kept = kept.ok_or(JobsError::LeaseLost { id, lease })?;
            for row in rows {
                kept.rows.entry(row.row).or_insert(row);
            }
            Ok(())
        })
    }
    fn rows(&self, id: JobId, from: u32) -> StoreFuture<'_, Vec<RowResult>> {
        self.answer(|model| {
            let kept = model.number(id).and_then(|n| model.jobs.get(&n));
            let mut bytes = 0;
            let rows = kept.into_iter().flat_map(|kept| kept.rows.range(from..));
            let page = rows.take(ROWS_PAGE_MAX).take_while(|(_, row)| {
                let room = bytes < ROWS_PAGE_BYTES_MAX;
                bytes += row.data.len();
                room
            });
            Ok(page.map(|(_, row)| row.clone()).collect())
        })
    }
    fn row_tally(&self, parent: JobId) -> StoreFuture<'_, RowTally> {
        self.answer(|model| {
            let children = model.jobs.values().filter(|kept| kept.record.parent == Some(parent));
            let mut tally = RowTally::default();
            for row in children.flat_map(|kept| kept.rows.values()) {
                tally.done += 1;
                tally.failed += u64::from(row.failed);
                tally.tokens += row.tokens;
            }
            Ok(tally)
        })
    }
}

impl ScheduleStore for MemoryStore {
    fn put_schedule(&self, record: ScheduleRecord) -> StoreFuture<'_, ()> {
        self.answer(|model| {
            let all = &mut model.beside.schedules;
            let known = all.iter_mut().find(|s| s.id == record.id && s.owner == record.owner);
            if let Some(known) = known {
                (known.body, known.next_at_ms) = (record.body, record.next_at_ms);
                return Ok(());
            }
            let count = all.iter().filter(|known| known.owner == record.owner).count();
            if count >= SCHEDULES_PER_OWNER_MAX {
                return Err(too_many());
            }
            all.push(ScheduleRecord { last_at_ms: None, last_job: None, ..record });
            Ok(())
        })
    }
    fn schedules(&self, owner: Option<String>) -> StoreFuture<'_, Vec<ScheduleRecord>> {
        self.answer(|model| {
            let own = |s: &&ScheduleRecord| owner.as_ref().is_none_or(|owner| s.owner == *owner);
            Ok(model.beside.schedules.iter().filter(own).cloned().collect())
        })
    }
    fn drop_schedule(&self, id: Uuid) -> StoreFuture<'_, bool> {
        self.answer(|model| {
            let before = model.beside.schedules.len();
            model.beside.schedules.retain(|schedule| schedule.id != id);
            Ok(model.beside.schedules.len() < before)
        })
    }
    fn schedules_due(&self, now_ms: u64, max: usize) -> StoreFuture<'_, Vec<ScheduleRecord>> {
        self.answer(|model| {
            let due = |s: &&ScheduleRecord| s.next_at_ms.is_some_and(|at| at <= now_ms);
            let mut due: Vec<_> = model.beside.schedules.iter().filter(due).cloned().collect();
            due.sort_by_key(|schedule| schedule.next_at_ms);
            due.truncate(max);
            Ok(due)
        })
    }
    fn schedule_fired(&self, fired: Fired) -> StoreFuture<'_, bool> {
        self.answer(|model| {
            let due =
                |s: &&mut ScheduleRecord| s.id == fired.id && s.next_at_ms == Some(fired.due_at_ms);
            let Some(schedule) = model.beside.schedules.iter_mut().find(due) else {
                return Ok(false);
            };
            schedule.next_at_ms = fired.next_at_ms;
            schedule.last_at_ms = Some(fired.due_at_ms);
            schedule.last_job = fired.job.or(schedule.last_job);
            Ok(true)
        })
    }
}
