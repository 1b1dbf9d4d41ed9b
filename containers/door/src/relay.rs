//! Connections, each joined to one of its own behind the door until either side ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aisemble_service::drain::Running;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;

/// Pause after an accept that failed: most likely no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a refusal may take to be sent.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// What a caller is told while the orchestrator does not listen.
const NOBODY: &str = "the orchestrator is not there; it may be starting";
/// What a caller too many is told.
const FULL: &str = "too many connections; come again";

/// Joins connections to the socket behind the door.
#[derive(Debug, Clone)]
pub struct Relay {
    behind: Arc<PathBuf>,
    permits: Arc<Semaphore>,
    running: Running,
}

impl Relay {
    /// A relay to `behind` that carries `connections_max` at once.
    #[must_use]
    pub fn new(behind: &Path, connections_max: usize) -> Self {
        Self {
            behind: Arc::new(behind.to_owned()),
            permits: Arc::new(Semaphore::new(connections_max)),
            running: Running::new(),
        }
    }

    /// Takes connections for ever.
    pub async fn serve(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((caller, _)) => self.take(caller),
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Resolves when every connection has ended; none begins any more.
    pub async fn drained(&self) {
        self.running.close();
        self.running.idle().await;
    }

    fn take(&self, caller: TcpStream) {
        let Some(guard) = self.running.enter() else { return };
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            tokio::spawn(async move {
                refuse(caller, FULL).await;
                drop(guard);
            });
            return;
        };
        let behind = Arc::clone(&self.behind);
        tokio::spawn(async move {
            join(caller, &behind).await;
            drop((permit, guard));
        });
    }
}

async fn join(mut caller: TcpStream, behind: &Path) {
    // Tokens of a stream leave at once.
    if caller.set_nodelay(true).is_err() {
        return;
    }
    let mut orchestrator = match UnixStream::connect(behind).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(error = %error, "nobody listens behind the door");
            refuse(caller, NOBODY).await;
            return;
        }
    };
    // Time limits of heads and bodies are the orchestrator's: it ends its side, and this follows.
    if let Err(error) = tokio::io::copy_bidirectional(&mut caller, &mut orchestrator).await {
        tracing::debug!(error = %error, "a connection broke off");
    }
}

/// Answers 503 and closes.
async fn refuse(mut caller: TcpStream, detail: &str) {
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
         \"code\":\"unavailable\",\"detail\":\"{detail}\"}}\n"
    );
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let sent: Result<io::Result<()>, _> = tokio::time::timeout(REFUSAL_TIMEOUT, async {
        caller.write_all(answer.as_bytes()).await?;
        caller.shutdown().await
    })
    .await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::debug!("a refusal could not be sent");
    }
}
