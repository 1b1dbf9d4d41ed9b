//! The file itself: modes, the lock, versions, damage, a full disk, group commit.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use aisemble_jobs::store::Store;
use aisemble_jobs::{
    ErrorCode, JobFilter, JobState, JobsError, NewJob, SqliteStore, StoreConfig, StoreError,
};

use crate::support::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn directory_and_files_are_the_owner_s_alone() {
    let fixture = sqlite(|_| {});
    block_on(submit(&*fixture.store, 1, job("ann"), T0));
    let dir = fixture.dir.as_ref().unwrap().path().join("data");
    assert_eq!(mode(&dir), 0o700);
    for name in ["jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::at(dir.path());
    let first = SqliteStore::open(&config, T0).unwrap();
    assert!(matches!(SqliteStore::open(&config, T0), Err(StoreError::InUse { .. })));
    drop(first);
    SqliteStore::open(&config, T0).unwrap();
}

#[test]
fn closing_folds_the_log_in_and_opening_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::at(dir.path());
    let store = SqliteStore::open(&config, T0).unwrap();
    block_on(async {
        submit(&store, 1, job("ann"), T0).await;
        submit(&store, 2, job("ann"), T0).await;
        claim(&store, 1, T0).await;
    });
    drop(store);
    assert!(!dir.path().join("jobs.db-wal").exists(), "folded in");
    let store = SqliteStore::open(&config, T0 + 5).unwrap();
    block_on(async {
        let rescued = view(&store, id(1)).await;
        assert_eq!((rescued.state, rescued.attempt), (JobState::Queued, 1), "the attempt counts");
        assert_eq!(history(&store, id(1)).await, ["queued", "running", "queued"]);
        assert_eq!(state(&store, id(2)).await, JobState::Queued);
    });
    assert_eq!(store.metrics().tally.rescued, 1);
}

#[test]
fn a_newer_or_damaged_or_foreign_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::at(dir.path());
    let store = SqliteStore::open(&config, T0).unwrap();
    block_on(async {
        for number in 1..200 {
            submit(&store, number, job("ann"), T0).await;
        }
    });
    drop(store);
    let path = dir.path().join("jobs.db");
    let whole = fs::read(&path).unwrap();

    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&9_u32.to_be_bytes()); // user_version
    fs::write(&path, newer).unwrap();
    let error = SqliteStore::open(&config, T0).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 9, known: 2 }), "{error}");

    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 8_192].fill(0xa5);
    fs::write(&path, damaged).unwrap();
    let error = SqliteStore::open(&config, T0).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    fs::write(&path, b"this is not a database, and long enough to look at twice").unwrap();
    let error = SqliteStore::open(&config, T0).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    fs::write(&path, whole).unwrap();
    SqliteStore::open(&config, T0).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let error = SqliteStore::open(&StoreConfig::at("/proc/no/such"), T0).unwrap_err();
    assert_eq!(error.to_string(), "cannot use /proc/no/such");
    let config = StoreConfig { readers: 0, ..StoreConfig::at("/tmp/never") };
    let error = SqliteStore::open(&config, T0).unwrap_err();
    assert_eq!(error.to_string(), "store setting readers: must be 1 to 64");
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let fixture = sqlite(|config| config.bytes_max = 1024 * 1024);
    let store = &*fixture.store;
    block_on(async {
        let big = |bytes| NewJob { payload: vec![7; bytes], ..job("ann") };
        let mut accepted = 0;
        let refused = loop {
            match store.submit(id(accepted + 1), big(100_000), T0).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, JobsError::Store(StoreError::StorageFull)), "{refused}");
        assert_eq!(refused.code(), ErrorCode::StorageFull);
        assert!(accepted >= 3, "{accepted}");
        // What fits still goes in, and what was accepted can be done.
        submit(store, 500, big(10), T0).await;
        for job in claim(store, 100, T0).await {
            settle(store, held(&job), success(), T0).await;
        }
        let listed = store.list(JobFilter::default()).await.unwrap();
        assert_eq!(listed.jobs.len() as u64, accepted + 1);
        assert!(listed.jobs.iter().all(|job| job.state == JobState::Succeeded));
        assert_eq!(store.purge(T0 + 24 * 3_600_000, 100).await.unwrap() as u64, accepted + 1);
        submit(store, 501, big(100_000), T0).await;
    });
}

