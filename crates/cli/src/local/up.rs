//! `ai-semble up`: prepares the home, starts everything, waits until it is ready, keeps it running
//! and ends it in order.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use aisemble_client::{Client, ClientConfig, RetryPolicy};
use rustix::process::Signal;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::logs::{BoundedLog, LOG_BYTES_MAX};
use super::notices::Notices;
use super::state::UpState;
use super::supervise::{ChildState, Keeper, RestartPolicy};
use super::{detach, plan, ready, services};
use crate::args::{Global, Up};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::keys;
use crate::process::Identity;
use crate::terminal::Terminal;

/// How much longer than its own drain a child may take before it is killed.
const KILL_MARGIN: Duration = Duration::from_secs(3);

/// Runs the command.
///
/// # Errors
/// When something is missing, already runs, or does not become ready.
pub async fn run(global: &Global, options: Up, terminal: Terminal) -> Outcome<()> {
    check_address(&options)?;
    let home = Home::named(global)?;
    home.ensure()?;
    if options.detach {
        return detach::run(global, &home, &options, terminal).await;
    }
    let Some(_lock) = home.try_lock("up")? else { return Err(runs_already(&home)) };
    let notices = if options.background {
        // Its own session: closing the terminal does not reach it.
        let _ = rustix::process::setsid();
        let path = home.log("up");
        let log = BoundedLog::open(&path, LOG_BYTES_MAX);
        Notices::into_log(log.map_err(|error| Failure::file("open", &path, error))?)
    } else {
        Notices::on(terminal)
    };
    let mut orders = Orders::listen()?;
    if keys::ensure(&home)? {
        terminal.note(&format!("Made an API key: {}", home.client_key().display()));
    }
    let instances = services::choose(&home, &options, terminal)?;
    let listener = Arc::new(bind(options.listen)?);
    let plan = plan::make(&home, &options, &instances, &listener)?;
    let address = listener.local_addr().map_err(|error| cannot_listen(options.listen, error))?;

    let stack = Stack::start(&home, plan, address, &notices)?;
    let served = stack.serve(&options, terminal, &mut orders).await;
    let drained = stack.end(&options, &notices, &mut orders).await;
    served?;
    if drained {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "running work did not end in time and was cut off")
        .hint("jobs that were cut off start again with the next `ai-semble up`"))
}

/// What is being run.
struct Stack {
    home: Home,
    names: Vec<String>,
    keepers: Vec<Keeper>,
    states: watch::Receiver<BTreeMap<String, ChildState>>,
    ready: watch::Sender<bool>,
    publisher: tokio::task::JoinHandle<()>,
    base: UpState,
}

impl Stack {
    fn start(
        home: &Home,
        plan: plan::Plan,
        address: SocketAddr,
        notices: &Notices,
    ) -> Outcome<Self> {
        let own = Identity::of(std::process::id())
            .ok_or_else(|| Failure::new(Exit::Failed, "/proc is not readable"))?;
        let base = UpState {
            identity: own,
            address: address.to_string(),
            model: plan.model.0,
            model_file: plan.model.1.to_string_lossy().into_owned(),
            services: plan.services,
            ready: false,
            children: BTreeMap::new(),
        };
        base.write(home)?;
        let (states, watched) = watch::channel(BTreeMap::new());
        let (ready, is_ready) = watch::channel(false);
        let names = plan.children.iter().map(|child| child.name.clone()).collect();
        let keepers = plan
            .children
            .into_iter()
            .map(|child| Keeper::start(child, RestartPolicy::default(), &states, notices))
            .collect();
        let publish =
            publish(home.clone(), base.clone(), watched.clone(), is_ready, notices.clone());
        let publisher = tokio::spawn(publish);
        Ok(Self { home: home.clone(), names, keepers, states: watched, ready, publisher, base })
    }

    /// Until somebody orders the end, or there is nothing left to serve with.
    async fn serve(&self, options: &Up, terminal: Terminal, orders: &mut Orders) -> Outcome<()> {
        let mut config = ClientConfig::new(self.base.url(), None);
        config.retry = RetryPolicy::NEVER;
        config.deadline = ready::ANSWER_MAX;
        let client = Client::new(config)?;
        let wait = ready::Wait {
            client: &client,
            services: &self.base.services,
            patience: Duration::from_secs(options.ready_seconds),
        };
        tokio::select! {
            done = ready::wait(&wait, terminal, || self.hopeless()) => done?,
            () = orders.end() => {
                return Err(Failure::new(Exit::Interrupted, "stopped before it was ready"));
            }
        }
        let _ = self.ready.send(true);
        self.greet(options, terminal)?;
        let mut states = self.states.clone();
        loop {
            tokio::select! {
                () = orders.end() => return Ok(()),
                changed = states.changed() => {
                    let given_up = |name: &str| {
                        states.borrow().get(name).is_some_and(|state| state.given_up)
                    };
                    // Without the orchestrator nobody can be served; without a service, others can.
                    if changed.is_err() || given_up("orchestrator") {
                        return self.hopeless();
                    }
                }
            }
        }
    }

