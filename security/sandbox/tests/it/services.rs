//! Services of the real shapes under the real policies: they start, serve, contain a panic, and
//! end in order, with both steps in force.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::probe::ending;

/// An example program that runs until it is told to end, with its log.
struct Service {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    text: String,
}

impl Service {
    fn start(name: &str, arguments: &[&Path]) -> Self {
        let mut child = Command::new(example(name))
            .args(arguments)
            .env("RUST_BACKTRACE", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, text: String::new() }
    }

    /// The fields of the next log line with this message.
    fn logged(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).unwrap();
            assert!(length > 0, "`{message}` was never logged:\n{}", self.text);
            self.text.push_str(&line);
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            if event["fields"]["message"] == message {
                return event["fields"].clone();
            }
        }
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        #[expect(unsafe_code, reason = "std sends SIGKILL only")]
        // SAFETY: takes no pointers; the child is ours and not yet waited for.
        let result = unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(result, 0);
        self.logged("ended in order");
        assert_eq!(ending(self.child.wait().unwrap()), "exit 0", "{}", self.text);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds examples beside the tests, and names them only by place.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples").join(name)
}

#[test]
fn a_model_service_serves_grpc_contains_a_panic_and_ends_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model.gguf");
    std::fs::write(&model, vec![3; 3_000_000]).unwrap();
    let sockets = directory.path().join("run");
    std::fs::create_dir(&sockets).unwrap();

    let mut service = Service::start("model_service", &[&sockets, &model]);
    let tried = service.logged("tried");
    assert_eq!(tried["same_sum"], true);
    assert_eq!(tried["opened_again"], true);
    assert_eq!(tried["allocated"], 64 * 1024 * 1024);
    assert_eq!(tried["panicked"], true);
    assert_eq!(tried["wrong"], "[]");
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(tried["parallelism"], cores, "the CPU quota is seen from inside too");
    service.logged("serving");
    assert!(service.text.contains("deliberate_panic"), "a backtrace:\n{}", service.text);

    let socket = sockets.join("llm.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Several connections: each is accepted after lock-down.
        for _ in 0..20 {
            let mut client = HealthClient::new(channel(socket.clone()).await);
            let answer = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
            assert_eq!(answer.status, 1);
        }
    });
    // With it go the client's connections, which the service waits for.
    drop(runtime);
    service.end();
    assert!(!socket.exists(), "the service takes its socket away");
}

async fn channel(socket: PathBuf) -> tonic::transport::Channel {
    let connect = move |_| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    };
    let endpoint = tonic::transport::Endpoint::from_static("http://service");
    endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap()
}

#[test]
fn a_job_service_keeps_its_store_relays_to_a_socket_and_ends_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let (data, sockets) = (directory.path().join("data"), directory.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&sockets).unwrap();
    let listener = UnixListener::bind(sockets.join("llm.sock")).unwrap();

    let mut service = Service::start("job_service", &[&data, &sockets.join("llm.sock")]);
    let serving = service.logged("serving");
    assert_eq!(serving["rows"], 134);
    assert_eq!(serving["wrong"], "[]");

    let port = u16::try_from(serving["port"].as_u64().unwrap()).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"ping").unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    let mut question = [0; 4];
    upstream.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"ping");
    upstream.write_all(b"pong").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "pong");
    service.end();
    assert!(data.join("backup.db").exists());
}
