//! The whole `main` of a gRPC service, step by step.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aisemble_protocol::v1;
use aisemble_sandbox::{Confined, Paths};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::RoutesBuilder;

use crate::config::{GrpcConfig, ServiceConfig as _};
use crate::drain::{self, Outcome, Running};
use crate::grpc::{self, Health, Parts, Process};
use crate::notify::Notifier;
use crate::runtime::{self, RuntimeConfig};
use crate::signals::Signals;
use crate::socket::{self, Bound, Listener, PeerPolicy};
use crate::{LoadProgress, Ready, StartError, Started, sandboxed, start};

/// How long answers that are done may take to leave the process after a drain.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the service manager is told how far the load is.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A gRPC service with a model: what [`run`] needs to know of it.
pub trait Service: Send + Sync + Sized + 'static {
    /// The service's name (`llm`): that of its default configuration file and of its log lines.
    const NAME: &'static str;
    /// The version of its binary.
    const VERSION: &'static str;
    /// The sandbox policy that it runs under.
    const POLICY: &'static str = Self::NAME;
    /// Its settings.
    type Config: GrpcConfig;

    /// What it may touch of the file system: its model. The socket's directory is added by [`run`].
    fn paths(config: &Self::Config) -> Paths;

    /// Called once, when the process is confined and before it has a second thread: what must be
    /// forked is forked here.
    ///
    /// # Errors
    /// As [`Self::load`].
    fn prepare(_config: &Self::Config) -> Result<(), StartError> {
        Ok(())
    }

    /// Loads the model, runs the warm-up inference and checks its output. Called once, on a thread
    /// of its own, which may block; threads and files of the service are made here, for afterwards
    /// the sandbox is tightened.
    ///
    /// # Errors
    /// [`StartError::config`] for what the operator must change (a missing model file, a wrong
    /// digest), [`StartError::failed`] for the rest. The process ends with it.
    fn load(config: &Self::Config, progress: &LoadProgress) -> Result<Self, StartError>;

    /// Adds the service's own gRPC services, each with
    /// `.max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)`. They are called while the
    /// model still loads, and answer what [`Ready::get`] says.
    fn routes(ready: Ready<Self>, routes: &mut RoutesBuilder);

    /// What it hosts. Service, version, pid, sandbox and load time are filled in.
    fn describe(&self) -> v1::DescribeResponse;

    /// Its figures; must not wait for the model's thread. Uptime and memory are filled in.
    fn stats(&self) -> v1::StatsResponse;

    /// Called once when the drain begins; resolves when nothing runs any more. The drain waits for
    /// it and for the answers of all calls. New calls are refused by then.
    fn drain(&self) -> impl Future<Output = ()> + Send;

    /// The threads that carry calls; the model's own threads are not counted here.
    fn runtime(_config: &Self::Config) -> RuntimeConfig {
        RuntimeConfig::CARRIER
    }
}

/// Runs the service until a signal ends it: configuration, logs, confinement, runtime, socket and
/// health (not serving), load and warm-up on a thread of its own, lock-down, health (serving),
/// signal, drain.
///
/// The exit code: 0 when all work was done at the end, or a signal came before the service was
/// ready; 1 when the drain's deadline was missed or something failed; 78 when the configuration, or
/// a file that it names, is wrong; 64 for unknown flags.
#[must_use]
pub fn run<S: Service>() -> ExitCode {
    serve::<S>().unwrap_or_else(|code| code)
}

fn serve<S: Service>() -> Result<ExitCode, ExitCode> {
    let started = start::<S::Config>(S::NAME, S::VERSION)?;
    let (listener, confined) = enclose::<S>(&started.config).map_err(StartError::log)?;
    let runtime = runtime::build(S::NAME, S::runtime(&started.config)).map_err(StartError::log)?;
    let ended = runtime.block_on(live::<S>(started, listener, confined));
    // Not waiting: what still runs was given up.
    runtime.shutdown_background();
    ended.map_err(StartError::log)
}

/// Everything that must come before the first thread.
fn enclose<S: Service>(config: &S::Config) -> Result<(Listener, Confined), StartError> {
    let path = &config.socket().path;
    let claim = socket::claim(path)?;
    let mut paths = S::paths(config);
    paths.sockets.push(path.directory().to_owned());
    let confined = sandboxed::confine(S::POLICY, &paths)?;
    S::prepare(config)?;
    let listener = claim.bind()?;
    tracing::info!(socket.path = %path, "listening");
    Ok((listener, confined))
}

