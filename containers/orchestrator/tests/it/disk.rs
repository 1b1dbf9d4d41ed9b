//! A disk that is full, for real: the folder of files on a small file system of its own. It is
//! mounted in a user namespace, which rootless containers need as well.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::process::{Binary, home_with_key};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_full_disk_is_an_answer_and_keeps_nothing_half() {
    let (home, key) = home_with_key();
    let files = home.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let mount = "mount -t tmpfs -o size=6m,mode=0700 tmpfs \"$0\" && exec \"$@\"";
    let files = files.to_str().unwrap().to_owned();
    let by = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, &files];
    let binary = Binary::start_by(home.path(), &by).await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", binary.address);
    let upload = async |byte: u8, size: usize| {
        let request = client.post(url("/files?filename=a&purpose=data")).bearer_auth(&key);
        let answer = request.body(vec![byte; size]).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, kept) = upload(b'a', MIB).await;
    assert_eq!(status, StatusCode::OK, "{kept}");
    for _ in 0..2 {
        let (status, refused) = upload(b'b', 8 * MIB).await;
        assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{refused}");
        assert_eq!(refused["code"], "storage_full", "{refused}");
    }
    let get = async |path: &str| {
        let answer = client.get(url(path)).bearer_auth(&key).send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap())
    };
    let list: Value = serde_json::from_slice(&get("/files").await.1).unwrap();
    assert_eq!(list["data"], json!([kept]), "what was refused is no file");
    let content = get(&format!("/files/{}/content", kept["id"].as_str().unwrap())).await;
    assert_eq!((content.0, content.1.len()), (StatusCode::OK, MIB), "what was there is readable");
    // The room that the refused ones had taken is free again.
    let (status, second) = upload(b'c', 4 * MIB).await;
    assert_eq!(status, StatusCode::OK, "{second}");
}