    /// An error when a child was given up.
    fn hopeless(&self) -> Outcome<()> {
        let states = self.states.borrow();
        let Some((name, state)) = states.iter().find(|(_, state)| state.given_up) else {
            return Ok(());
        };
        let end = state.last_end.clone().unwrap_or_default();
        let mut failure = Failure::new(Exit::Failed, format!("{name} {end} and does not stay up"));
        if let Some(line) = super::logs::last_summary(&self.home.log(name)) {
            failure = failure.because(line);
        }
        Err(failure.hint(format!("its log tells more: {}", self.home.log(name).display())))
    }

    fn greet(&self, options: &Up, terminal: Terminal) -> Outcome<()> {
        if terminal.json {
            return terminal.data(&json!({
                "event": "ready",
                "url": self.base.url(),
                "model": self.base.model,
                "services": self.base.services,
                "pid": self.base.identity.pid,
                "key_file": self.home.client_key(),
            }));
        }
        if !options.background {
            terminal.note(&greeting(&self.home, &self.base, "Ctrl-C ends it"));
        }
        Ok(())
    }

    /// Ends the children, the orchestrator first: it takes nothing new and gives its work to end.
    /// Tells whether all ended by themselves.
    async fn end(mut self, options: &Up, notices: &Notices, orders: &mut Orders) -> bool {
        let deadline = Duration::from_secs(options.drain_seconds) + KILL_MARGIN;
        let states = self.states.clone();
        let keepers = std::mem::take(&mut self.keepers);
        let names = std::mem::take(&mut self.names);
        let in_order = async {
            let mut all_by_themselves = true;
            for (keeper, name) in keepers.into_iter().zip(&names).rev() {
                notices.say(&format!("Ending {name}"));
                all_by_themselves &= keeper.stop(deadline).await;
            }
            all_by_themselves
        };
        tokio::pin!(in_order);
        let drained = tokio::select! {
            drained = &mut in_order => drained,
            () = orders.end() => {
                notices.say("Ordered a second time: killing what still runs");
                for state in states.borrow().values() {
                    let _ = state.identity.is_some_and(|who| who.signal(Signal::KILL));
                }
                in_order.await;
                false
            }
        };
        self.publisher.abort();
        let _ = std::fs::remove_file(self.home.up_state());
        drained
    }
}

/// Keeps `run/up.json` true.
async fn publish(
    home: Home,
    base: UpState,
    mut states: watch::Receiver<BTreeMap<String, ChildState>>,
    mut ready: watch::Receiver<bool>,
    notices: Notices,
) {
    loop {
        let state = UpState {
            ready: *ready.borrow_and_update(),
            children: states.borrow_and_update().clone(),
            ..base.clone()
        };
        if let Err(failure) = state.write(&home) {
            notices.say(&failure.to_string());
        }
        let is_over = tokio::select! {
            changed = states.changed() => changed.is_err(),
            changed = ready.changed() => changed.is_err(),
        };
        if is_over {
            return;
        }
    }
}

/// Orders to end: SIGTERM, SIGINT, SIGHUP.
struct Orders {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Orders {
    fn listen() -> Outcome<Self> {
        let on = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failed, "cannot listen for signals").because(error)
            })
        };
        let signals =
            [on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?];
        Ok(Self { signals })
    }

    async fn end(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What to do with what runs.
pub(super) fn greeting(home: &Home, state: &UpState, how_to_end: &str) -> String {
    let (url, served, key) = (state.url(), state.served(), home.client_key());
    let is_there = |service: &str| state.services.values().any(|other| other.service == service);
    let tries: String = [
        ("llm", "  ai-semble chat\n  ai-semble complete \"Name three rivers.\"\n"),
        ("nlp", "  ai-semble redact \"Write to eva@example.org.\"\n"),
        ("vision", "  ai-semble see PICTURE\n"),
        ("data-processor", "  ai-semble data query \"SELECT count(*) FROM t\" t=FILE.csv\n"),
    ]
    .into_iter()
    .filter(|(service, _)| is_there(service))
    .map(|(_, line)| line)
    .collect();
    format!(
        "Ready: {url} serves {served}\n\n{tries}  \
         curl -s {url}/v1/models -H \"Authorization: Bearer $(cat {})\"\n\n\
         {how_to_end}; logs are in {}",
        key.display(),
        home.root().join("logs").display()
    )
}

pub(super) fn runs_already(home: &Home) -> Failure {
    let who = UpState::alive(home).ok().flatten();
    let who = who.map(|state| format!(" at {} (pid {})", state.url(), state.identity.pid));
    let message = format!("Ai-semble runs already{}", who.unwrap_or_default());
    Failure::new(Exit::Failed, message)
        .hint("`ai-semble status` shows it, `ai-semble down` ends it; --home DIR has another one")
}

fn check_address(options: &Up) -> Outcome<()> {
    if options.listen.ip().is_loopback() || options.expose {
        return Ok(());
    }
    let message = format!("{} is reached by other machines, without encryption", options.listen);
    Err(Failure::new(Exit::Usage, message)
        .hint("listen on 127.0.0.1 behind your own TLS proxy, or add --expose"))
}

fn bind(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).map_err(|error| cannot_listen(address, error))
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Failure {
    let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
    let failure = Failure::new(Exit::Failed, format!("cannot listen on {address}")).because(error);
    if is_taken {
        return failure
            .hint("another program has the port: choose one with --listen 127.0.0.1:PORT");
    }
    failure
}
