//! The client's side of a service's socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle-looking connection with calls in flight is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the answer may take; long, for the service may share its cores with its model.
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a response's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// A channel to the service at `path`. It connects at the first call, and again at the first call
/// after the service went away; a call that finds nobody there fails at once with `unavailable`.
/// Clones share the connection. To be made within a runtime.
///
/// Message sizes are limited by the generated clients: give each
/// `.max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)` and the same for encoding.
#[must_use]
pub fn channel(path: &Path) -> Channel {
    let path: PathBuf = path.to_owned();
    // HTTP wants an authority; over a Unix socket nobody reads it.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
}
