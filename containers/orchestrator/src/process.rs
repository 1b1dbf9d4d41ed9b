//! The life of the process: what is opened before the sandbox, how the parts are put together, how
//! it serves and how it ends.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aisemble_jobs::{Jobs, Scheduler};
use aisemble_protocol::v1;
use aisemble_service::config::SocketPath;
use aisemble_service::drain::{self, Outcome};
use aisemble_service::inherited::{self, Inherited};
use aisemble_service::memory::Memory;
use aisemble_service::notify::Notifier;
use aisemble_service::signals::Signals;
use aisemble_service::{Paths, Report, StartError, socket};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Keyring, Parts, now_ms};
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::executor::DispatchExecutor;
use crate::files::Files;
use crate::http::{self, Door, Listener};
use crate::live::Live;
use crate::metrics::{Metrics, ProcessFigures};
use crate::work::Bench;
use crate::workflow::{Desk, Engine, WithWorkflows};

/// Of the drain's deadline, what is left to those who are told that it is over.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What is opened before the process is confined.
#[derive(Debug)]
pub struct Opened {
    listener: Option<Inherited>,
    own: Option<(UnixListener, socket::Bound)>,
    keyring: Keyring,
    figures: ProcessFigures,
}

/// Opens the listener and the keys, and makes the store's directory, so that it can be named to the
/// sandbox. Makes no thread.
///
/// # Errors
/// When the address is taken, the key file is not usable, or the directory cannot be made.
pub fn open(config: &Config, memory: Memory) -> Result<Opened, StartError> {
    let keyring = Keyring::open(config.keys.file.clone()).map_err(|source| {
        StartError::config("the API keys cannot be used")
            .with_source(source)
            .with_hint("`ai-semble keys create` makes the file; keys.file says where it is")
    })?;
    let listener = listener(config)?;
    let dir = &config.store.dir;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| {
        StartError::config(format!("the store's directory {} cannot be made", dir.display()))
            .with_source(source)
            .with_hint("store.dir must be a directory that this user may write")
    })?;
    let own = config.listen.socket.as_ref().map(own_socket).transpose()?;
    let dir = &config.files.dir;
    DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(|source| {
        StartError::config(format!("the files' directory {} cannot be made", dir.display()))
            .with_source(source)
            .with_hint("files.dir must be a directory that this user may write")
    })?;
    Ok(Opened { listener, own, keyring, figures: ProcessFigures::open(memory) })
}

fn own_socket(path: &SocketPath) -> Result<(UnixListener, socket::Bound), StartError> {
    let listener = socket::claim(path).and_then(socket::Claim::bind)?;
    tracing::info!(listen.socket = %path, "listening");
    Ok(listener.into_parts())
}

/// What was handed over; else the own port, unless the own socket is enough.
fn listener(config: &Config) -> Result<Option<Inherited>, StartError> {
    let handed = inherited::listener().map_err(|source| {
        StartError::config("the socket that was handed over cannot be used").with_source(source)
    })?;
    if let Some(listener) = handed {
        tracing::info!("listening on the socket that was handed over");
        return Ok(Some(listener));
    }
    if config.listen.socket.is_some() {
        return Ok(None);
    }
    let address = config.listen.address;
    let bound = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let listener = bound.map_err(|source| {
        StartError::failed(format!("cannot listen on {address}"))
            .with_source(source)
            .with_hint("another process may have the port; choose one with listen.address")
    })?;
    tracing::info!(listen.address = %address, "listening");
    Ok(Some(Inherited::Tcp(listener)))
}

/// What the process may touch of the file system.
#[must_use]
pub fn paths(config: &Config) -> Paths {
    // The directory, not the file: a key file is replaced by renaming another over it.
    let keys = config.keys.file.path();
    let keys_dir = keys.parent().filter(|dir| !dir.as_os_str().is_empty());
    Paths {
        read: vec![keys_dir.unwrap_or(Path::new(".")).to_owned()],
        read_write: vec![config.store.dir.clone(), config.files.dir.clone()],
        sockets: config
            .services
            .directories()
            .into_iter()
            .chain(config.listen.socket.as_ref().map(|path| path.directory().to_owned()))
            .collect(),
    }
}

/// Opens the job store; its threads are made here, so it comes after the sandbox.
///
/// # Errors
/// When it is in use, damaged, or newer than this program.
pub fn open_store(config: &Config) -> Result<Jobs, StartError> {
    Jobs::open(&config.store)
        .map_err(|source| StartError::failed("the job store cannot be opened").with_source(source))
}

/// All parts, put together, running.
#[derive(Debug)]
pub struct Orchestrator {
    app: Arc<App>,
    door: Arc<Door>,
    scheduler: Scheduler,
    watching: CancellationToken,
}

