//! The service as the skeleton runs it: from the configuration to models that are loaded, warmed up
//! and served by their thread; what it says of itself.

use std::sync::Arc;

use aisemble_batcher::{Batcher, BatcherConfig};
use aisemble_protocol::v1;
use aisemble_service::{LoadProgress, Paths, Ready, Service, StartError};
use aisemble_weights::kernels::Pool;
use tonic::service::RoutesBuilder;

use crate::catalog::{Catalog, Model};
use crate::config::VisionConfig;
use crate::grpc::VisionApi;
use crate::host::{Host, IMAGES_AT_ONCE};
use crate::serving::{Meters, ServingModel, StepLimits};
use crate::warmup;

/// One instance: a fixed set of models.
#[derive(Debug)]
pub struct VisionService {
    host: Arc<Host>,
}

impl VisionService {
    /// The models as handlers see them.
    #[must_use]
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }
}

impl Service for VisionService {
    const NAME: &'static str = "vision";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = VisionConfig;

    fn paths(config: &VisionConfig) -> Paths {
        let read = config.model.iter().map(|model| model.path.clone()).collect();
        Paths { read, ..Paths::default() }
    }

    fn load(config: &VisionConfig, progress: &LoadProgress) -> Result<Self, StartError> {
        let threads = Some(config.engine.threads).filter(|threads| *threads > 0);
        let pool = Pool::new(threads).map(Arc::new).map_err(|source| {
            StartError::failed("the computing threads cannot be made").with_source(source)
        })?;
        start_candle(config, pool.threads())?;
        let catalog = load_models(config, progress)?;
        let total = catalog.models().len() as u64;
        for (done, model) in catalog.models().iter().enumerate() {
            warmup::check(model, &pool).map_err(|source| {
                let message = format!("the model {} computes nonsense on this machine", model.name);
                StartError::failed(message).with_source(source)
            })?;
            progress.report("warm-up", done as u64 + 1, total);
        }
        let engine = &config.engine;
        let limits = StepLimits {
            rows_max: engine.batch_rows_max,
            pixels_max: engine.batch_pixels_max,
            caption_tokens_max: engine.caption_tokens_max,
        };
        let meters = Arc::new(Meters::default());
        let build = {
            let (catalog, meters) = (catalog.clone(), Arc::clone(&meters));
            move || {
                let (catalog, pool) = (catalog.clone(), Arc::clone(&pool));
                Ok(ServingModel::new(catalog, pool, limits, Arc::clone(&meters)))
            }
        };
        let batcher = Batcher::start(batcher_config(config), build).map_err(|source| {
            StartError::failed("the model thread cannot be started").with_source(source)
        })?;
        Ok(Self { host: Arc::new(Host::new(config, catalog, batcher, meters)) })
    }

    fn routes(ready: Ready<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(VisionApi::server(ready));
    }

    fn describe(&self) -> v1::DescribeResponse {
        v1::DescribeResponse { models: self.host.info.clone(), ..v1::DescribeResponse::default() }
    }

    fn stats(&self) -> v1::StatsResponse {
        let batcher = self.host.batcher.stats();
        let inside = self.host.requests_inside();
        let running = batcher.running.min(inside);
        v1::StatsResponse {
            requests_running: running as u32,
            requests_queued: (inside - running) as u32,
            queue_depth_max: self.host.requests_max() as u32,
            requests_total: batcher.submitted_total,
            requests_cancelled_total: batcher.unfinished_total,
            steps_total: batcher.steps_total,
            step_rows_total: self.host.meters.rows(),
            ..v1::StatsResponse::default()
        }
    }

    fn drain(&self) -> impl Future<Output = ()> + Send {
        let host = self.host();
        async move {
            let all = u32::try_from(host.requests_max()).unwrap_or(u32::MAX);
            // Every request's place is free when none is left; the semaphore is never closed.
            let _all_left = host.requests.acquire_many(all).await;
            host.batcher.drain().await;
        }
    }
}

/// Networks of a hub are computed on rayon's threads, which are there before the second filter and
/// as many as ours.
fn start_candle(config: &VisionConfig, threads: usize) -> Result<(), StartError> {
    if config.model.iter().all(|model| model.architecture.family().is_none()) {
        return Ok(());
    }
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    built.map_err(|source| {
        StartError::failed("the computing threads cannot be made").with_source(source)
    })
}

fn load_models(config: &VisionConfig, progress: &LoadProgress) -> Result<Catalog, StartError> {
    let mut models = Vec::with_capacity(config.model.len());
    for section in &config.model {
        let model = Model::load(section, progress).map_err(|source| {
            let path = section.path.display();
            StartError::config(format!("the model {} in {path} is not usable", section.name))
                .with_source(source)
                .with_hint("`ai-semble models pull` gets it, `ai-semble models verify` checks it")
        })?;
        tracing::info!(
            model.name = model.name,
            model.sha256 = model.sha256,
            model.architecture = model.architecture.as_str(),
            model.parameters = model.network.parameters(),
            "the model is loaded"
        );
        models.push(model);
    }
    Ok(Catalog::new(models))
}

/// Requests are limited at the door of the host; what gets here always has a place.
fn batcher_config(config: &VisionConfig) -> BatcherConfig {
    let jobs = config.engine.requests_max * IMAGES_AT_ONCE;
    BatcherConfig {
        thread_name: "vision-model".to_owned(),
        queue_depth_max: jobs,
        running_max: jobs,
        ..BatcherConfig::default()
    }
}