#[test]
fn callers_share_commits_and_a_failing_one_fails_alone() {
    let fixture = sqlite(|config| config.bytes_max = 2 * 1024 * 1024);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 1..=200_u64 {
            let store = Arc::clone(&fixture.store);
            tasks.push(tokio::spawn(async move {
                let mut new = job("ann");
                match number % 10 {
                    1 => new.needs = vec![id(9_999)],
                    2 => new.payload = vec![7; 3 * 1024 * 1024],
                    _ => {}
                }
                (number, store.submit(id(number), new, T0).await)
            }));
        }
        for task in tasks {
            let (number, answer) = task.await.unwrap();
            match number % 10 {
                1 => assert!(matches!(answer, Err(JobsError::UnknownNeed { .. })), "{answer:?}"),
                2 => assert!(
                    matches!(answer, Err(JobsError::Store(StoreError::StorageFull))),
                    "{answer:?}"
                ),
                _ => assert!(answer.is_ok(), "{answer:?}"),
            }
            let there = fixture.store.view(id(number)).await.unwrap().is_some();
            assert_eq!(there, !matches!(number % 10, 1 | 2), "job {number}");
        }
    });
    let metrics = fixture.store.metrics();
    assert_eq!(metrics.tally.submitted, 160);
    assert!(metrics.commit_us.count() < 200, "commits were shared: {metrics:?}");
    assert_eq!(metrics.write_queue, 0);
}

#[test]
fn a_dropped_caller_s_write_stands() {
    let fixture = sqlite(|_| {});
    block_on(async {
        let mut submitting = fixture.store.submit(id(1), job("ann"), T0);
        let polled = futures_util::poll!(&mut submitting);
        assert!(polled.is_pending());
        drop(submitting);
        // The writer takes requests in order: when this one is answered, the first was committed.
        submit(&*fixture.store, 2, job("ann"), T0).await;
        assert_eq!(state(&*fixture.store, id(1)).await, JobState::Queued);
    });
}

#[test]
fn a_backup_is_taken_while_the_store_is_in_use() {
    use aisemble_jobs::store::sqlite::backup;
    let fixture = sqlite(|_| {});
    let dir = fixture.dir.as_ref().unwrap().path();
    block_on(async {
        submit(&*fixture.store, 1, job("ann"), T0).await;
    });
    let to = dir.join("copy.db");
    assert_eq!(backup(&dir.join("data"), &to).unwrap(), Vec::<[u8; 32]>::new());
    assert!(backup(&dir.join("data"), &to).is_err(), "it writes over nothing");
    block_on(async {
        submit(&*fixture.store, 2, job("ann"), T0).await;
    });
    let restored = dir.join("restored");
    std::fs::create_dir(&restored).unwrap();
    std::fs::rename(&to, restored.join("jobs.db")).unwrap();
    let store = SqliteStore::open(&StoreConfig::at(&restored), T0 + 1).unwrap();
    block_on(async {
        assert_eq!(state(&store, id(1)).await, JobState::Queued);
        assert!(store.view(id(2)).await.unwrap().is_none(), "it came later");
    });
}

#[test]
fn a_store_of_the_first_version_is_brought_to_this_one() {
    let fixture = sqlite(|_| {});
    let dir = fixture.dir.as_ref().unwrap().path().join("data");
    block_on(submit(&*fixture.store, 1, job("ann"), T0));
    drop(fixture.store);
    let file = rusqlite::Connection::open(dir.join("jobs.db")).unwrap();
    file.execute_batch(
        "DROP INDEX jobs_parent; ALTER TABLE jobs DROP COLUMN parent; \
         ALTER TABLE jobs DROP COLUMN resumes; DROP TABLE row_results; DROP TABLE files; \
         DROP TABLE schedules; DROP TABLE paused; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(file);
    let store = SqliteStore::open(&StoreConfig::at(&dir), T0 + 1).unwrap();
    block_on(async {
        assert_eq!(view(&store, id(1)).await.parent, None);
        assert_eq!(claim(&store, 1, T0 + 2).await.len(), 1);
        assert!(store.paused().await.unwrap().is_empty());
    });
}