impl Orchestrator {
    /// Puts the parts together and starts what runs in the background: the looks at the services,
    /// the scheduler. To be called within a runtime.
    ///
    /// # Errors
    /// When the folders of files cannot be made or read.
    pub fn start(
        config: &Config,
        keyring: Keyring,
        jobs: Jobs,
        figures: ProcessFigures,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let dispatch = Arc::new(Dispatch::new(&config.services, metrics.clone()));
        let watching = CancellationToken::new();
        dispatch.watch(&watching);
        let limits = config.limits.clone();
        let files = Files::open(&config.files, jobs.clone()).map_err(|source| {
            StartError::failed("the folders of files cannot be used").with_source(source)
        })?;
        let live = Live::default();
        let attempt_max = config.limits.generation_max();
        let bench = Bench {
            dispatch: Arc::clone(&dispatch),
            live: live.clone(),
            files: files.clone(),
            attempt_max,
        };
        let engine = Engine::new(jobs.clone(), files.clone(), bench.clone());
        let desk = Desk::new(engine.clone());
        let parts = Parts { limits, jobs, dispatch, keyring, metrics, figures, live, files, desk };
        let app = Arc::new(App::new(parts));
        engine.answer_with(http::lines(&app));
        let executor = WithWorkflows::new(engine, DispatchExecutor::new(bench));
        let scheduler = app.jobs.run(Arc::new(executor), config.jobs.clone());
        let door = Door::new(http::router(Arc::clone(&app)), &config.limits, &app.metrics);
        Ok(Self { app, door: Arc::new(door), scheduler, watching })
    }

    /// Says what confines the process.
    pub fn confined(&self, report: &Report) {
        let info = v1::SandboxInfo {
            landlock_abi: report.landlock_abi,
            no_new_privs: report.no_new_privs,
            seccomp_mode: report.seccomp_mode,
            seccomp_filters: report.seccomp_filters,
            policy: report.policy.clone(),
            locked_down: report.locked_down,
        };
        // Said once.
        let _ = self.app.sandbox.set(info);
    }

    /// Takes connections and runs jobs until `stop` resolves.
    pub async fn serve(&self, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
        self.keep_house().await;
        for listener in listeners {
            let door = Arc::clone(&self.door);
            tokio::spawn(async move { door.serve(listener).await });
        }
        let mut changes = self.app.dispatch.changes();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Ok(()) = changes.changed() => self.scheduler.wake(),
            }
        }
    }

    /// Sweeps what a crash left of files, and starts what is done from time to time.
    async fn keep_house(&self) {
        if let Err(error) = self.app.files.sweep().await {
            tracing::warn!("files were not swept: {error}");
        }
        let (app, stop) = (Arc::clone(&self.app), self.app.draining.clone());
        tokio::spawn(async move {
            let key = |id: &str| app.keyring.live(id, now_ms()).ok().flatten();
            app.desk.keep_time(stop, key).await;
        });
        let (files, stop) = (self.app.files.clone(), self.app.draining.clone());
        tokio::spawn(async move {
            let pause = Duration::from_millis(files.purge_ms());
            loop {
                if let Err(error) = files.expire().await {
                    tracing::warn!("files past their time were not deleted: {error}");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Ends: takes no more, lets what runs finish until shortly before `deadline`, gives the rest
    /// back to the store, and tells those who still wait to come again.
    pub async fn drain(self, deadline: Duration) {
        self.app.draining.cancel();
        self.door.close();
        let running_max = deadline.saturating_sub(FAREWELL_MAX.min(deadline / 5));
        let drained = self.scheduler.drain(running_max).await;
        tracing::info!(
            jobs.finished = drained.finished,
            jobs.given_back = drained.given_back,
            "the scheduler has stopped"
        );
        self.app.closing.cancel();
        self.door.closed().await;
        self.watching.cancel();
    }
}

/// Serves from lock-down until a signal, then drains. `lock_down` is the sandbox's second step.
///
/// # Errors
/// When the runtime, the signals or the sandbox refuse.
pub async fn live(
    config: Config,
    opened: Opened,
    jobs: Jobs,
    notifier: Option<Notifier>,
    lock_down: impl FnOnce() -> Result<Report, StartError>,
) -> Result<ExitCode, StartError> {
    let Opened { listener, own, keyring, figures } = opened;
    let mut signals = Signals::install()?;
    let mut listeners = Vec::new();
    if let Some(inherited) = listener {
        listeners.push(listener_of(inherited)?);
    }
    let bound = match own {
        Some((own, bound)) => {
            listeners.push(listener_of(Inherited::Unix(own))?);
            Some(bound)
        }
        None => None,
    };
    let orchestrator = Orchestrator::start(&config, keyring, jobs, figures)?;
    orchestrator.confined(&lock_down()?);
    if let Some(notifier) = &notifier {
        notifier.ready();
    }
    tracing::info!("serving");
    let stop = async {
        let signal = signals.wait().await;
        tracing::info!(signal, "draining");
    };
    orchestrator.serve(listeners, stop).await;
    if let Some(bound) = bound {
        bound.remove();
    }
    if let Some(notifier) = &notifier {
        notifier.stopping();
    }
    let deadline = config.drain.deadline_ms.duration();
    let outcome = drain::drain(orchestrator.drain(deadline), deadline, &mut signals).await;
    Ok(match outcome {
        Outcome::Met => ExitCode::SUCCESS,
        Outcome::Missed | Outcome::CutShort => ExitCode::FAILURE,
    })
}

fn listener_of(inherited: Inherited) -> Result<Listener, StartError> {
    let converted = match inherited {
        Inherited::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Listener::Tcp),
        Inherited::Unix(listener) => {
            tokio::net::UnixListener::from_std(listener).map(Listener::Unix)
        }
    };
    converted.map_err(|source| {
        StartError::failed("the listening socket cannot be served").with_source(source)
    })
}
