//! The door's process: settings, its port, the sandbox, the relay, the end.

use std::process::ExitCode;

use aisemble_door::config::Config;
use aisemble_door::relay::Relay;
use aisemble_service::drain::{self, Outcome};
use aisemble_service::runtime::RuntimeConfig;
use aisemble_service::signals::Signals;
use aisemble_service::{Paths, StartError, runtime, sandboxed, start};
use tokio::net::TcpListener;

const NAME: &str = "door";

fn main() -> ExitCode {
    run().unwrap_or_else(|code| code)
}

fn run() -> Result<ExitCode, ExitCode> {
    let started = start::<Config>(NAME, env!("CARGO_PKG_VERSION"))?;
    let config = started.config;
    // Before the sandbox, which lets no internet socket be made.
    let listener = listen(&config).map_err(StartError::log)?;
    let paths = Paths {
        read: Vec::new(),
        read_write: Vec::new(),
        sockets: vec![config.to.socket.directory().to_owned()],
    };
    let confined = sandboxed::confine(NAME, &paths).map_err(StartError::log)?;
    let runtime = runtime::build(NAME, RuntimeConfig::CARRIER).map_err(StartError::log)?;
    let notifier = started.notifier;
    let ended = runtime.block_on(async move {
        let mut signals = Signals::install()?;
        let listener = TcpListener::from_std(listener).map_err(|source| {
            StartError::failed("the port cannot be served").with_source(source)
        })?;
        sandboxed::lock_down(confined)?;
        if let Some(notifier) = &notifier {
            notifier.ready();
        }
        tracing::info!("serving");
        let relay = Relay::new(config.behind(), config.limits.connections_max.get());
        tokio::select! {
            () = relay.serve(&listener) => {}
            signal = signals.wait() => tracing::info!(signal, "draining"),
        }
        drop(listener);
        let deadline = config.drain.deadline_ms.duration();
        Ok(match drain::drain(relay.drained(), deadline, &mut signals).await {
            Outcome::Met => ExitCode::SUCCESS,
            Outcome::Missed | Outcome::CutShort => ExitCode::FAILURE,
        })
    });
    runtime.shutdown_background();
    ended.map_err(StartError::log)
}

fn listen(config: &Config) -> Result<std::net::TcpListener, StartError> {
    let address = config.listen.address;
    let bound = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let listener = bound.map_err(|source| {
        StartError::failed(format!("cannot listen on {address}"))
            .with_source(source)
            .with_hint("another process may have the port; choose one with listen.address")
    })?;
    tracing::info!(listen.address = %address, "listening");
    Ok(listener)
}
