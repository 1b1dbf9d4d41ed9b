//! From a capability to a healthy instance with room: the one file that knows both what a job asks
//! for and the gRPC client that does it.
//!
//! It must not know HTTP, keys or the job store.

mod generation;
mod instances;
mod rate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_protocol::v1::llm_client::LlmClient;
use aisemble_protocol::{ApiError, ErrorCode, limits, v1};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use generation::Generation;
pub(crate) use generation::reason_text;
pub use instances::Class;
use instances::{Instance, Permit};
use rate::Rate;

use crate::config::ServicesConfig;
use crate::metrics::{Metrics, Operation, SampledInstance};
use crate::trace::Trace;

/// The capability of language models.
pub const LLM: &str = "llm";
/// When to come again if no instance has ever said how long it loads.
const LOAD_MS_UNKNOWN: u64 = 5_000;
/// Instances that one call is tried on.
const TRIES_MAX: usize = 2;

/// All instances of all services.
#[derive(Debug)]
pub struct Dispatch {
    llm: Vec<Arc<Instance>>,
    metrics: Metrics,
    finished: Arc<Rate>,
    changed: watch::Sender<()>,
}

/// One generation to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked for; `model` may be empty.
    pub request: v1::GenerateRequest,
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
    /// The service that hosts it.
    pub capability: &'static str,
    /// Whether an instance that hosts it takes work.
    pub ready: bool,
    /// When the instance became ready, seconds since 1970.
    pub since_s: u64,
}

