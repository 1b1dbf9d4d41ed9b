//! `up`, `status` and `down` as a user runs them.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::stand_in::{Place, eventually, is_alive, signal, text};

fn child_pid(state: &Value, name: &str) -> Option<u64> {
    state["children"][name]["identity"]["pid"].as_u64()
}

fn runs(state: &Value) -> bool {
    state["ready"] == true
        && child_pid(state, "llm").is_some()
        && child_pid(state, "orchestrator").is_some()
}

#[test]
fn up_runs_once_restarts_what_dies_and_ends_in_order() {
    let place = Place::new();
    let mut up = place.up(&[]).spawn().unwrap();
    let state = place.state("ready", runs);
    assert_eq!(state["identity"]["pid"], up.id());
    let (llm, door) =
        (child_pid(&state, "llm").unwrap(), child_pid(&state, "orchestrator").unwrap());

    let again = place.up(&[]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let said = text(&again.stderr);
    assert!(
        said.contains("runs already at http://127.0.0.1:") && said.contains("hint: "),
        "{said}"
    );

    signal(llm, "KILL");
    let state =
        place.state("a new llm", |state| runs(state) && child_pid(state, "llm") != Some(llm));
    assert_eq!(child_pid(&state, "orchestrator"), Some(door), "the other did not notice");

    let status = place.run(&["--json", "status"]);
    let report: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(report["ready"], true);
    let processes = report["processes"].as_array().unwrap();
    let llm = processes.iter().find(|process| process["name"] == "llm").unwrap();
    assert_eq!((&llm["restarts"], &llm["state"]), (&1.into(), &"running".into()));

    for file in ["keys/keys.json", "client-key", "run/up.json"] {
        let data = fs::metadata(place.home().join(file)).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, 0o600, "{file}");
    }
    let config = fs::read_to_string(place.home().join("run/llm.toml")).unwrap();
    assert!(config.contains("sha256 = \"ba7816bf"), "{config}");

    let down = place.run(&["down"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert!(up.wait().unwrap().success());
    let mut said = String::new();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let order = said.find("Ending orchestrator").zip(said.find("Ending llm"));
    assert!(order.is_some_and(|(first, second)| first < second), "{said}");
    assert!(said.contains("llm was killed by signal 9; starting it again"), "{said}");
    for name in ["llm", "orchestrator"] {
        assert!(!is_alive(child_pid(&state, name).unwrap()), "{name}");
    }
    assert!(!place.home().join("run/up.json").exists());
    assert!(place.run(&["down"]).status.success(), "nothing to stop is no error");
    assert_eq!(place.run(&["status"]).status.code(), Some(3));
}

#[test]
fn a_detached_up_returns_when_ready_and_down_ends_it() {
    let place = Place::new();
    let up = place.up(&["--detach"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    assert!(text(&up.stderr).contains("Ready: http://127.0.0.1:"), "{}", text(&up.stderr));
    let state = place.state("ready", runs);
    let pid = state["identity"]["pid"].as_u64().unwrap();
    assert!(is_alive(pid));
    let again = place.up(&["--detach"]).output().unwrap();
    assert!(text(&again.stderr).contains("runs already"), "{}", text(&again.stderr));
    assert!(place.run(&["down"]).status.success());
    eventually("the end", || (!is_alive(pid)).then_some(()));
}

#[test]
fn killing_up_itself_takes_the_services_with_it() {
    let place = Place::new();
    let mut up = place.up(&[]).spawn().unwrap();
    let state = place.state("ready", runs);
    signal(up.id().into(), "KILL");
    up.wait().unwrap();
    for name in ["llm", "orchestrator"] {
        let pid = child_pid(&state, name).unwrap();
        eventually("the services end too", || (!is_alive(pid)).then_some(()));
    }
    // What it left behind is in nobody's way.
    let mut up = place.up(&[]).spawn().unwrap();
    place.state("ready again", |state| runs(state) && state["identity"]["pid"] == up.id());
    assert!(place.run(&["down"]).status.success());
    assert!(up.wait().unwrap().success());
}

#[test]
fn a_service_that_cannot_start_is_told_with_its_last_words() {
    let place = Place::new();
    place
        .program("llm", r#"echo '{"level":"ERROR","fields":{"message":"no model"}}' >&2; exit 78"#);
    // It would wait for the llm for ever.
    place.program("orchestrator", "exec sleep 1000");
    for flags in [&[][..], &["--detach"][..]] {
        let up = place.up(flags).output().unwrap();
        let said = text(&up.stderr);
        assert_eq!(up.status.code(), Some(1), "{said}");
        assert!(said.contains("llm ended with exit code 78"), "{said}");
        assert!(said.contains("no model") && said.contains("hint: "), "{said}");
        assert!(!place.home().join("run/up.json").exists());
    }
}

#[test]
fn what_is_missing_or_wrong_is_told_with_a_hint_before_anything_starts() {
    let place = Place::new();
    let check = |flags: &[&str], code: i32, part: &str| {
        let up = place.up(flags).output().unwrap();
        let said = text(&up.stderr);
        assert_eq!(up.status.code(), Some(code), "{said}");
        assert!(said.contains(part) && said.contains("hint: "), "{said}");
        assert!(!place.home().join("run/up.json").exists());
    };
    check(&["--set", "llm.threads"], 2, "there is no `=`");
    fs::write(place.home().join("models/tiny/abc.gguf"), "abd").unwrap();
    check(&[], 6, "is not the file it should be");
    fs::remove_file(place.home().join("models/tiny/abc.gguf")).unwrap();
    check(&[], 1, "the model tiny is not installed");
    let open = place.command(&["up", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(open.status.code(), Some(2));
    assert!(text(&open.stderr).contains("--expose"), "{}", text(&open.stderr));
}

#[test]
fn every_service_that_can_be_started_is_with_its_models_pinned() {
    let place = Place::new();
    for service in ["nlp", "data-processor"] {
        place.program(service, "exec sleep 1000");
    }
    let file = place.home().join("../weights.safetensors");
    fs::write(&file, "abc").unwrap();
    let mut import = place.command(&["models", "import", "--name", "own", "--for", "nlp"]);
    assert!(import.arg(&file).output().unwrap().status.success());

    let mut up = place.up(&["--llm-instances", "2"]).spawn().unwrap();
    let names = ["llm", "llm-2", "nlp", "data-processor", "orchestrator"];
    let all = |state: &Value| {
        state["ready"] == true && names.iter().all(|name| child_pid(state, name).is_some())
    };
    let state = place.state("all five", all);
    assert_eq!(state["services"]["nlp"]["models"][0], "own");
    let config = |name: &str| -> toml::Table {
        let path = place.home().join(format!("run/{name}.toml"));
        fs::read_to_string(path).unwrap().parse().unwrap()
    };
    let nlp = config("nlp");
    let digest = nlp["model"][0]["sha256"]["model.safetensors"].as_str().unwrap();
    assert!(digest.starts_with("ba7816bf"), "{nlp}");
    let door = config("orchestrator");
    assert_eq!(door["services"]["llm"].as_array().unwrap().len(), 2);
    assert!(door["services"]["nlp"][0].as_str().unwrap().ends_with("/run/nlp/nlp.sock"));
    let data = door["services"]["data"][0].as_str().unwrap();
    assert!(data.ends_with("/run/data-processor/data-processor.sock"), "{data}");
    assert!(door["services"].get("vision").is_none());
    assert!(config("data-processor")["files"]["blobs"].as_str().unwrap().ends_with("/files/blobs"));
    // What is served is not removed.
    let removed = place.run(&["models", "remove", "own"]);
    assert!(text(&removed.stderr).contains("is being served"), "{}", text(&removed.stderr));

    let nlp = child_pid(&state, "nlp").unwrap();
    signal(nlp, "KILL");
    place.state("a new nlp", |state| all(state) && child_pid(state, "nlp") != Some(nlp));
    assert!(place.run(&["down"]).status.success());
    assert!(up.wait().unwrap().success());
    for name in names {
        assert!(!is_alive(child_pid(&state, name).unwrap()), "{name}");
    }

    let mut up = place.up(&["--services", "nlp"]).spawn().unwrap();
    let state = place
        .state("nlp alone", |state| state["ready"] == true && child_pid(state, "nlp").is_some());
    assert!(child_pid(&state, "llm").is_none() && child_pid(&state, "orchestrator").is_some());
    assert!(place.run(&["down"]).status.success());
    assert!(up.wait().unwrap().success());
}

#[test]
fn a_service_that_was_asked_for_and_cannot_be_started_is_told() {
    let place = Place::new();
    let check = |flags: &[&str], code: i32, part: &str| {
        let up = place.up(flags).output().unwrap();
        let said = text(&up.stderr);
        assert_eq!(up.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{said}");
    };
    check(&["--services", "vision"], 1, "there is no ai-semble-vision");
    place.program("vision", "exec sleep 1000");
    check(&["--services", "vision"], 1, "no model for vision is installed");
    check(&["--services", "speech"], 2, "known services are llm, nlp, vision, data-processor");
    check(&["--llm-instances", "99"], 2, "1 to 16");
}
