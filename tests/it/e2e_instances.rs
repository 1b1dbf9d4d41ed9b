//! Several real language-model processes behind one orchestrator: who gets which call, and what is
//! left when one of them is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aisemble_protocol::keys::{KeyFile, Scope};
use aisemble_tests::binary;
use aisemble_tests::http::Client;
use aisemble_tests::stack::{model_file, signal};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
const PATH: &str = "/v1/completions";

/// A process that ends with the value.
struct Process(Child);

impl Process {
    fn start(program: &str, home: &Path, settings: &[String]) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(home.join("log")).unwrap();
        let mut command = Command::new(binary(program));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        for setting in settings {
            command.args(["--set", setting]);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two processes with the model `one`, a third with the model `two`, and the orchestrator.
struct Fleet {
    home: tempfile::TempDir,
    llms: Vec<(&'static str, Process)>,
    _orchestrator: Process,
    client: Client,
}

impl Fleet {
    fn start() -> Self {
        let home = tempfile::Builder::new().prefix("ais").tempdir().unwrap();
        let socket = |name: &str| home.path().join(format!("run/{name}/{name}.sock"));
        let llm = |(name, model): (&'static str, &str)| {
            fs::create_dir_all(home.path().join("run").join(name)).unwrap();
            let settings = [
                format!("model.path={}", model_file().display()),
                format!("model.name={model}"),
                format!("socket.path={}", socket(name).display()),
                "engine.threads=1".to_owned(),
            ];
            (name, Process::start("ai-semble-llm", home.path(), &settings))
        };
        let llms: Vec<_> =
            [("a", "one"), ("b", "one"), ("c", "two")].into_iter().map(llm).collect();
        let mut keys = KeyFile::generate().unwrap();
        let secret = keys.create("admin", &[Scope::Admin], 0, None).unwrap();
        let file = home.path().join("keys.json");
        fs::write(&file, serde_json::to_vec(&keys).unwrap()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let address = free_address();
        let sockets: Vec<String> =
            llms.iter().map(|(name, _)| format!("{:?}", socket(name))).collect();
        let settings = [
            format!("keys.file={}", file.display()),
            format!("store.dir={}", home.path().join("data").display()),
            format!("files.dir={}", home.path().join("files").display()),
            format!("listen.address={address:?}"),
            format!("services.llm=[{}]", sockets.join(",")),
        ];
        let orchestrator = Process::start("ai-semble-orchestrator", home.path(), &settings);
        let client = Client::new(&address, Some(secret.reveal()));
        let fleet = Self { home, llms, _orchestrator: orchestrator, client };
        fleet.eventually("it listens", || std::net::TcpStream::connect(&address).ok().map(drop));
        fleet.eventually("all are ready", || {
            let ready = fleet.client.get("/ready").json;
            let detail = ready["capabilities"]["llm"]["detail"].as_str()?.to_owned();
            detail.starts_with("3 of 3").then_some(())
        });
        fleet
    }

    fn eventually<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            let log = || fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn complete(&self, model: &str, prompt: &str) -> Value {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": 2, "temperature": 0});
        let answer = self.client.post(PATH, &[], &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    }

    /// Calls that each process took, once they are `sum` together.
    fn calls(&self, sum: u64) -> [u64; 3] {
        let label = |name| {
            format!("aisemble_service_requests_total{{service=\"llm\",instance=\"{name}\"}} ")
        };
        self.eventually("all calls are counted", || {
            let page = self.client.get("/metrics").text;
            let count = |name| {
                let line = page.lines().find_map(|line| line.strip_prefix(&label(name)));
                line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
            };
            let counts = ["a", "b", "c"].map(count);
            (counts.iter().sum::<u64>() == sum).then_some(counts)
        })
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn calls_go_by_model_and_by_what_they_begin_with_and_survive_a_kill() {
    let fleet = Fleet::start();
    let models = fleet.client.get("/v1/models").json;
    let names: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(names, ["one", "two"], "each once");

    for number in 0..3 {
        assert_eq!(fleet.complete("two", &format!("Number {number}"))["model"], "two");
    }
    assert_eq!(fleet.calls(3), [0, 0, 3], "by model");

    // Longer than what is looked at, so that only the beginning can decide.
    let same = "You are a careful assistant of the third ward. ".repeat(24);
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    let first = fleet.complete("one", &format!("{same}First question?"));
    assert_eq!(cached(&first), 0);
    for question in ["Second", "Third", "Fourth"] {
        let answer = fleet.complete("one", &format!("{same}{question} question?"));
        assert!(cached(&answer) > 0, "its beginning is still computed: {answer}");
    }
    let calls = fleet.calls(7);
    assert!(matches!(calls, [4, 0, 3] | [0, 4, 3]), "all four by the same process: {calls:?}");
    let home = if calls[0] == 4 { "a" } else { "b" };

    let (_, process) = fleet.llms.iter().find(|(name, _)| *name == home).unwrap();
    signal(process.0.id(), "KILL");
    fleet.eventually("the other process takes over", || {
        let body = json!({"model": "one", "prompt": format!("{same}Fifth?"), "max_tokens": 1});
        (fleet.client.post(PATH, &[], &body).status == 200).then_some(())
    });
    let gone = fleet.client.post(PATH, &[], &json!({"model": "three", "prompt": "a"}));
    assert_eq!((gone.status, &gone.json["error"]["code"]), (404, &json!("model_not_found")));
}
