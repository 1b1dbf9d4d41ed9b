//! From a capability to a healthy instance with room: the one part that knows both what a job asks
//! for and the gRPC client that does it.
//!
//! It must not know HTTP, keys or the job store.

mod affinity;
mod catalog;
mod clients;
mod flow;
mod generation;
mod instances;
mod nlp;
mod pool;
mod rate;
mod tokens;

use std::time::{Duration, Instant};

use aisemble_protocol::{ApiError, ErrorCode, v1};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use affinity::Prefix;
pub use flow::Flow;
pub use generation::Generation;
pub(crate) use generation::reason_text;
pub use instances::Class;
use instances::Permit;
use pool::{Need, Pool};

use crate::capability::Capability;
use crate::config::ServicesConfig;
use crate::metrics::{Metrics, Operation, SampledInstance};
use crate::trace::Trace;

/// Instances that one call is tried on.
const TRIES_MAX: usize = 2;

/// All instances of all services.
#[derive(Debug)]
pub struct Dispatch {
    /// One for each capability, in the order of [`Capability::ALL`].
    pools: Vec<Pool>,
    metrics: Metrics,
    changed: watch::Sender<()>,
}

/// One call to make.
#[derive(Debug, Clone)]
pub struct Call<R> {
    /// What is asked for; its `model` may be empty.
    pub request: R,
    /// Who wants it.
    pub class: Class,
    /// The span that it belongs to.
    pub trace: Trace,
    /// It is given up then.
    pub deadline: Instant,
}

/// A model that some instance hosts or hosted.
#[derive(Debug, Clone)]
pub struct Model {
    /// What its instance said of it.
    pub info: v1::ModelInfo,
    /// What the service that hosts it is there for.
    pub capability: Capability,
    /// Whether an instance that hosts it takes work.
    pub ready: bool,
    /// When the instance became ready, seconds since 1970.
    pub since_s: u64,
}

/// Whether a capability can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Which.
    pub capability: Capability,
    /// At least one instance takes work.
    pub ready: bool,
    /// For a person: how many do, and why not all.
    pub detail: String,
}

impl Dispatch {
    /// Channels to the services; nothing is connected yet. To be called within a runtime.
    #[must_use]
    pub fn new(services: &ServicesConfig, metrics: Metrics) -> Self {
        let changed = watch::Sender::new(());
        let pool = |capability| Pool::new(capability, services.of(capability), &changed);
        let pools = Capability::ALL.into_iter().map(pool).collect();
        Self { pools, metrics, changed }
    }

    /// Starts looking at the instances, until `stop`.
    pub fn watch(&self, stop: &CancellationToken) {
        for pool in &self.pools {
            pool.watch(stop);
        }
    }

    /// Hears when an instance becomes ready or has room again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The capabilities that the settings name a service for.
    #[must_use]
    pub fn configured(&self) -> Vec<Capability> {
        let configured = self.pools.iter().filter(|pool| pool.is_configured());
        configured.map(Pool::capability).collect()
    }

    /// How many more jobs of a capability could be sent now.
    #[must_use]
    pub fn free(&self, capability: Capability) -> usize {
        self.of(capability).map_or(0, Pool::free)
    }

    /// Whether each configured capability can be used.
    #[must_use]
    pub fn readiness(&self) -> Vec<Readiness> {
        let configured = self.pools.iter().filter(|pool| pool.is_configured());
        configured.map(Pool::readiness).collect()
    }

    /// Every model of every service, each name once a capability.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        self.pools.iter().flat_map(Pool::models).collect()
    }

    /// The capability's model of that name, or its first one, that does `task`, if it takes work.
    ///
    /// # Errors
    /// `not_found`, naming the models there are; `unprocessable` when the capability has no
    /// service, or the model or none of them does the task; `unavailable` when it, or whoever may
    /// host it, does not take work.
    pub fn resolve(
        &self,
        capability: Capability,
        name: Option<&str>,
        task: Option<&str>,
    ) -> Result<v1::ModelInfo, ApiError> {
        self.pool(capability)?.resolve(name, task)
    }

    /// Whether the capability has a service that takes work.
    ///
    /// # Errors
    /// `unprocessable` when it has no service; `unavailable` when none takes work.
    pub fn ready(&self, capability: Capability) -> Result<(), ApiError> {
        self.pool(capability)?.ready()
    }

    /// When `count` more calls of the capability will have ended, as the last minute went:
    /// milliseconds, at most a minute.
    #[must_use]
    pub fn retry_after_ms(&self, capability: Capability, count: u64) -> u64 {
        self.of(capability).map_or(0, |pool| pool.retry_after_ms(count))
    }

    /// Sends a generation to the instance that suits it best. When that one turns out to be gone,
    /// another is tried.
    ///
    /// # Errors
    /// `unavailable` when no instance takes work, `overloaded` when all are full, `timeout`, or
    /// what the service says.
    pub async fn generate(
        &self,
        mut call: Call<v1::GenerateRequest>,
    ) -> Result<Generation, ApiError> {
        let pool = self.pool(Capability::Llm)?;
        let name = Some(call.request.model.as_str()).filter(|name| !name.is_empty());
        call.request.model = pool.resolve(name, None)?.name;
        let prefix = Prefix::of(&call.request);
        let mut tries = 0;
        loop {
            tries += 1;
            let need = Need { model: Some(&call.request.model), prefix };
            let permit = pool.acquire(need, call.class)?;
            match self.send_generate(pool, &call, permit).await {
                Err(error) if error.code == ErrorCode::Unavailable && tries < TRIES_MAX => {}
                sent => return sent,
            }
        }
    }

    /// What is known of every instance, for the metrics page.
    #[must_use]
    pub fn sampled(&self) -> Vec<SampledInstance> {
        self.pools.iter().flat_map(Pool::sampled).collect()
    }

    fn of(&self, capability: Capability) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.capability() == capability)
    }

    fn pool(&self, capability: Capability) -> Result<&Pool, ApiError> {
        let absent = || ApiError::new(ErrorCode::Internal, "the capability has no instances");
        self.of(capability).ok_or_else(absent)
    }

    async fn send_generate(
        &self,
        pool: &Pool,
        call: &Call<v1::GenerateRequest>,
        permit: Permit,
    ) -> Result<Generation, ApiError> {
        let (request, left) = call.to_grpc();
        let operation = match call.request.input {
            Some(v1::generate_request::Input::Chat(_)) => Operation::Chat,
            Some(v1::generate_request::Input::Prompt(_)) | None => Operation::TextCompletion,
        };
        let mut meter = self.metrics.generation(operation, &call.request.model);
        let mut client = clients::llm(permit.instance.channel.clone());
        let sent = tokio::time::timeout(left, client.generate(request)).await;
        let failed = match sent {
            Ok(Ok(answer)) => {
                let stream = answer.into_inner();
                return Ok(Generation::new(stream, permit, meter, call.deadline, pool.finished()));
            }
            Ok(Err(status)) => generation::failure(status, &permit.instance),
            Err(_) => generation::timed_out(),
        };
        meter.failed(failed.code);
        Err(failed)
    }
}

impl<R: Clone> Call<R> {
    /// The call as it goes out, and what is left of its time.
    fn to_grpc(&self) -> (tonic::Request<R>, Duration) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let mut request = tonic::Request::new(self.request.clone());
        request.set_timeout(left);
        if let Ok(value) = self.trace.to_string().parse() {
            request.metadata_mut().insert("traceparent", value);
        }
        (request, left)
    }
}

/// The deadline that is `left` from now.
#[must_use]
pub fn deadline_in(left: Duration) -> Instant {
    Instant::now() + left
}
