//! `--health`: a second, short-lived process of the same binary and settings asks the first, over
//! its socket, whether it serves. This is the probe of a container whose image holds nothing else.
//!
//! It must not know what the service does.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::config::{EXIT_USAGE, SocketPath};
use crate::runtime::{self, RuntimeConfig};
use crate::socket::channel;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The answer needs one thread.
const THREADS: RuntimeConfig = RuntimeConfig { worker_threads: 1, blocking_threads_max: 1 };

/// Asks the service at `socket`: 0 when it serves, 1 when it does not or does not answer, 64 when
/// this kind of process has no socket to ask at. Says so in a line on standard output.
pub(crate) fn ask(name: &str, socket: Option<&SocketPath>) -> ExitCode {
    let Some(socket) = socket else {
        crate::config::complain("error: this process has no socket that health is asked at\n");
        return ExitCode::from(EXIT_USAGE);
    };
    let answer = match runtime::build(name, THREADS) {
        Ok(runtime) => runtime.block_on(status(socket)),
        Err(error) => error.to_string(),
    };
    crate::config::print(&format!("{answer}\n"));
    if answer == SERVING { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const SERVING: &str = "serving";
/// The probe of a process that speaks HTTP.
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// Bytes of an answer that are looked at: its first line is enough.
const HEAD_BYTES_MAX: usize = 64;

/// The same for a process that speaks HTTP on its socket: it serves when `GET /health` is 200.
pub(crate) fn ask_http(socket: &SocketPath) -> ExitCode {
    let answer = match head(socket) {
        Ok(head) if head.starts_with("HTTP/1.1 200 ") => SERVING.to_owned(),
        Ok(head) => format!("not serving: {}", head.lines().next().unwrap_or_default()),
        Err(error) => format!("no answer at {socket}: {error}"),
    };
    crate::config::print(&format!("{answer}\n"));
    if answer == SERVING { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The beginning of the answer to [`REQUEST`].
fn head(socket: &SocketPath) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket.as_path())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut bytes = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    while filled < HEAD_BYTES_MAX {
        match stream.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..filled]).into_owned())
}

/// The service's answer, or why there is none, in words.
async fn status(socket: &SocketPath) -> String {
    let mut client = HealthClient::new(channel(socket.as_path()));
    let request = HealthCheckRequest { service: String::new() };
    match tokio::time::timeout(PATIENCE, client.check(request)).await {
        Ok(Ok(response)) => match response.into_inner().status() {
            ServingStatus::Serving => SERVING.to_owned(),
            ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
                "not serving".to_owned()
            }
        },
        Ok(Err(status)) => format!("no answer at {socket}: {}", status.message()),
        Err(_elapsed) => format!("no answer at {socket} within {PATIENCE:?}"),
    }
}
