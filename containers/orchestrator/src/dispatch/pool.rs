//! The instances of one capability: which of them host a model, which of those gets a call, and
//! what is said when none can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aisemble_protocol::{ApiError, ErrorCode, v1};
use aisemble_service::config::SocketPath;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::affinity::Prefix;
use super::instances::{Class, Instance, Permit};
use super::rate::Rate;
use super::{Model, Readiness, catalog};
use crate::capability::Capability;
use crate::metrics::SampledInstance;

/// When to come again if no instance has ever said how long it loads.
const LOAD_MS_UNKNOWN: u64 = 5_000;
/// Characters of a model's name that an error repeats.
const SHOWN_CHARS_MAX: usize = 100;

/// What a call needs of the instance that gets it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Need<'a> {
    /// The model, by name; `None` = any instance does.
    pub(super) model: Option<&'a str>,
    /// The beginning of its input, whose computation an instance may still have.
    pub(super) prefix: Option<Prefix>,
}

/// All instances of one capability.
#[derive(Debug)]
pub(super) struct Pool {
    capability: Capability,
    instances: Vec<Arc<Instance>>,
    finished: Arc<Rate>,
    /// Who is first among equals next time.
    turn: AtomicUsize,
}

impl Pool {
    /// To be called within a runtime.
    pub(super) fn new(
        capability: Capability,
        sockets: &[SocketPath],
        changed: &watch::Sender<()>,
    ) -> Self {
        let stem = |path: &SocketPath| {
            path.as_path().file_stem().unwrap_or_default().to_string_lossy().into_owned()
        };
        let stems: Vec<String> = sockets.iter().map(stem).collect();
        let instance = |(index, path)| {
            let stem: &String = &stems[index];
            let twice = stems.iter().filter(|other| *other == stem).count() > 1;
            let name = if twice { format!("{stem}-{index}") } else { stem.clone() };
            Arc::new(Instance::new(capability, name, path, changed.clone()))
        };
        let instances = sockets.iter().enumerate().map(instance).collect();
        Self { capability, instances, finished: Arc::default(), turn: AtomicUsize::new(0) }
    }

    pub(super) fn capability(&self) -> Capability {
        self.capability
    }

    /// Whether the settings name an instance.
    pub(super) fn is_configured(&self) -> bool {
        !self.instances.is_empty()
    }

    pub(super) fn watch(&self, stop: &CancellationToken) {
        for instance in &self.instances {
            tokio::spawn(Arc::clone(instance).watch(stop.clone()));
        }
    }

    /// How many more jobs could be sent now.
    pub(super) fn free(&self) -> usize {
        let free: u64 = self.instances.iter().map(|instance| instance.free(Class::Job)).sum();
        usize::try_from(free).unwrap_or(usize::MAX)
    }

    pub(super) fn readiness(&self) -> Readiness {
        let views: Vec<_> = self.instances.iter().map(|i| (&i.name, i.view())).collect();
        let count = views.iter().filter(|(_, view)| view.ready).count();
        let mut detail = format!("{count} of {} instances take work", views.len());
        for (name, view) in views.iter().filter(|(_, view)| !view.ready) {
            detail.push_str(&format!("; {name}: {}", view.detail));
        }
        Readiness { capability: self.capability, ready: count > 0, detail }
    }

