//! One instance of a service: its channel, what is known of it, and the task that looks at it every
//! two seconds, so that no request ever waits for a health check.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aisemble_protocol::v1;
use aisemble_protocol::v1::model_client::ModelClient;
use aisemble_service::config::SocketPath;
use aisemble_service::socket;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::capability::Capability;
use crate::metrics::SampledInstance;

/// How often an instance that is ready is looked at.
const LOOK_READY: Duration = Duration::from_secs(2);
/// How often one that is not.
const LOOK_NOT_READY: Duration = Duration::from_millis(250);
/// How long an answer may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Who wants to send a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A job: it waits in the store, so an instance gets only what fits into its batch.
    Job,
    /// Somebody waits: it may also wait in the instance's queue.
    Interactive,
}

/// One instance.
#[derive(Debug)]
pub(super) struct Instance {
    capability: Capability,
    pub(super) name: String,
    pub(super) channel: Channel,
    view: Mutex<View>,
    calls: AtomicU64,
    job_calls: AtomicU64,
    look_now: Notify,
    changed: watch::Sender<()>,
}

/// What is known of an instance.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// It takes work.
    pub(super) ready: bool,
    /// In a few words.
    pub(super) detail: String,
    /// Who it is; kept when it goes away, so that its models are still known.
    pub(super) described: Option<Arc<v1::DescribeResponse>>,
    /// When it became ready, seconds since 1970.
    pub(super) ready_since_s: u64,
    stats: Option<(v1::StatsResponse, Instant)>,
    batch_size: Option<f64>,
}

impl Instance {
    /// To be called within a runtime. `changed` hears when it becomes ready or has room again.
    pub(super) fn new(
        capability: Capability,
        name: String,
        path: &SocketPath,
        changed: watch::Sender<()>,
    ) -> Self {
        let detail = "not looked at yet".to_owned();
        Self {
            capability,
            name,
            channel: socket::channel(path.as_path()),
            view: Mutex::new(View { detail, ..View::default() }),
            calls: AtomicU64::new(0),
            job_calls: AtomicU64::new(0),
            look_now: Notify::new(),
            changed,
        }
    }

    pub(super) fn view(&self) -> View {
        self.lock().clone()
    }

    /// Calls under way.
    pub(super) fn load(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether it takes work, of `model` if one is named.
    pub(super) fn hosts(&self, model: Option<&str>) -> bool {
        let view = self.lock();
        let described = view.described.as_ref().filter(|_| view.ready);
        described.is_some_and(|described| {
            model.is_none_or(|name| described.models.iter().any(|model| model.name == name))
        })
    }

    /// Calls that it works on at the same time; what is more waits in its queue.
    pub(super) fn rows_max(&self) -> u64 {
        self.lock().room().0
    }

    /// How many more calls of `class` it takes now.
    pub(super) fn free(&self, class: Class) -> u64 {
        let view = self.lock();
        let (ready, (rows, queue)) = (view.ready, view.room());
        drop(view);
        if !ready {
            return 0;
        }
        let room = (rows + queue).saturating_sub(self.load());
        match class {
            Class::Interactive => room,
            Class::Job => {
                let jobs = self.job_calls.load(Ordering::Relaxed);
                rows.saturating_sub(jobs).min(room)
            }
        }
    }

    /// Takes a permit for one call; none when it is full. Two callers that race may both get the
    /// last one: the service's own queue has the final word.
    pub(super) fn permit(self: &Arc<Self>, class: Class) -> Option<Permit> {
        if self.free(class) == 0 {
            return None;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        if class == Class::Job {
            self.job_calls.fetch_add(1, Ordering::Relaxed);
        }
        Some(Permit { instance: Arc::clone(self), class })
    }

    /// A call found it gone: it takes no work until it has been looked at again.
    pub(super) fn lost(&self) {
        let mut view = self.lock();
        if view.ready {
            tracing::warn!(service.instance = self.name, "the service went away");
        }
        view.ready = false;
        "it went away".clone_into(&mut view.detail);
        drop(view);
        self.look_now.notify_one();
    }

    /// Looks at it until `stop`.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let seen = self.look().await;
            let pause = if seen { LOOK_READY } else { LOOK_NOT_READY };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.asked_to_look() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Resolves shortly after a call found it gone: it may take some time to come back.
    async fn asked_to_look(&self) {
        self.look_now.notified().await;
        tokio::time::sleep(LOOK_NOT_READY).await;
    }

    /// Health, description, figures. Gives whether it is ready.
    async fn look(&self) -> bool {
        let looked = tokio::time::timeout(LOOK_TIMEOUT, async {
            self.check_health().await?;
            let mut client = ModelClient::new(self.channel.clone());
            let described = match self.described_if_ready() {
                Some(described) => described,
                None => {
                    let answer = client.describe(v1::DescribeRequest {}).await;
                    Arc::new(answer.map_err(|_| "it does not describe itself")?.into_inner())
                }
            };
            let stats = client.stats(v1::StatsRequest {}).await;
            Ok((described, stats.ok().map(tonic::Response::into_inner)))
        });
        let looked = looked.await.unwrap_or(Err("it does not answer in time"));
        self.note(looked)
    }

    async fn check_health(&self) -> Result<(), &'static str> {
        let mut client = HealthClient::new(self.channel.clone());
        let answer = client.check(HealthCheckRequest { service: String::new() }).await;
        let status = answer.map_err(|_| "it is not there")?.into_inner().status();
        match status {
            ServingStatus::Serving => Ok(()),
            ServingStatus::NotServing => Err("its model is loading, or it is stopping"),
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
                Err("it does not know its own health")
            }
        }
    }

