//! The orchestrator's parts put together as the binary does, on a free port, with a home of its
//! own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aisemble_orchestrator::app::Keyring;
use aisemble_orchestrator::capability::Capability;
use aisemble_orchestrator::config::Config;
use aisemble_orchestrator::http::Listener;
use aisemble_orchestrator::metrics::ProcessFigures;
use aisemble_orchestrator::process::Orchestrator;
use aisemble_protocol::keys::{KeyFile, KeyLimits, Scope};
use aisemble_service::SecretFile;
use aisemble_service::config::SocketPath;
use aisemble_service::memory::Memory;
use futures_util::StreamExt as _;
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::peer::Peer;
use crate::services;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The route of the main job.
pub(crate) const PATH: &str = "/ai/llm/completion";

/// A running orchestrator.
pub(crate) struct Stack {
    home: tempfile::TempDir,
    address: String,
    keys: Mutex<KeyFile>,
    pub(crate) peer: Option<Peer>,
    others: Vec<(Capability, services::Peer)>,
    pub(crate) admin: Client,
    stop: Option<oneshot::Sender<Duration>>,
    ended: JoinHandle<()>,
}

/// The defaults, with everything in `home`.
pub(crate) fn config(home: &Path) -> Config {
    let mut config = Config::default();
    config.keys.file = SecretFile::new(home.join("keys.json"));
    config.store.dir = home.join("data");
    config.files.dir = home.join("files");
    config.services.llm = vec![SocketPath::try_from(home.join("llm.sock")).unwrap()];
    config
}

impl Stack {
    /// With a service that takes four calls and queues four more, ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}, Some((4, 4))).await
    }

    /// With other settings and another service, or none.
    pub(crate) async fn start_with(change: fn(&mut Config), peer: Option<(u32, u32)>) -> Self {
        let home = tempfile::Builder::new().prefix("ais").tempdir().unwrap();
        let peer = match peer {
            Some(limits) => Some(Peer::start(&home.path().join("llm.sock"), limits).await),
            None => None,
        };
        let mut config = config(home.path());
        change(&mut config);
        Self::put_together(home, config, peer, Vec::new()).await
    }

    /// With these services, ready.
    pub(crate) async fn of(capabilities: &[Capability]) -> Self {
        let home = tempfile::Builder::new().prefix("ais").tempdir().unwrap();
        let mut config = config(home.path());
        config.services.llm.clear();
        let (mut peer, mut others) = (None, Vec::new());
        for capability in capabilities {
            let path = home.path().join(format!("{}.sock", capability.as_str()));
            let sockets = vec![SocketPath::try_from(path.clone()).unwrap()];
            match capability {
                Capability::Llm => {
                    config.services.llm = sockets;
                    peer = Some(Peer::start(&path, (4, 4)).await);
                }
                Capability::Nlp => {
                    config.services.nlp = sockets;
                    others.push((*capability, services::Peer::nlp(&path).await));
                }
                Capability::Vision => {
                    config.services.vision = sockets;
                    others.push((*capability, services::Peer::vision(&path).await));
                }
                Capability::Data => {
                    config.services.data = sockets;
                    others.push((*capability, services::Peer::data(&path).await));
                }
            }
        }
        Self::put_together(home, config, peer, others).await
    }

    /// Another process in the same home, after the drain is over. Its keys are new ones.
    pub(crate) async fn restart(self) -> Self {
        let config = config(self.home.path());
        Self::put_together(self.home, config, self.peer, self.others).await
    }

    /// With several language-model services, each with the model of that name, all ready.
    pub(crate) async fn of_llms(models: &[&'static str], limits: (u32, u32)) -> (Self, Vec<Peer>) {
        let home = tempfile::Builder::new().prefix("ais").tempdir().unwrap();
        let mut config = config(home.path());
        config.services.llm.clear();
        let mut peers = Vec::new();
        for (index, model) in models.iter().enumerate() {
            let path = home.path().join(format!("llm{index}.sock"));
            config.services.llm.push(SocketPath::try_from(path.clone()).unwrap());
            peers.push(Peer::hosting(model, &path, limits).await);
        }
        let stack = Self::put_together(home, config, None, Vec::new()).await;
        let all = format!("{0} of {0}", models.len());
        let ready = async || {
            let ready = stack.admin.get("/ready").await.json;
            let detail = ready["capabilities"]["llm"]["detail"].as_str().unwrap().to_owned();
            detail.starts_with(&all)
        };
        stack.eventually("all ready", ready).await;
        (stack, peers)
    }

    async fn put_together(
        home: tempfile::TempDir,
        config: Config,
        peer: Option<Peer>,
        others: Vec<(Capability, services::Peer)>,
    ) -> Self {
        let mut keys = KeyFile::generate().unwrap();
        let secret = keys.create("admin", &[Scope::Admin], 0, None).unwrap();
        write_keys(&home.path().join("keys.json"), &keys);
        let jobs = aisemble_jobs::Jobs::open(&config.store).unwrap();
        let keyring = Keyring::open(config.keys.file.clone()).unwrap();
        let figures = ProcessFigures::open(Memory::open().unwrap());
        let orchestrator = Orchestrator::start(&config, keyring, jobs, figures).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let mut deadline = Duration::ZERO;
            let stop = async {
                if let Ok(asked) = stopped.await {
                    deadline = asked;
                }
            };
            orchestrator.serve(vec![Listener::Tcp(listener)], stop).await;
            orchestrator.drain(deadline).await;
        });
        let admin = Client::new(&address, Some(secret.reveal()));
        let keys = Mutex::new(keys);
        let stop = Some(stop);
        let stack = Self { home, address, keys, peer, others, admin, stop, ended };
        if stack.peer.is_some() || !stack.others.is_empty() {
            stack.eventually("ready", async || stack.admin.get("/ready").await.status == 200).await;
        }
        stack
    }

    /// A client with a new key of these scopes.
    pub(crate) fn client(&self, scopes: &[Scope]) -> Client {
        self.limited_client(scopes, KeyLimits::default())
    }

    /// A client with a new key of these scopes and limits.
    pub(crate) fn limited_client(&self, scopes: &[Scope], limits: KeyLimits) -> Client {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = keys.create("more", scopes, 0, None).unwrap();
        keys.keys.last_mut().unwrap().limits = limits;
        write_keys(&self.home.path().join("keys.json"), &keys);
        Client::new(&self.address, Some(secret.reveal()))
    }

    /// A client without a key.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(&self.address, None)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn peer(&self) -> &Peer {
        self.peer.as_ref().unwrap()
    }

    /// The service of that capability.
    pub(crate) fn service(&self, capability: Capability) -> &services::Peer {
        &self.others.iter().find(|(other, _)| *other == capability).unwrap().1
    }

    /// Where the service's socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("llm.sock")
    }

    /// Begins the drain.
    pub(crate) fn stop(&mut self, deadline: Duration) {
        self.stop.take().unwrap().send(deadline).unwrap();
    }

    /// Resolves when the drain is over.
    pub(crate) async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, &mut self.ended).await.unwrap().unwrap();
    }

    /// Submits and gives the job's id.
    pub(crate) async fn submit(&self, body: &Value) -> String {
        let answer = self.admin.post(PATH, &[], body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json["id"].as_str().unwrap().to_owned()
    }

    /// Asks until the job has that state.
    pub(crate) async fn await_state(&self, id: &str, state: &str) -> Value {
        let path = format!("/jobs/{id}");
        let reached = async || self.admin.get(&path).await.json["state"] == state;
        self.eventually(&format!("{id} {state}"), reached).await;
        self.admin.get(&path).await.json
    }

    /// Asks until it is so. Each round waits for an answer of the server, so it does not spin.
    pub(crate) async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let asking = async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, asking).await;
        assert!(reached.is_ok(), "did not come about: {what}");
    }
}