    /// Every model, each name once.
    pub(super) fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for instance in &self.instances {
            let view = instance.view();
            for info in view.described.iter().flat_map(|described| &described.models) {
                match models.iter_mut().find(|model| model.info.name == info.name) {
                    Some(model) => model.ready |= view.ready,
                    None => models.push(Model {
                        info: info.clone(),
                        capability: self.capability,
                        ready: view.ready,
                        since_s: view.ready_since_s,
                    }),
                }
            }
        }
        models
    }

    /// The model of that name, or the first one, that does `task`, if it takes work.
    ///
    /// # Errors
    /// `not_found`, naming the models there are; `unprocessable` when it does other things, or no
    /// loaded model does this; `unavailable` when whoever may host it does not take work.
    pub(super) fn resolve(
        &self,
        name: Option<&str>,
        task: Option<&str>,
    ) -> Result<v1::ModelInfo, ApiError> {
        self.configured()?;
        let mut models = self.models();
        let does =
            |model: &Model| task.is_none_or(|task| model.info.tasks.iter().any(|one| one == task));
        let called = |model: &Model| name.is_none_or(|name| model.info.name == name);
        let wanted = |model: &Model| called(model) && does(model);
        if let Some(at) = models.iter().position(|model| model.ready && wanted(model)) {
            return Ok(models.swap_remove(at).info);
        }
        let all_known = self.instances.iter().all(|instance| instance.view().described.is_some());
        if !all_known || models.iter().any(wanted) {
            return Err(self.not_ready());
        }
        let doing: Vec<_> = models.iter().filter(|model| does(model)).collect();
        match (name, task) {
            (Some(name), _) if !models.iter().any(called) => {
                let (name, there) = (shown(name), list(models.iter()));
                let message = format!("there is no model {name:?}; there is {there}");
                Err(ApiError::new(ErrorCode::NotFound, message).with_param("model"))
            }
            (Some(name), Some(task)) if !doing.is_empty() => {
                let (name, there) = (shown(name), list(doing.into_iter()));
                let message = format!("model {name:?} does not do {task}; what does is {there}");
                Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("model"))
            }
            (_, task) => {
                let (task, there) = (task.unwrap_or_default(), list(models.iter()));
                let mut message = format!("no loaded model does {task}; loaded is {there}");
                if let Some(models) = catalog::models_for(self.capability, task) {
                    message.push_str(&format!("; {models} would"));
                }
                Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("model"))
            }
        }
    }

    /// Whether some instance takes work.
    ///
    /// # Errors
    /// `unprocessable` when there is none; `unavailable` when none takes work.
    pub(super) fn ready(&self) -> Result<(), ApiError> {
        self.configured()?;
        let ready = self.instances.iter().any(|instance| instance.hosts(None));
        if ready { Ok(()) } else { Err(self.not_ready()) }
    }

    /// A permit for one call at the instance that suits it best: of those with room, the one that
    /// is likely to remember the input's beginning, unless it has clearly more to do than another;
    /// else the one with the least to do.
    ///
    /// # Errors
    /// `unavailable` when no instance takes work, `overloaded` when all are full.
    pub(super) fn acquire(&self, need: Need<'_>, class: Class) -> Result<Permit, ApiError> {
        self.configured()?;
        let mut ready: Vec<_> = self.instances.iter().filter(|i| i.hosts(need.model)).collect();
        if ready.is_empty() {
            return Err(self.not_ready());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % ready.len();
        ready.rotate_left(turn);
        ready.sort_by_key(|instance| instance.load());
        if let Some(prefix) = need.prefix {
            let least = ready.first().map_or(0, |instance| instance.load());
            let fits = |i: &&&Arc<Instance>| i.load() <= least + i.rows_max().div_ceil(2);
            let home = ready.iter().filter(fits).min_by_key(|i| prefix.distance(&i.name));
            if let Some(at) = home.and_then(|home| ready.iter().position(|i| Arc::ptr_eq(i, home)))
            {
                ready[..=at].rotate_right(1);
            }
        }
        ready.into_iter().find_map(|instance| instance.permit(class)).ok_or_else(|| {
            let what = need.model.map_or_else(
                || format!("the {} service", self.capability.as_str()),
                |name| format!("model {name}"),
            );
            let message = format!("{what} has as many calls as it takes; come again");
            ApiError::new(ErrorCode::Overloaded, message)
                .with_retry_after_ms(self.retry_after_ms(1))
        })
    }

    /// When `count` more calls will have ended, as the last minute went: milliseconds, at most a
    /// minute.
    pub(super) fn retry_after_ms(&self, count: u64) -> u64 {
        self.finished.ms_until(count, Instant::now())
    }

    /// What counts the ends of calls.
    pub(super) fn finished(&self) -> Arc<Rate> {
        Arc::clone(&self.finished)
    }

    pub(super) fn sampled(&self) -> impl Iterator<Item = SampledInstance> {
        self.instances.iter().map(|instance| instance.sampled())
    }

    fn configured(&self) -> Result<(), ApiError> {
        if self.is_configured() {
            return Ok(());
        }
        let name = self.capability.as_str();
        let message = format!(
            "this server does no {name} work: services.{name} of the orchestrator names no service"
        );
        Err(ApiError::new(ErrorCode::Unprocessable, message))
    }

    fn not_ready(&self) -> ApiError {
        let load_ms = |i: &Arc<Instance>| Some(i.view().described?.load_ms);
        let wait_ms = self.instances.iter().filter_map(load_ms).max().unwrap_or(LOAD_MS_UNKNOWN);
        let name = self.capability.as_str();
        let detail = self.readiness().detail;
        let message = format!("the {name} service does not take work now: {detail}");
        ApiError::new(ErrorCode::Unavailable, message)
            .with_retry_after_ms(wait_ms.clamp(1_000, 60_000))
    }
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Models with what they do, for a person.
fn list<'a>(models: impl Iterator<Item = &'a Model>) -> String {
    let one = |model: &Model| match model.info.tasks.as_slice() {
        [] => model.info.name.clone(),
        tasks => format!("{} ({})", model.info.name, tasks.join(", ")),
    };
    let all: Vec<_> = models.map(one).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
