//! A service asked over its own socket, past the orchestrator: for `doctor`, which wants the
//! process's own word, and for measuring what the orchestrator adds.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::failure::{Exit, Failure, Outcome};

const CONNECT_MAX: Duration = Duration::from_secs(2);

/// A connection to the service at `socket`.
///
/// # Errors
/// When nobody answers there, or this user may not connect.
pub async fn channel(socket: &Path) -> Outcome<Channel> {
    let failed = |error: tonic::transport::Error| {
        Failure::new(Exit::NotRunning, format!("no service answers at {}", socket.display()))
            .because(error)
            .hint("`ai-semble status` shows what runs; --socket names another socket")
    };
    let Some(path) = socket.to_str() else {
        return Err(Failure::new(Exit::Usage, format!("{} is not UTF-8", socket.display())));
    };
    Endpoint::from_shared(format!("unix://{path}"))
        .map_err(failed)?
        .connect_timeout(CONNECT_MAX)
        .connect()
        .await
        .map_err(failed)
}