fn write_keys(path: &Path, keys: &KeyFile) {
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec(keys).unwrap()).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Value,
    pub(crate) text: String,
    headers: reqwest::header::HeaderMap,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, json, text, headers }
    }

    /// Checks that it is a problem with that code, and that its sentence says so much.
    pub(crate) fn check_problem(&self, status: u16, code: &str, sentence: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.json["status"], status, "{}", self.text);
        assert_eq!(self.json["code"], code, "{}", self.text);
        let detail = self.json["detail"].as_str().unwrap();
        assert!(detail.contains(sentence), "{detail:?} does not say {sentence:?}");
        assert_eq!(self.json["request_id"].as_str(), self.header("x-request-id"));
    }

    /// Seconds of `Retry-After`, within what clients obey.
    pub(crate) fn retry_after_s(&self) -> u64 {
        let seconds = self.header("retry-after").expect("no Retry-After").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        seconds
    }
}

/// A client with one key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Client {
    fn new(address: &str, key: Option<&str>) -> Self {
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { http, base: format!("http://{address}"), key: key.map(str::to_owned) }
    }

    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).body(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        Answer::read(self.send(method, path, headers, body).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Vec::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.ask(Method::POST, path, &json_headers(headers), body.to_string().into()).await
    }

    /// A stream of events.
    pub(crate) async fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        Events::new(self.send(Method::GET, path, headers, Vec::new()).await)
    }

    /// A stream of events as the answer to a body.
    pub(crate) async fn post_events(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Events {
        let body = body.to_string().into();
        Events::new(self.send(Method::POST, path, &json_headers(headers), body).await)
    }
}

fn json_headers<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let json = ("content-type", "application/json");
    std::iter::once(json).chain(headers.iter().copied()).collect()
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// Events as they come.
pub(crate) struct Events {
    pub(crate) response_headers: reqwest::header::HeaderMap,
    bytes:
        std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: String,
}

impl Events {
    fn new(response: Response) -> Self {
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let response_headers = response.headers().clone();
        Self { response_headers, bytes: response.bytes_stream().boxed(), buffer: String::new() }
    }

    /// The next event; none at the end. Comments are passed over.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let mut event = Event::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", value)) => value.clone_into(&mut event.id),
                        Some(("event", value)) => value.clone_into(&mut event.name),
                        Some(("data", value)) => value.clone_into(&mut event.data),
                        _ => {}
                    }
                }
                if event != Event::default() {
                    return Some(event);
                }
                continue;
            }
            let bytes = self.bytes.next().await?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// All events to the end.
    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}