async fn live<S: Service>(
    started: Started<S::Config>,
    listener: Listener,
    confined: Confined,
) -> Result<ExitCode, StartError> {
    let Started { config, started_at, memory, notifier } = started;
    let mut signals = Signals::install()?;
    let progress = LoadProgress::new();
    let ready = Ready::loading(progress.clone());
    let process = Arc::new(Process { memory, started_at, load_ms: OnceLock::new() });
    let mut door = open_door(&config, listener, &ready, &process).await?;

    let loaded = {
        let load = load::<S>(config.clone(), progress.clone())?;
        tokio::select! {
            loaded = load => loaded?,
            signal = signals.wait() => {
                tracing::info!(signal, "stopped before the service was ready");
                door.bound.remove();
                return Ok(ExitCode::SUCCESS);
            }
            never = tell(notifier.as_ref(), &progress) => match never {},
        }
    };
    // The latch opens after it: no call is ever served under the wider filter.
    sandboxed::lock_down(confined)?;
    let service = ready.open(loaded);
    let load_ms = *process.load_ms.get_or_init(|| grpc::elapsed_ms(started_at));
    door.health.set(true).await;
    if let Some(notifier) = &notifier {
        notifier.ready();
    }
    let memory_bytes = process.memory.resident_bytes();
    tracing::info!(duration_ms = load_ms, memory.resident_bytes = memory_bytes, "serving");

    let signal = tokio::select! {
        signal = signals.wait() => signal,
        ended = &mut door.server => return Err(server_ended(ended)),
    };
    tracing::info!(signal, calls.running = door.running.count(), "draining");
    // Closed first: who reads NOT_SERVING can rely on it that nothing more is taken.
    door.running.close();
    door.health.set(false).await;
    if let Some(notifier) = &notifier {
        notifier.stopping();
    }
    let running = door.running.clone();
    let work = async { tokio::join!(service.drain(), running.idle()) };
    let deadline = config.drain().deadline_ms.duration();
    let outcome = drain::drain(async { _ = work.await }, deadline, &mut signals).await;
    door.close().await;
    Ok(match outcome {
        Outcome::Met => ExitCode::SUCCESS,
        Outcome::Missed | Outcome::CutShort => ExitCode::FAILURE,
    })
}

type Served = Result<(), tonic::transport::Error>;

/// The server while it runs.
struct Door {
    health: Health,
    running: Running,
    bound: Bound,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Served>,
}

impl Door {
    /// Lets the last answers out, closes the connections, removes the socket.
    async fn close(self) {
        self.health.close().await;
        // The server is gone only if it failed, and then there is nothing to stop.
        let _ = self.stop.send(());
        if tokio::time::timeout(FLUSH_TIMEOUT, self.server).await.is_err() {
            tracing::debug!("connections were still open at the end");
        }
        self.bound.remove();
    }
}

async fn open_door<S: Service>(
    config: &S::Config,
    listener: Listener,
    ready: &Ready<S>,
    process: &Arc<Process>,
) -> Result<Door, StartError> {
    let policy = PeerPolicy::new(config.socket());
    let (connections, bound) = socket::connections(listener, policy)
        .map_err(|source| StartError::failed("the socket cannot be served").with_source(source))?;
    let running = Running::new();
    let (stop, stopped) = oneshot::channel();
    let parts = Parts {
        ready: ready.clone(),
        process: Arc::clone(process),
        running: running.clone(),
        connections,
    };
    let (health, serve) = grpc::server(parts, async { _ = stopped.await }).await?;
    let server = tokio::spawn(serve);
    Ok(Door { health, running, bound, stop, server })
}

/// Loads the service on a thread of its own.
fn load<S: Service>(
    config: S::Config,
    progress: LoadProgress,
) -> Result<impl Future<Output = Result<S, StartError>>, StartError> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("{}-load", S::NAME))
        .spawn(move || {
            let loaded = catch_unwind(AssertUnwindSafe(|| S::load(&config, &progress)));
            let loaded = loaded.unwrap_or_else(|_| {
                Err(StartError::failed("a defect: loading panicked, the line before says where"))
            });
            // Nobody waits for it any more once a signal came.
            let _ = sender.send(loaded);
        })
        .map_err(|source| {
            StartError::failed("the thread that loads cannot be made").with_source(source)
        })?;
    Ok(async move {
        receiver.await.unwrap_or_else(|_| Err(StartError::failed("the thread that loads is gone")))
    })
}

/// Tells the service manager how far the load is, for as long as it is polled.
async fn tell(notifier: Option<&Notifier>, progress: &LoadProgress) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    loop {
        ticks.tick().await;
        if let Some(notifier) = notifier {
            notifier.status(&format!("loading ({progress})"));
        }
    }
}

fn server_ended(ended: Result<Served, tokio::task::JoinError>) -> StartError {
    let error = StartError::failed("the server ended without being asked to");
    match ended {
        Ok(Ok(())) => error,
        Ok(Err(source)) => error.with_source(source),
        Err(source) => error.with_source(source),
    }
}
