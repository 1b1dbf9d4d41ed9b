//! Children that die, hang and crash, with the supervisor's own code around them.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_cli::local::child::ChildSpec;
use aisemble_cli::local::notices::Notices;
use aisemble_cli::local::supervise::{ChildState, Keeper, RestartPolicy};
use aisemble_cli::terminal::Terminal;
use tokio::sync::watch;

use crate::stand_in::{is_alive, signal};

const PATIENCE: Duration = Duration::from_secs(60);
const POLICY: RestartPolicy = RestartPolicy {
    base: Duration::from_millis(5),
    cap: Duration::from_millis(20),
    stable_after: Duration::from_secs(3600),
    deaths_max: 4,
};

type States = BTreeMap<String, ChildState>;

fn spec(folder: &Path, name: &str, script: &str) -> ChildSpec {
    ChildSpec {
        name: name.to_owned(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        folder: folder.to_owned(),
        log: folder.join(format!("{name}.log")),
        listener: None,
    }
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.unwrap() })
}

fn quiet() -> Notices {
    Notices::on(Terminal::new(false, true))
}

async fn until(
    watched: &mut watch::Receiver<States>,
    satisfies: impl Fn(&States) -> bool,
) -> States {
    watched.wait_for(satisfies).await.unwrap().clone()
}

fn pid(states: &States, name: &str) -> u64 {
    states[name].identity.unwrap().pid.into()
}

#[test]
fn a_killed_child_is_started_again_and_the_other_does_not_notice() {
    let folder = tempfile::tempdir().unwrap();
    block(async {
        let (states, mut watched) = watch::channel(States::new());
        let [one, two] = ["one", "two"].map(|name| {
            Keeper::start(spec(folder.path(), name, "exec sleep 1000"), POLICY, &states, &quiet())
        });
        let runs =
            |states: &States, name: &str| states.get(name).is_some_and(|s| s.identity.is_some());
        let before = until(&mut watched, |s| runs(s, "one") && runs(s, "two")).await;
        signal(pid(&before, "one"), "KILL");
        let after = until(&mut watched, |s| s["one"].restarts == 1 && runs(s, "one")).await;
        assert_ne!(pid(&after, "one"), pid(&before, "one"));
        assert_eq!(pid(&after, "two"), pid(&before, "two"));
        assert!(is_alive(pid(&after, "two")));
        assert_eq!(after["one"].last_end.as_deref(), Some("was killed by signal 9"));
        assert!(one.stop(PATIENCE).await && two.stop(PATIENCE).await);
        assert!(!is_alive(pid(&after, "one")) && !is_alive(pid(&after, "two")));
    });
}

#[test]
fn a_child_that_cannot_stay_up_is_given_up_and_the_other_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    block(async {
        let (states, mut watched) = watch::channel(States::new());
        let script = "echo again >> starts; echo dying >&2; exit 3";
        let bad = Keeper::start(spec(folder.path(), "bad", script), POLICY, &states, &quiet());
        let good = Keeper::start(
            spec(folder.path(), "good", "exec sleep 1000"),
            POLICY,
            &states,
            &quiet(),
        );
        let wrong =
            Keeper::start(spec(folder.path(), "wrong", "exit 78"), POLICY, &states, &quiet());
        let given_up = |s: &States, name: &str| s.get(name).is_some_and(|state| state.given_up);
        let end = until(&mut watched, |s| given_up(s, "bad") && given_up(s, "wrong")).await;
        assert_eq!(end["bad"].last_end.as_deref(), Some("ended with exit code 3"));
        assert_eq!(fs::read_to_string(folder.path().join("starts")).unwrap().lines().count(), 4);
        assert_eq!(end["wrong"].restarts, 0, "a wrong configuration does not mend itself");
        assert!(is_alive(pid(&end, "good")));
        assert!(
            bad.stop(PATIENCE).await && wrong.stop(PATIENCE).await && good.stop(PATIENCE).await
        );
    });
    let log = fs::read_to_string(folder.path().join("bad.log")).unwrap();
    assert!(log.contains("dying"), "{log}");
}

#[test]
fn a_child_that_ignores_the_order_is_killed_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    block(async {
        let (states, mut watched) = watch::channel(States::new());
        let script = "trap '' TERM; touch deaf; while :; do sleep 1000 & wait; done";
        let keeper = Keeper::start(spec(folder.path(), "deaf", script), POLICY, &states, &quiet());
        let running =
            until(&mut watched, |s| s.get("deaf").is_some_and(|s| s.identity.is_some())).await;
        while !folder.path().join("deaf").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        assert!(!keeper.stop(Duration::from_millis(100)).await);
        assert!(begun.elapsed() >= Duration::from_millis(100));
        assert!(!is_alive(pid(&running, "deaf")));
    });
}

#[test]
fn a_child_gets_its_socket_and_nothing_of_our_environment() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    block(async {
        let (states, mut watched) = watch::channel(States::new());
        let script = "tr '\\0' '\\n' < /proc/self/environ > environment; echo $$ > pid; \
                      readlink /proc/self/fd/3 > three; readlink /proc/self/fd/0 > zero; \
                      touch done; exec sleep 1000";
        let mut spec = spec(folder.path(), "door", script);
        spec.listener = Some(Arc::clone(&listener));
        let keeper = Keeper::start(spec, POLICY, &states, &quiet());
        let running =
            until(&mut watched, |s| s.get("door").is_some_and(|s| s.identity.is_some())).await;
        while !folder.path().join("done").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("pid").trim(), pid(&running, "door").to_string());
        let environment = read("environment");
        assert!(environment.contains(&format!("LISTEN_PID={}\n", read("pid").trim())));
        assert!(environment.contains("LISTEN_FDS=1\n"));
        for line in environment.lines() {
            let name = line.split('=').next().unwrap();
            let known = ["LISTEN_PID", "LISTEN_FDS", "PWD", "OLDPWD", "SHLVL", "_"];
            assert!(known.contains(&name), "{line}");
        }
        assert!(read("three").starts_with("socket:["));
        assert_eq!(read("zero").trim(), "/dev/null");
        keeper.stop(PATIENCE).await;
    });
}
