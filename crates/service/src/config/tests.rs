//! Which layer wins, and what each kind of wrong setting is answered.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

/// A configuration as a service writes one; `loose` is the struct whose author forgot to deny.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Probe {
    socket: Option<SocketConfig>,
    log: LogConfig,
    drain: DrainConfig,
    engine: Engine,
    loose: Loose,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Engine {
    threads: u32,
    note: Option<String>,
    ratio: f64,
    names: Vec<String>,
}

impl Default for Engine {
    fn default() -> Self {
        Self { threads: 2, note: None, ratio: 0.5, names: vec!["a".to_owned(), "b".to_owned()] }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Loose {
    size: u8,
}

impl ServiceConfig for Probe {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if self.engine.threads == 13 {
            return Err(InvalidConfig::new(
                "engine.threads",
                "13 threads are too many, at most 12",
            ));
        }
        Ok(())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn drain(&self) -> &DrainConfig {
        &self.drain
    }
}

/// The layers of one case.
#[derive(Default)]
struct Case<'a> {
    file: &'a str,
    env: &'a [(&'a str, &'a str)],
    set: &'a [&'a str],
}

impl Case<'_> {
    fn load(&self) -> Result<Probe, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.toml");
        std::fs::write(&path, self.file).unwrap();
        let sources = Sources {
            file: Some(path),
            file_default: PathBuf::new(),
            environment: self.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            set: self.set.iter().map(ToString::to_string).collect(),
        };
        let loaded = load(&sources).map(|loaded| loaded.config);
        loaded.map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), "DIR"))
    }
}

fn refuse(case: &Case<'_>, expected: &str) {
    assert_eq!(case.load().unwrap_err(), expected);
}

#[test]
fn the_later_layer_wins() {
    let file = "[engine]\nthreads = 3\nratio = 0.25\nnames = ['c']\nnote = 'file'";
    let env = &[("AISEMBLE_ENGINE__THREADS", "4"), ("AISEMBLE_ENGINE__NOTE", "of the host")];
    let threads = |case: Case<'_>| case.load().unwrap().engine.threads;
    assert_eq!(threads(Case::default()), 2);
    assert_eq!(threads(Case { file, ..Case::default() }), 3);
    assert_eq!(threads(Case { file, env, ..Case::default() }), 4);
    let all = Case { file, env, set: &["engine.threads=5", "engine.threads = 6"] }.load().unwrap();
    let expected = Engine {
        threads: 6,
        note: Some("of the host".to_owned()),
        ratio: 0.25,
        names: vec!["c".to_owned()],
    };
    assert_eq!(all.engine, expected, "arrays are replaced, the rest stays");
}

#[test]
fn values_are_toml_or_else_text() {
    let set = &[
        "socket.path=/run/x/x.sock",
        "socket.peer_uids=[1000, 1001]",
        "engine.note=a = \"b\"\nc",
        "engine.names=[\"x\"]",
        "log.level=debug",
        "drain.deadline_ms=0",
    ];
    let probe = Case { set, ..Case::default() }.load().unwrap();
    let socket = probe.socket.unwrap();
    assert_eq!(socket.path.as_path().to_str(), Some("/run/x/x.sock"));
    assert_eq!(socket.peer_uids.as_slice(), [1000, 1001]);
    assert_eq!(probe.engine.note.as_deref(), Some("a = \"b\"\nc"));
    assert_eq!(probe.log.level, LogLevel::Debug);
    assert!(probe.drain.deadline_ms.duration().is_zero());
}

