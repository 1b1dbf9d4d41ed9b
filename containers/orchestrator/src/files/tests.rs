//! Tests of the file store on a real folder, beside a store in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use aisemble_jobs::{MemoryStore, StoreConfig};

use super::*;

struct Place {
    home: tempfile::TempDir,
    files: Files,
}

fn place(change: impl FnOnce(&mut FilesConfig)) -> Place {
    let home = tempfile::tempdir().unwrap();
    let mut config = FilesConfig { dir: home.path().join("files"), ..FilesConfig::default() };
    change(&mut config);
    let store = Arc::new(MemoryStore::new(&StoreConfig::default()));
    let files = Files::open(&config, Jobs::with_store(store)).unwrap();
    Place { home, files }
}

impl Place {
    async fn store(&self, owner: &str, text: &str) -> Result<FileView, ApiError> {
        let new = NewFile::new("a.txt", Purpose::Data);
        self.files.store_bytes(owner, new, Bytes::from(text.to_owned())).await
    }

    /// Every plain file below the store.
    fn on_disk(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.home.path().join("files")];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { found.push(path) }
            }
        }
        found
    }
}

#[tokio::test]
async fn content_is_kept_once_under_its_digest_until_its_last_file_goes() {
    let place = place(|_| {});
    let first = place.store("ann", "hello").await.unwrap();
    let second = place.store("bob", "hello").await.unwrap();
    assert_eq!(first.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    let blob = place.files.open_blob("ann", first.id).await.unwrap();
    assert_eq!(place.on_disk(), std::slice::from_ref(&blob.path));
    assert_eq!(fs::metadata(&blob.path).unwrap().permissions().mode() & 0o777, 0o440);
    assert!(blob.path.ends_with(format!("blobs/2c/{}", first.sha256)));
    let error = place.files.open_blob("ann", second.id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound, "another's file is not there");
    assert_eq!(
        place.files.delete(Reach::Own("ann"), second.id).await.unwrap_err().code,
        ErrorCode::NotFound
    );
    place.files.delete(Reach::Own("ann"), first.id).await.unwrap();
    assert_eq!(place.on_disk().len(), 1, "bob's file has it, too");
    place.files.delete(Reach::Own("bob"), second.id).await.unwrap();
    assert!(place.on_disk().is_empty());
    let again = place.files.delete(Reach::Own("bob"), second.id).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let place = place(|config| {
        config.file_bytes_max = 1_000_000;
        config.bytes_per_key_max = 1_500_000;
        config.files_per_key_max = 2;
    });
    let large = place.store("ann", &"x".repeat(1_000_001)).await.unwrap_err();
    assert_eq!(large.code, ErrorCode::PayloadTooLarge);
    let broken = futures_util::stream::iter([
        Ok(Bytes::from_static(b"half")),
        Err(ApiError::new(ErrorCode::InvalidRequest, "the body broke off")),
    ]);
    let new = NewFile::new("a", Purpose::Data);
    place.files.store_stream("ann", new, broken).await.unwrap_err();
    let named = NewFile::new("a\nb", Purpose::Data);
    let refused = place.files.store_bytes("ann", named, Bytes::new()).await.unwrap_err();
    assert_eq!(refused.param.as_deref(), Some("filename"));
    assert!(place.on_disk().is_empty());
    place.store("ann", &"x".repeat(1_000_000)).await.unwrap();
    let full = place.store("ann", &"y".repeat(900_000)).await.unwrap_err();
    assert_eq!(full.code, ErrorCode::PayloadTooLarge);
    assert!(full.message.contains("1500000"), "{}", full.message);
    assert_eq!(place.on_disk().len(), 1);
    // Refused, but the content is another's: it stays.
    place.store("ann", "1").await.unwrap();
    place.store("ann", "1").await.unwrap_err();
    assert_eq!(place.on_disk().len(), 2);
}

#[tokio::test]
async fn a_file_made_again_under_its_id_is_the_same() {
    let place = place(|_| {});
    let id = FileId::generate();
    let make = async |text: &str| {
        let new = NewFile::new("out", Purpose::Result).with_id(id);
        place.files.store_bytes("ann", new, Bytes::from(text.to_owned())).await
    };
    let first = make("out").await.unwrap();
    assert_eq!(make("out").await.unwrap(), first);
    make("other").await.unwrap_err();
    assert_eq!(place.on_disk().len(), 1);
}

#[tokio::test]
async fn a_start_sweeps_what_a_crash_left() {
    let place = place(|_| {});
    let kept = place.store("ann", "kept").await.unwrap();
    let root = place.home.path().join("files");
    fs::create_dir_all(root.join("blobs/ff")).unwrap();
    fs::write(root.join("blobs/ff/ffff"), "an orphan").unwrap();
    fs::write(root.join("incoming/half"), "half").unwrap();
    fs::create_dir(root.join("incoming/data/job")).unwrap();
    fs::write(root.join("incoming/data/job/output.csv"), "a").unwrap();
    let again = Files::open(&place.files.config, place.files.jobs.clone()).unwrap();
    again.sweep().await.unwrap();
    let blob = again.open_blob("ann", kept.id).await.unwrap();
    assert_eq!(place.on_disk(), [blob.path]);
    assert_eq!(again.read_bytes_limited("ann", kept.id, 4).await.unwrap(), "kept");
    let error = again.read_bytes_limited("ann", kept.id, 3).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn an_output_is_taken_over_only_from_its_folder() {
    let place = place(|_| {});
    let exchange = place.home.path().join("files/incoming/data");
    fs::create_dir(exchange.join("job")).unwrap();
    fs::write(exchange.join("job/output.csv"), "a,b\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", exchange.join("job/link")).unwrap();
    let import = async |path: &str| {
        let new = NewFile::new("out.csv", Purpose::Result);
        place.files.import_path("ann", Path::new(path), new).await
    };
    for wrong in ["", "../half", "/etc/passwd", "job/../../x", "job", "job/link", "job/none"] {
        assert_eq!(import(wrong).await.unwrap_err().code, ErrorCode::Internal, "{wrong}");
    }
    let view = import("job/output.csv").await.unwrap();
    assert_eq!(place.files.read_bytes_limited("ann", view.id, 9).await.unwrap(), "a,b\n");
    assert!(!exchange.join("job/output.csv").exists());
    place.files.clear_exchange("../..").await;
    place.files.clear_exchange("job").await;
    assert!(!exchange.join("job").exists() && exchange.exists());
}

#[tokio::test]
async fn ranges_are_read_block_by_block() {
    let place = place(|_| {});
    let text: String = (0..200_000).map(|number| format!("{number} ")).collect();
    let view = place.store("ann", &text).await.unwrap();
    let blob = place.files.open_blob("ann", view.id).await.unwrap();
    let read = async |range: std::ops::Range<usize>| {
        let bytes = range.start as u64..range.end as u64;
        let blocks = place.files.reader(&blob, bytes).await.unwrap().blocks();
        let blocks: Vec<_> = blocks.map(Result::unwrap).collect().await;
        assert_eq!(blocks.concat(), text.as_bytes()[range]);
        blocks.len()
    };
    assert!(read(0..text.len()).await > 4);
    assert_eq!(read(300_000..300_010).await, 1);
    assert_eq!(read(7..7).await, 0);
}

#[tokio::test]
async fn files_go_when_their_time_is_over() {
    let place = place(|_| {});
    let mut new = NewFile::new("a", Purpose::Data);
    new.expires_after_s = Some(0);
    let gone = place.files.store_bytes("ann", new, Bytes::from_static(b"a")).await.unwrap();
    let error = place.files.open_blob("ann", gone.id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound, "though it has not been deleted yet");
    assert_eq!(place.files.expire().await.unwrap(), 1);
    assert!(place.on_disk().is_empty());
}

#[tokio::test]
async fn an_admin_sees_what_others_have() {
    let place = place(|_| {});
    let ann = place.store("ann", "hello").await.unwrap();
    let (admin, bob) = (Reach::All("root"), Reach::Own("bob"));
    let query = || FilesQuery { limit: 10, ..FilesQuery::default() };
    assert_eq!(place.files.look_up(bob, ann.id).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(place.files.list(bob, query()).await.unwrap().data, []);
    assert_eq!(place.files.look_up(admin, ann.id).await.unwrap().view, ann);
    assert_eq!(place.files.list(admin, query()).await.unwrap().data, std::slice::from_ref(&ann));
    // What works with a file is its owner's alone.
    let error = place.files.open_blob("root", ann.id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(place.files.delete(admin, ann.id).await.unwrap().deleted);
    assert!(place.on_disk().is_empty());
}