    fn described_if_ready(&self) -> Option<Arc<v1::DescribeResponse>> {
        let view = self.lock();
        view.described.clone().filter(|_| view.ready)
    }

    fn note(
        &self,
        looked: Result<(Arc<v1::DescribeResponse>, Option<v1::StatsResponse>), &'static str>,
    ) -> bool {
        let mut view = self.lock();
        let was_ready = view.ready;
        match looked {
            Ok((described, stats)) => {
                if !was_ready {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    view.ready_since_s = now.as_secs();
                }
                view.ready = true;
                "ready".clone_into(&mut view.detail);
                view.described = Some(described);
                if let Some(stats) = stats {
                    view.note_stats(stats);
                }
            }
            Err(detail) => {
                view.ready = false;
                detail.clone_into(&mut view.detail);
            }
        }
        let (ready, detail) = (view.ready, view.detail.clone());
        drop(view);
        if ready != was_ready {
            tracing::info!(
                service.instance = self.name,
                service.ready = ready,
                "service: {detail}"
            );
        }
        if ready && !was_ready {
            self.changed.send_replace(());
        }
        ready
    }

    pub(super) fn sampled(&self) -> SampledInstance {
        let view = self.view();
        SampledInstance {
            service: self.capability.as_str(),
            name: self.name.clone(),
            ready: view.ready,
            calls_in_flight: self.load(),
            described: view.described.as_deref().cloned(),
            stats: view.stats.map(|(stats, at)| (stats, at.elapsed().as_secs_f64())),
            batch_size: view.batch_size,
        }
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        // Plain data: no holder can leave it half-written.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Calls that it works on, and calls that it queues. A service's models share them.
    fn room(&self) -> (u64, u64) {
        let limits = self.described.as_ref().and_then(|described| described.models.first()?.limits);
        limits.map_or((0, 0), |limits| {
            (limits.batch_rows_max.max(1).into(), limits.queue_depth_max.into())
        })
    }

    fn note_stats(&mut self, stats: v1::StatsResponse) {
        if let Some((before, _)) = &self.stats {
            // A restarted service counts from zero again.
            let steps = stats.steps_total.checked_sub(before.steps_total);
            let rows = stats.step_rows_total.checked_sub(before.step_rows_total);
            if let (Some(steps @ 1..), Some(rows)) = (steps, rows) {
                #[expect(clippy::cast_precision_loss, reason = "counts of two seconds")]
                let mean = rows as f64 / steps as f64;
                self.batch_size = Some(mean);
            }
        }
        self.stats = Some((stats, Instant::now()));
    }
}

/// The right to have one call under way at an instance. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit {
    pub(super) instance: Arc<Instance>,
    class: Class,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.instance.calls.fetch_sub(1, Ordering::Relaxed);
        if self.class == Class::Job {
            self.instance.job_calls.fetch_sub(1, Ordering::Relaxed);
        }
        self.instance.changed.send_replace(());
    }
}