/// Whether a capability can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Which.
    pub capability: &'static str,
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
        let stems: Vec<String> = services
            .llm
            .iter()
            .map(|path| path.as_path().file_stem().unwrap_or_default().to_string_lossy().into())
            .collect();
        let instance = |(index, path)| {
            let stem: &String = &stems[index];
            let twice = stems.iter().filter(|other| *other == stem).count() > 1;
            let name = if twice { format!("{stem}-{index}") } else { stem.clone() };
            Arc::new(Instance::new(LLM, name, path, changed.clone()))
        };
        let llm = services.llm.iter().enumerate().map(instance).collect();
        Self { llm, metrics, finished: Arc::default(), changed }
    }

    /// Starts looking at the instances, until `stop`.
    pub fn watch(&self, stop: &CancellationToken) {
        for instance in &self.llm {
            tokio::spawn(Arc::clone(instance).watch(stop.clone()));
        }
    }

    /// Hears when an instance becomes ready or has room again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many more jobs of a capability could be sent now.
    #[must_use]
    pub fn free(&self, capability: &str) -> usize {
        let free: u64 = self.of(capability).iter().map(|instance| instance.free(Class::Job)).sum();
        usize::try_from(free).unwrap_or(usize::MAX)
    }

    /// Whether each capability can be used.
    #[must_use]
    pub fn readiness(&self) -> Vec<Readiness> {
        let views: Vec<_> = self.llm.iter().map(|i| (i.name.clone(), i.view())).collect();
        let count = views.iter().filter(|(_, view)| view.ready).count();
        let mut detail = format!("{count} of {} instances take work", views.len());
        for (name, view) in views.iter().filter(|(_, view)| !view.ready) {
            detail.push_str(&format!("; {name}: {}", view.detail));
        }
        vec![Readiness { capability: LLM, ready: count > 0, detail }]
    }

    /// Every model, each name once.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for instance in &self.llm {
            let view = instance.view();
            for info in view.described.iter().flat_map(|described| &described.models) {
                match models.iter_mut().find(|model| model.info.name == info.name) {
                    Some(model) => model.ready |= view.ready,
                    None => models.push(Model {
                        info: info.clone(),
                        capability: instance.service,
                        ready: view.ready,
                        since_s: view.ready_since_s,
                    }),
                }
            }
        }
        models
    }

    /// The language model of that name, or the first one, if it takes work.
    ///
    /// # Errors
    /// `not_found`, naming the models there are; `unavailable` when it, or whoever may host it,
    /// does not take work.
    pub fn resolve(&self, name: Option<&str>) -> Result<v1::ModelInfo, ApiError> {
        let mut models = self.models();
        let wanted = |model: &Model| name.is_none_or(|name| model.info.name == name);
        if let Some(at) = models.iter().position(|model| model.ready && wanted(model)) {
            return Ok(models.swap_remove(at).info);
        }
        let all_known = self.llm.iter().all(|instance| instance.view().described.is_some());
        match name {
            Some(name) if all_known && !models.iter().any(wanted) => {
                let names: Vec<_> = models.iter().map(|model| model.info.name.as_str()).collect();
                let shown: String = name.chars().take(100).collect();
                let message = format!("there is no model {shown:?}; there is {}", names.join(", "));
                Err(ApiError::new(ErrorCode::NotFound, message).with_param("model"))
            }
            _ => Err(self.not_ready()),
        }
    }

    /// When `count` more generations will have ended, as the last minute went: milliseconds, at
    /// most a minute.
    #[must_use]
    pub fn retry_after_ms(&self, count: u64) -> u64 {
        self.finished.ms_until(count, Instant::now())
    }

    /// Sends a generation to the instance with the least to do. When that one turns out to be gone,
    /// another is tried.
    ///
    /// # Errors
    /// `unavailable` when no instance takes work, `overloaded` when all are full, `timeout`, or
    /// what the service says.
    pub async fn generate(&self, mut call: Call) -> Result<Generation, ApiError> {
        let name = Some(call.request.model.as_str()).filter(|name| !name.is_empty());
        call.request.model = self.resolve(name)?.name;
        let mut tries = 0;
        loop {
            tries += 1;
            let permit = self.acquire(&call.request.model, call.class)?;
            match self.send(&call, permit).await {
                Err(error) if error.code == ErrorCode::Unavailable && tries < TRIES_MAX => {}
                sent => return sent,
            }
        }
    }

    /// What is known of every instance, for the metrics page.
    #[must_use]
    pub fn sampled(&self) -> Vec<SampledInstance> {
        self.llm.iter().map(|instance| instance.sampled()).collect()
    }

    fn of(&self, capability: &str) -> &[Arc<Instance>] {
        if capability == LLM { &self.llm } else { &[] }
    }

    fn acquire(&self, model: &str, class: Class) -> Result<Permit, ApiError> {
        let hosts = |instance: &&Arc<Instance>| {
            let view = instance.view();
            let described = view.described.as_ref().filter(|_| view.ready);
            described.is_some_and(|described| described.models.iter().any(|m| m.name == model))
        };
        let mut ready: Vec<_> = self.llm.iter().filter(hosts).collect();
        if ready.is_empty() {
            return Err(self.not_ready());
        }
        ready.sort_by_key(|instance| instance.load());
        ready.into_iter().find_map(|instance| instance.permit(class)).ok_or_else(|| {
            let message = format!("model {model} has as many calls as it takes; come again");
            ApiError::new(ErrorCode::Overloaded, message)
                .with_retry_after_ms(self.retry_after_ms(1))
        })
    }

    async fn send(&self, call: &Call, permit: Permit) -> Result<Generation, ApiError> {
        let left = call.deadline.saturating_duration_since(Instant::now());
        let mut request = tonic::Request::new(call.request.clone());
        request.set_timeout(left);
        if let Ok(value) = call.trace.to_string().parse() {
            request.metadata_mut().insert("traceparent", value);
        }
        let operation = match call.request.input {
            Some(v1::generate_request::Input::Chat(_)) => Operation::Chat,
            Some(v1::generate_request::Input::Prompt(_)) | None => Operation::TextCompletion,
        };
        let mut meter = self.metrics.generation(operation, &call.request.model);
        let mut client = LlmClient::new(permit.instance.channel.clone())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        let sent = tokio::time::timeout(left, client.generate(request)).await;
        let failed = match sent {
            Ok(Ok(answer)) => {
                let finished = Arc::clone(&self.finished);
                let stream = answer.into_inner();
                return Ok(Generation::new(stream, permit, meter, call.deadline, finished));
            }
            Ok(Err(status)) => generation::failure(status, &permit.instance),
            Err(_) => generation::timed_out(),
        };
        meter.failed(failed.code);
        Err(failed)
    }

    fn not_ready(&self) -> ApiError {
        let load_ms = |i: &Arc<Instance>| Some(i.view().described?.load_ms);
        let wait_ms = self.llm.iter().filter_map(load_ms).max().unwrap_or(LOAD_MS_UNKNOWN);
        let details: Vec<_> = self.readiness().into_iter().map(|ready| ready.detail).collect();
        let message = format!("the llm service does not take work now: {}", details.join("; "));
        ApiError::new(ErrorCode::Unavailable, message)
            .with_retry_after_ms(wait_ms.clamp(1_000, 60_000))
    }
}

/// The deadline that is `left` from now.
#[must_use]
pub fn deadline_in(left: Duration) -> Instant {
    Instant::now() + left
}