#[test]
fn unknown_keys_are_refused_wherever_they_are_given() {
    let sections = "allowed there: socket, log, drain, engine, loose";
    let keys = "allowed there: threads, note, ratio, names";
    for (file, expected) in [
        ("[engin]\nthreads = 3", format!("DIR/probe.toml: unknown key `engin`; {sections}")),
        ("top = 1", format!("DIR/probe.toml: unknown key `top`; {sections}")),
        ("[engine]\nthread = 3", format!("DIR/probe.toml: unknown key `engine.thread`; {keys}")),
        ("[loose]\nsiz = 3", "DIR/probe.toml: unknown key `loose.siz`; allowed there: size".into()),
        (
            "[loose.inner]",
            "DIR/probe.toml: unknown key `loose.inner`; allowed there: size".to_owned(),
        ),
    ] {
        refuse(&Case { file, ..Case::default() }, &expected);
    }
    let variable = |name| format!("environment variable {name}: unknown key");
    for (env, expected) in [
        (&[("AISEMBLE_ENGINE__THREAD", "3")], format!(" `engine.thread`; {keys}")),
        (&[("AISEMBLE_X__Y__Z", "3")], format!(" `x`; {sections}")),
        (&[("AISEMBLE_LOOSE__SIZ", "3")], " `loose.siz`; allowed there: size".to_owned()),
    ] {
        refuse(&Case { env, ..Case::default() }, &(variable(env[0].0) + &expected));
    }
    for (set, expected) in [
        (&["engine.thread=3"], format!("--set engine.thread: unknown key `engine.thread`; {keys}")),
        (&["threads=3"], format!("--set threads: unknown key `threads`; {sections}")),
    ] {
        refuse(&Case { set, ..Case::default() }, &expected);
    }
}

#[test]
fn wrong_values_are_traced_to_their_layer() {
    let file = "[engine]\nthreads = 3";
    for (env, expected) in [
        (
            ("AISEMBLE_ENGINE__THREADS", "many"),
            "`engine.threads`: invalid type: found string \"many\", expected u32",
        ),
        (
            ("AISEMBLE_ENGINE__THREADS", "-1"),
            "`engine.threads`: invalid value signed int `-1`, expected u32",
        ),
        (
            ("AISEMBLE_LOG__LEVEL", "loud"),
            "`log.level`: \"loud\" is not one of error, warn, info, debug, trace",
        ),
        (
            ("AISEMBLE_DRAIN__DEADLINE_MS", "600001"),
            "`drain.deadline_ms`: 600001 ms, at most 600000 ms are allowed",
        ),
        (
            ("AISEMBLE_ENGINE__THREADS", "13"),
            "`engine.threads`: 13 threads are too many, at most 12",
        ),
        (("AISEMBLE_ENGINE", "3"), ""),
    ] {
        let case = Case { file, env: &[env], ..Case::default() };
        if expected.is_empty() {
            assert!(case.load().is_ok(), "no `__`, no setting");
            continue;
        }
        let loaded = case.load().unwrap_err();
        assert_eq!(loaded, format!("environment variable {}: {expected}", env.0));
    }
    let set = &["engine=3"];
    refuse(
        &Case { file, set, ..Case::default() },
        "--set engine: `engine`: found signed int `3`, expected a section with keys",
    );
    refuse(
        &Case { file: "[socket]\npath = 'run/x.sock'", ..Case::default() },
        "DIR/probe.toml: `socket.path`: the socket's path must be absolute, without `..`, and name \
         a file, not run/x.sock",
    );
}

#[test]
fn what_cannot_be_a_setting_is_refused() {
    refuse(
        &Case { set: &["log.level"], ..Case::default() },
        "--set log.level: give it as KEY=VALUE, e.g. log.level=debug",
    );
    refuse(
        &Case { set: &["a..b=1"], ..Case::default() },
        "--set a..b: `a..b` is not a key: names joined by dots, at most 8",
    );
    refuse(
        &Case { env: &[("AISEMBLE___LOG", "1")], ..Case::default() },
        "environment variable AISEMBLE___LOG: `.log` is not a key: names joined by dots, at most 8",
    );
    refuse(
        &Case { set: &["log=1", "log.level=info"], ..Case::default() },
        "--set log.level: `log.level`: another setting makes a section of this key, or a value of \
         its section",
    );
    let error = Case { file: "[engine\nthreads = 3", ..Case::default() }.load().unwrap_err();
    assert!(error.starts_with("DIR/probe.toml: not TOML: TOML parse error at line 1"), "{error}");

    let bytes = OsString::from_vec(vec![b'x', 0xff]);
    let environment = vec![("AISEMBLE_ENGINE__NOTE".into(), bytes)];
    let error = load::<Probe>(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable AISEMBLE_ENGINE__NOTE: name and value must be UTF-8"
    );
}

