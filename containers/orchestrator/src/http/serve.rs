//! Connections: accepted up to a number, heads read within their time, drained at the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::LimitsConfig;
use crate::metrics::Metrics;

/// Bytes of a request's head, and of what is read ahead.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Pause after an accept that failed: most likely no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection too many is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 33\r\n\r\ntoo many connections; come again\n";

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// An internet address.
    Tcp(TcpListener),
    /// A path.
    Unix(UnixListener),
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Tokens of a stream leave at once.
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }
}

/// Takes connections and serves them.
#[derive(Debug)]
pub struct Door {
    router: Router,
    builder: http1::Builder,
    room: Arc<Semaphore>,
    open: IntGauge,
    refused: IntCounter,
    closing: CancellationToken,
    connections: TaskTracker,
}

impl Door {
    /// A door that serves `router`.
    #[must_use]
    pub fn new(router: Router, limits: &LimitsConfig, metrics: &Metrics) -> Self {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_max())
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        Self {
            router,
            builder,
            room: Arc::new(Semaphore::new(limits.connections_max)),
            open: metrics.http_connections.clone(),
            refused: metrics.http_connections_refused.clone(),
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    /// Takes connections until [`Self::close`].
    pub async fn serve(&self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closing.cancelled() => return,
            };
            match (accepted, Arc::clone(&self.room).try_acquire_owned()) {
                (Ok(connection), Ok(permit)) => self.begin(connection, permit),
                (Ok(connection), Err(_)) => {
                    self.refused.inc();
                    turn_away(&connection);
                }
                (Err(error), _) => {
                    tracing::warn!(error.cause = %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes no more connections; those that are idle close, the others after their answer.
    pub fn close(&self) {
        self.closing.cancel();
        self.connections.close();
    }

    /// Resolves when, after [`Self::close`], the last connection is gone.
    pub async fn closed(&self) {
        self.connections.wait().await;
    }

    fn begin(&self, connection: Connection, permit: OwnedSemaphorePermit) {
        match connection {
            Connection::Tcp(stream) => self.spawn(stream, permit),
            Connection::Unix(stream) => self.spawn(stream, permit),
        }
    }

    fn spawn<S>(&self, stream: S, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let closing = self.closing.clone();
        let open = Open::new(self.open.clone(), permit);
        self.connections.spawn(async move {
            let _open = open;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error.cause = %error, "a connection broke off");
            }
        });
    }
}

/// One open connection.
struct Open {
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(gauge: IntGauge, permit: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Says why, without waiting: the few bytes fit into a fresh connection's buffer.
fn turn_away(connection: &Connection) {
    let _ = match connection {
        Connection::Tcp(stream) => stream.try_write(FULL),
        Connection::Unix(stream) => stream.try_write(FULL),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_its_own_length() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}
