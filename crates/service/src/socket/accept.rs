//! Takes connections, and only from users that may connect: the kernel says who the peer is.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::bind::{Bound, Listener};
use crate::config::SocketConfig;

/// Connections at once; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// Users whose refusal is remembered, so that each is logged once.
const REFUSED_UIDS_MAX: usize = 1024;
/// How long to wait after the kernel could not give a connection (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which users may connect.
#[derive(Debug, Clone)]
pub struct PeerPolicy {
    uids: Vec<u32>,
}

impl PeerPolicy {
    /// The user that this process runs as, and those of `socket.peer_uids`.
    #[must_use]
    pub fn new(config: &SocketConfig) -> Self {
        let mut uids = config.peer_uids.as_slice().to_vec();
        uids.push(rustix::process::geteuid().as_raw());
        Self { uids }
    }

    fn admits(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }
}

/// The connections of known users, as a stream for a server, and what keeps the path ours. Taking
/// ends when the stream is dropped. To be called within a runtime.
///
/// # Errors
/// When the runtime cannot take the socket.
pub fn connections(
    listener: Listener,
    policy: PeerPolicy,
) -> io::Result<(ReceiverStream<io::Result<Connection>>, Bound)> {
    let (socket, bound) = listener.into_parts();
    let socket = UnixListener::from_std(socket)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(take(socket, policy, sender));
    Ok((ReceiverStream::new(receiver), bound))
}

async fn take(
    socket: UnixListener,
    policy: PeerPolicy,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut refused = HashSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = sender.closed() => return,
        };
        let Ok(permit) = permit else { return };
        match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream))) {
            Ok((uid, stream)) if policy.admits(uid) => {
                if sender.send(Ok(Connection { stream, _permit: permit })).await.is_err() {
                    return;
                }
            }
            Ok((uid, _)) => {
                if refused.len() < REFUSED_UIDS_MAX && refused.insert(uid) {
                    tracing::warn!(
                        peer.uid = uid,
                        "refused connections of a user that is not in socket.peer_uids"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection of a known user.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
