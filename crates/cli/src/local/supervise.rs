//! Keeps a child running: starts it again when it dies, after a pause that grows, and gives up on
//! one that cannot stay up. One task a child; the others never notice.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::child::ChildSpec;
use super::notices::Notices;
use crate::process::Identity;

/// Exit code of a service whose configuration is wrong (`EX_CONFIG`): starting it again is no use.
const EXIT_CONFIG: i32 = 78;

/// When a child that died is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The first pause; each next one is twice as long.
    pub base: Duration,
    /// The longest pause.
    pub cap: Duration,
    /// A child that lived this long has started well: the count of its deaths begins anew.
    pub stable_after: Duration,
    /// Deaths in a row after which it is given up.
    pub deaths_max: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(250),
            cap: Duration::from_secs(30),
            stable_after: Duration::from_secs(60),
            deaths_max: 8,
        }
    }
}

impl RestartPolicy {
    /// The pause after death number `deaths` in a row, from 1.
    #[must_use]
    pub fn pause(&self, deaths: u32) -> Duration {
        let doublings = deaths.saturating_sub(1).min(31);
        self.base.saturating_mul(1_u32 << doublings).min(self.cap)
    }
}

/// What is known of a child.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildState {
    /// The process, while there is one.
    pub identity: Option<Identity>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
    /// It is not started any more.
    #[serde(default)]
    pub given_up: bool,
}

/// Every child's state by name; whoever watches is told of each change.
pub type States = watch::Sender<BTreeMap<String, ChildState>>;

/// A child that is kept running.
#[derive(Debug)]
pub struct Keeper {
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<bool>,
}

impl Keeper {
    /// Begins to keep the child running. Its state goes to `states`.
    #[must_use]
    pub fn start(
        spec: ChildSpec,
        policy: RestartPolicy,
        states: &States,
        notices: &Notices,
    ) -> Self {
        let (stop, stopped) = watch::channel(None);
        let keep = Keep { spec, policy, states: states.clone(), notices: notices.clone(), stopped };
        Self { stop, task: tokio::spawn(keep.run()) }
    }

    /// Ends the child and waits for it, killing it at the deadline. Tells whether it ended by
    /// itself.
    pub async fn stop(self, deadline: Duration) -> bool {
        let _ = self.stop.send(Some(deadline));
        self.task.await.unwrap_or(false)
    }
}

struct Keep {
    spec: ChildSpec,
    policy: RestartPolicy,
    states: States,
    notices: Notices,
    stopped: watch::Receiver<Option<Duration>>,
}

impl Keep {
    async fn run(mut self) -> bool {
        let mut deaths = 0;
        loop {
            let begun = Instant::now();
            let end = match self.spec.start(&self.notices) {
                Ok(mut running) => {
                    self.change(|state| state.identity = Some(running.identity));
                    tokio::select! {
                        deadline = asked_to_stop(&mut self.stopped) => {
                            let by_itself = running.stop(deadline).await;
                            self.change(|state| state.identity = None);
                            return by_itself;
                        }
                        status = running.ended() => status.map_or_else(
                            |error| End::other(format!("was lost: {error}")),
                            End::of,
                        ),
                    }
                }
                Err(error) => End::other(format!(
                    "cannot be started: {}: {error}",
                    self.spec.program.display()
                )),
            };
            deaths = if begun.elapsed() >= self.policy.stable_after { 1 } else { deaths + 1 };
            let name = self.spec.name.clone();
            let is_hopeless = end.is_hopeless || deaths >= self.policy.deaths_max;
            self.change(|state| {
                state.identity = None;
                state.last_end = Some(end.text.clone());
                state.given_up = is_hopeless;
            });
            if is_hopeless {
                let log = self.spec.log.display();
                self.notices
                    .say(&format!("{name} {}; it is not started again: see {log}", end.text));
                asked_to_stop(&mut self.stopped).await;
                return true;
            }
            let pause = self.policy.pause(deaths);
            self.notices.say(&format!("{name} {}; starting it again in {pause:?}", end.text));
            tokio::select! {
                _ = asked_to_stop(&mut self.stopped) => return true,
                () = tokio::time::sleep(pause) => self.change(|state| state.restarts += 1),
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut ChildState)) {
        self.states.send_modify(|states| change(states.entry(self.spec.name.clone()).or_default()));
    }
}

/// Waits for the order to stop and gives its deadline. The order's giver being gone is an order
/// too.
async fn asked_to_stop(stopped: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stopped.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}

struct End {
    text: String,
    is_hopeless: bool,
}

impl End {
    fn other(text: String) -> Self {
        Self { text, is_hopeless: false }
    }

    fn of(status: ExitStatus) -> Self {
        let text = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        Self { text, is_hopeless: status.code() == Some(EXIT_CONFIG) }
    }
}