#[test]
fn a_secret_is_never_taken_in_the_open() {
    for (set, key) in [
        (&["keys.secret=hunter2"], "keys.secret"),
        (&["store.db_password=hunter2"], "store.db_password"),
        (&["engine.hub_token=hunter2"], "engine.hub_token"),
    ] {
        let error = Case { set, ..Case::default() }.load().unwrap_err();
        assert!(error.contains(key) && error.contains("_file"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = Case { set: &["engine.context_tokens=1"], ..Case::default() }.load().unwrap_err();
    assert!(error.contains("unknown key"), "{error}");
}

#[test]
fn a_file_that_was_named_must_exist_and_the_default_one_need_not() {
    let missing = PathBuf::from("/nonexistent/probe.toml");
    let sources = Sources { file: Some(missing.clone()), ..Sources::default() };
    let error = load::<Probe>(&sources).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/probe.toml: "), "{error}");
    let loaded: Loaded<Probe> =
        load(&Sources { file_default: missing, ..Sources::default() }).unwrap();
    assert_eq!((loaded.config, loaded.file), (Probe::default(), None));
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources { file: Some(folder.path().to_owned()), ..Sources::default() };
    assert!(matches!(load::<Probe>(&sources), Err(ConfigError::File { .. })));
}

#[test]
fn limits_hold() {
    let set: Vec<String> = (0..300).map(|number| format!("x.y{number}=1")).collect();
    let error = load::<Probe>(&Sources { set, ..Sources::default() }).unwrap_err();
    assert_eq!(error.to_string(), "--set x.y256: 300 settings by --set, at most 256 are allowed");
    let set = vec![format!("engine.note={}", "x".repeat(20_000))];
    let error = load::<Probe>(&Sources { set, ..Sources::default() }).unwrap_err();
    assert!(error.to_string().ends_with("20011 bytes, at most 16384 are allowed"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.toml");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    let error = load::<Probe>(&Sources { file: Some(path), ..Sources::default() }).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
    let set = vec![format!("socket.path=/{}", "x".repeat(SOCKET_PATH_BYTES_MAX))];
    let error = load::<Probe>(&Sources { set, ..Sources::default() }).unwrap_err();
    assert!(error.to_string().contains("has 108 bytes, Linux takes at most 107"), "{error}");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let set = &["socket.path=/run/x/x.sock", "engine.note=n", "engine.ratio=2.5"];
    let probe = Case { set, ..Case::default() }.load().unwrap();
    let text = toml::to_string_pretty(&probe).unwrap();
    assert_eq!(toml::from_str::<Probe>(&text).unwrap(), probe);
}

#[test]
fn a_secret_file_is_read_only_when_it_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "s3cret").unwrap();
    let read = |mode| {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        SecretFile::new(&path).read()
    };
    for mode in [0o400, 0o600] {
        assert_eq!(read(mode).unwrap(), b"s3cret");
    }
    for mode in [0o440, 0o604, 0o644] {
        assert!(matches!(read(mode), Err(SecretError::Exposed { .. })), "{mode:o}");
    }
    let directory = SecretFile::new(folder.path()).read();
    assert!(matches!(directory, Err(SecretError::NotAFile { .. })));
}

fn toml_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z_.]{0,8}",
        "(engine|socket|log|drain|threads|path|level|note)",
        "[\\[\\]{}=\"'#,\n 0-9.-]{1,6}",
        any::<String>(),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_input_panics(
        file in prop_oneof![toml_like().prop_map(String::into_bytes), any::<Vec<u8>>()],
        variables in prop::collection::vec(("[A-Z_a-z]{0,12}", any::<Vec<u8>>()), 0..6),
        set in prop::collection::vec(toml_like(), 0..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.toml");
        std::fs::write(&path, file).unwrap();
        let environment = variables
            .into_iter()
            .map(|(name, value)| {
                let value = value.into_iter().filter(|byte| *byte != 0).collect();
                (format!("AISEMBLE_{name}").into(), OsString::from_vec(value))
            })
            .collect();
        let sources = Sources { file: Some(path), file_default: PathBuf::new(), environment, set };
        if let Err(error) = load::<Probe>(&sources) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn nesting_does_not_overflow_the_stack(depth in 1_usize..16_000, open in "[\\[{(]|a=\\{a=") {
        let set = vec![format!("engine.note={}", open.repeat(depth / open.len() + 1))];
        let _ = load::<Probe>(&Sources { set: set.clone(), ..Sources::default() });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.toml");
        std::fs::write(&path, format!("x = {}", open.repeat(depth))).unwrap();
        let _ = load::<Probe>(&Sources { file: Some(path), ..Sources::default() });
    }
}
