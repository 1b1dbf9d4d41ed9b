//! Who may connect: the kernel's word on the peer's user is what counts, not the file's mode.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::process::Uid;

use crate::lifecycle::text;
use crate::process::{Home, count};

/// Nobody in particular.
const OTHER: u32 = 65_534;

/// Runs `work` on a thread that is another user: on Linux a thread has its own credentials, and a
/// connection bears those of the thread that made it.
fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let user = Uid::from_raw(uid);
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// Opens the way to the socket for everybody, so that only the check of the peer is left.
fn open_up(home: &Home) -> PathBuf {
    let socket = home.socket();
    for (path, mode) in
        [(home.folder.path(), 0o755), (socket.parent().unwrap(), 0o755), (&socket, 0o666)]
    {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    socket
}

fn cannot_change_users() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT RUN: connecting as another user needs root, and this is not root");
    }
    !root
}

#[tokio::test]
async fn another_user_is_shown_the_door_and_logged_once() {
    if cannot_change_users() {
        return;
    }
    let home = Home::new();
    let tiny = home.serving(&[]);
    let socket = open_up(&home);
    for _ in 0..3 {
        let read = as_user(OTHER, || {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.read(&mut [0; 16])
        });
        // The kernel tells a closed connection either way.
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let line = tiny.log.line("refused connections of a user");
    assert_eq!(line["peer.uid"], OTHER);
    // Served after the refused ones, so that all of them have been logged if they ever are.
    assert_eq!(home.llm().tokenize(text("four")).await.unwrap().into_inner().ids, [4]);
    assert_eq!(count(&tiny.log.lines(), "refused connections of a user"), 1);
}

#[test]
fn a_user_of_peer_uids_is_served() {
    if cannot_change_users() {
        return;
    }
    let home = Home::new();
    let _tiny = home.serving(&[format!("socket.peer_uids=[{OTHER}]")]);
    open_up(&home);
    let ids = as_user(OTHER, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            home.llm().tokenize(text("four")).await.map(|answer| answer.into_inner().ids)
        })
    });
    assert_eq!(ids.unwrap(), [4]);
}
