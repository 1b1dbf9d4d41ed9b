//! What Landlock makes of files, sockets, ports and signals, on the main thread and on threads
//! made later.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use crate::probe::observed;

/// A directory with `inside/file` and `outside/file`.
fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for side in ["inside", "outside"] {
        std::fs::create_dir(tree.path().join(side)).unwrap();
        std::fs::write(tree.path().join(side).join("file"), "content").unwrap();
    }
    tree
}

/// What `deed` on `path` below `tree` comes to, on every kind of thread.
fn check(tree: &Path, options: &str, deed: &str, expect: &str) {
    let root = tree.display().to_string();
    let options = options.replace("TREE", &root);
    let deed = deed.replace("TREE", &root);
    for on in ["main", "early", "late"] {
        let found = observed(&format!("{options} --on {on} try {deed}"));
        assert_eq!(found, expect, "{options} --on {on} try {deed}");
    }
}

#[test]
fn a_service_reads_its_paths_and_nothing_else() {
    let tree = tree();
    for stage in [1, 2] {
        let read = |deed: &str, expect: &str| {
            let options = format!("--stage {stage} --read TREE/inside");
            check(tree.path(), &options, deed, expect);
        };
        read("read=TREE/inside/file", "ok");
        read("map=TREE/inside/file", "ok");
        read("read=TREE/outside/file", "EACCES");
        read("read=/etc/passwd", "EACCES");
        read("read=/proc/1/environ", "EACCES");
        read("read=/proc/self/environ", "EACCES");
        read("read=/proc/self/status", "ok");
        read("read=/proc/self/maps", "ok");
        read("read=TREE/inside/../outside/file", "EACCES");
    }
    let options = "--stage 1 --read TREE/inside/file";
    check(tree.path(), options, "read=TREE/inside/file", "ok");
    check(tree.path(), options, "list=TREE/inside", "EACCES");
}

#[test]
fn nothing_is_written_below_a_path_that_is_read() {
    let tree = tree();
    for (policy, stage, refusal) in
        [("llm", 1, "EACCES"), ("llm", 2, "EPERM"), ("orchestrator", 2, "EACCES")]
    {
        let options = format!("--policy {policy} --stage {stage} --read TREE/inside");
        for deed in ["write=TREE/inside/file", "create=TREE/inside/new", "write=/dev/null"] {
            check(tree.path(), &options, deed, refusal);
        }
        check(tree.path(), &options, "remove=TREE/inside/file", "EACCES");
        check(tree.path(), &options, "mkdir=TREE/inside/new", refusal);
    }
    assert_eq!(std::fs::read(tree.path().join("inside/file")).unwrap(), b"content");
}

#[test]
fn the_orchestrator_writes_in_its_directory_only() {
    let tree = tree();
    for stage in [1, 2] {
        let write = |deed: &str, expect: &str| {
            let options = format!("--policy orchestrator --stage {stage} --read-write TREE/inside");
            let root = tree.path().display().to_string();
            let line = format!("{options} try {deed}").replace("TREE", &root);
            assert_eq!(observed(&line), expect, "{line}");
        };
        write("create=TREE/inside/new", "ok");
        write("write=TREE/inside/new", "ok");
        write("list=TREE/inside", "2 entries");
        write("remove=TREE/inside/new", "ok");
        write("create=TREE/outside/new", "EACCES");
        write("write=TREE/outside/file", "EACCES");
        write("remove=TREE/outside/file", "EACCES");
        write("symlink=TREE/inside/link", if stage == 1 { "EACCES" } else { "EPERM" });
    }
}

#[test]
fn sockets_are_made_in_their_directory_only() {
    let tree = tree();
    let path = |name: &str| tree.path().join(name).display().to_string();
    let options = format!("--stage 1 --sockets {}", path("inside"));
    let own = path("inside/a.sock");
    assert_eq!(observed(&format!("{options} try unix-bind={own}")), "ok");
    assert_eq!(observed(&format!("{options} try unix-connect={own}")), "ECONNREFUSED");
    // Its own socket is removed at the end, locked down or not; no other file is.
    assert_eq!(observed(&format!("--stage 2 --sockets {} try remove={own}", path("inside"))), "ok");
    let other = path("outside/a.sock");
    assert_eq!(observed(&format!("{options} try unix-bind={other}")), "EACCES");
    assert_eq!(observed(&format!("{options} try create={}", path("inside/file2"))), "EACCES");

    let _listener = UnixListener::bind(&own).unwrap();
    assert_eq!(observed(&format!("{options} try unix-connect={own}")), "ok");
    let orchestrator = format!("--policy orchestrator --stage 2 --sockets {}", path("inside"));
    assert_eq!(observed(&format!("{orchestrator} try unix-connect={own}")), "ok");
    assert_eq!(observed(&format!("{orchestrator} try unix-bind={}", path("inside/b"))), "EPERM");
    assert_eq!(observed(&format!("--stage 2 try unix-connect={own}")), "EPERM");
}

#[test]
fn tcp_is_refused_even_on_a_socket_from_before() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(observed(&format!("--stage 0 try tcp-connect={port}")), "ok");
    assert_eq!(observed("--stage 0 try tcp-bind=0"), "ok");
    for policy in ["llm", "orchestrator"] {
        let options = format!("--policy {policy} --stage 1");
        assert_eq!(observed(&format!("{options} try tcp-connect={port}")), "EACCES");
        assert_eq!(observed(&format!("{options} try tcp-bind=0")), "EACCES");
    }
    // The orchestrator may call connect, for its services; Landlock refuses the port.
    let locked = format!("--policy orchestrator --stage 2 try tcp-connect={port}");
    assert_eq!(observed(&locked), "EACCES");
}

#[test]
fn signals_and_abstract_sockets_stay_inside() {
    let name = format!("ai-semble-sandbox-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let signal = format!("signal={}", std::process::id());
    let connect = format!("abstract-connect={name}");
    assert_eq!(observed(&format!("--stage 0 try {signal}")), "ok");
    assert_eq!(observed(&format!("--stage 0 try {connect}")), "ok");
    let abi = crate::probe::json("--stage 1 try socket")["report"]["landlock_abi"].as_u64();
    if abi.unwrap() >= 6 {
        for policy in ["llm", "orchestrator"] {
            let options = format!("--policy {policy} --stage 1 try");
            assert_eq!(observed(&format!("{options} {signal}")), "EPERM");
            assert_eq!(observed(&format!("{options} {connect}")), "EPERM");
        }
    }
    // Whatever the ABI, the locked-down process has no kill at all.
    assert_eq!(observed(&format!("--policy orchestrator --stage 2 try {signal}")), "EPERM");
}
