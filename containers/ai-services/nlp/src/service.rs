//! The service as the skeleton runs it: from the configuration to models that are loaded, warmed up
//! and served by their thread; what it says of itself.

use std::sync::Arc;

use aisemble_batcher::{Batcher, BatcherConfig};
use aisemble_protocol::v1;
use aisemble_service::{LoadProgress, Paths, Ready, Service, StartError};
use aisemble_weights::kernels::Pool;
use tonic::service::RoutesBuilder;

use crate::config::NlpConfig;
use crate::grpc::NlpApi;
use crate::host::Host;
use crate::model::{LoadedModel, ModelError};
use crate::serving::{Meters, ServingModel};
use crate::warmup;

/// Passes of a model's warm-up.
const WARM_UP_PASSES: u64 = 3;

/// One instance: a fixed set of models.
#[derive(Debug)]
pub struct NlpService {
    host: Arc<Host>,
}

impl NlpService {
    /// The models as handlers see them.
    #[must_use]
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }

    /// Loads the models of a configuration and proves that they compute.
    ///
    /// # Errors
    /// As [`Service::load`].
    pub fn models(
        config: &NlpConfig,
        progress: &LoadProgress,
    ) -> Result<Vec<LoadedModel>, StartError> {
        let threads = Some(config.engine.threads).filter(|threads| *threads > 0);
        let pool = Pool::new(threads).map_err(|source| {
            StartError::failed("the computing threads cannot be made").with_source(source)
        })?;
        tracing::info!(threads = pool.threads(), cpu.isa = pool.cpu().isa().name(), "computing");
        let pool = Arc::new(pool);
        let mut models = Vec::with_capacity(config.model.len());
        for section in &config.model {
            let model = LoadedModel::load(section, &config.engine, &models, &pool, progress)
                .map_err(|source| unusable(&section.name, source))?;
            progress.report("warm-up", 0, WARM_UP_PASSES);
            warmup::check(&model).map_err(|source| {
                StartError::failed(format!("{} computes nonsense on this machine", section.name))
                    .with_source(source)
            })?;
            progress.report("warm-up", WARM_UP_PASSES, WARM_UP_PASSES);
            tracing::info!(
                model.name = model.name,
                model.sha256 = model.sha256,
                model.tasks = model.info.tasks.join(","),
                model.parameters = model.info.parameters,
                "the model is loaded"
            );
            models.push(model);
        }
        Ok(models)
    }
}

impl Service for NlpService {
    const NAME: &'static str = "nlp";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = NlpConfig;

    fn paths(config: &NlpConfig) -> Paths {
        let read = config.model.iter().map(|model| model.path.clone()).collect();
        Paths { read, ..Paths::default() }
    }

    fn load(config: &NlpConfig, progress: &LoadProgress) -> Result<Self, StartError> {
        let models = Arc::new(Self::models(config, progress)?);
        let meters = Arc::new(Meters::default());
        let (models_of_thread, meters_of_thread) = (Arc::clone(&models), Arc::clone(&meters));
        let budget = config.engine.batch_tokens_max;
        let build = move || {
            let (models, meters) = (Arc::clone(&models_of_thread), Arc::clone(&meters_of_thread));
            Ok(ServingModel::new(models, budget, meters))
        };
        let batcher = BatcherConfig {
            thread_name: "nlp-model".to_owned(),
            queue_depth_max: config.engine.queue_depth_max,
            running_max: config.engine.running_max,
            ..BatcherConfig::default()
        };
        let batcher = Batcher::start(batcher, build).map_err(|source| {
            StartError::failed("the model thread cannot be started").with_source(source)
        })?;
        let (engine, encodings) = (config.engine.clone(), Host::encodings());
        Ok(Self { host: Arc::new(Host { models, engine, batcher, meters, encodings }) })
    }

    fn routes(ready: Ready<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(NlpApi::server(ready));
    }

    fn describe(&self) -> v1::DescribeResponse {
        let mut models: Vec<v1::ModelInfo> =
            self.host.models.iter().map(|model| model.info.clone()).collect();
        // Rules need no model; what needs one says so.
        if let Some(first) = models.first_mut() {
            first.tasks.push("redact".to_owned());
        }
        v1::DescribeResponse { models, ..v1::DescribeResponse::default() }
    }

    fn stats(&self) -> v1::StatsResponse {
        let (batcher, meters) = (self.host.batcher.stats(), self.host.meters.now());
        v1::StatsResponse {
            requests_running: batcher.running as u32,
            requests_queued: batcher.waiting.iter().sum::<usize>() as u32,
            queue_depth_max: self.host.engine.queue_depth_max as u32,
            requests_total: batcher.submitted_total,
            requests_cancelled_total: batcher.unfinished_total,
            steps_total: batcher.steps_total,
            step_rows_total: meters.windows,
            prompt_tokens_total: meters.tokens,
            ..v1::StatsResponse::default()
        }
    }

    fn drain(&self) -> impl Future<Output = ()> + Send {
        self.host.batcher.drain()
    }
}

fn unusable(name: &str, source: ModelError) -> StartError {
    StartError::config(format!("the model {name} cannot be used"))
        .with_source(source)
        .with_hint("`ai-semble models pull` gets it, `ai-semble models verify` checks it")
}
