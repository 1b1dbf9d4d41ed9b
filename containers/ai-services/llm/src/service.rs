//! The service as the skeleton runs it: from the configuration to a model that is loaded, warmed up
//! and served by its thread; what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use aisemble_batcher::{Batcher, BatcherConfig};
use aisemble_protocol::v1;
use aisemble_service::{LoadProgress, Paths, Ready, Service, StartError};
use aisemble_weights::ModelSource;
use aisemble_weights::kernels::Pool;
use tonic::service::RoutesBuilder;

use crate::config::{EngineSection, KvType, LlmConfig, PrefixCache};
use crate::device::{MemoryPlan, Place};
use crate::engine::{PrefixSharing, SchedulerLimits};
use crate::files::{self, OpenModel, unusable};
use crate::grpc::LlmApi;
use crate::host::{Host, RequestLimits};
use crate::model::{self, BLOCK_TOKENS, CacheKind, Decoder};
use crate::serving::{EngineLimits, Meters, ServingModel};
use crate::text::PromptEncoder;
use crate::warmup;

/// One instance: one model.
#[derive(Debug)]
pub struct LlmService {
    host: Arc<Host>,
    place: Place,
}

impl LlmService {
    /// The model as handlers see it.
    #[must_use]
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }
}

impl Service for LlmService {
    const NAME: &'static str = "llm";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = LlmConfig;

    fn paths(config: &LlmConfig) -> Paths {
        Paths { read: vec![config.model.path.clone()], ..Paths::default() }
    }

    fn load(config: &LlmConfig, progress: &LoadProgress) -> Result<Self, StartError> {
        let OpenModel { source, sha256 } = files::open(&config.model, progress)?;
        let source = source.as_ref();
        let tokenizer = source
            .tokenizer()
            .map_err(|source| unusable(&config.model.path, source))
            .map(Arc::new)?;
        let encoder = PromptEncoder::new(Arc::clone(&tokenizer))
            .map_err(|source| unusable(&config.model.path, source))?;
        let place = Place::choose(&config.engine)?;
        let plan = memory_plan(source, config, &place)?;
        place.admit(&plan)?;
        let decoder = decoder(source, config, &place, progress)?;
        let limits = request_limits(&config.engine, &decoder);
        let cache = match config.engine.kv_type {
            KvType::F16 => CacheKind::F16,
            KvType::F32 => CacheKind::F32,
        };
        let report = |done, total| progress.report("warm-up", done, total);
        let exact = place.device().is_cpu();
        warmup::check(&decoder, &sha256, (cache, exact), report).map_err(|source| {
            StartError::failed("the model computes nonsense on this machine").with_source(source)
        })?;
        let mut info = info(source, config, &decoder, &limits);
        info.sha256 = sha256;
        place.name().clone_into(&mut info.device);
        place.note().clone_into(&mut info.device_note);
        info.memory = Some(place.described(&plan));
        if encoder.has_template() {
            info.tasks.push("chat".to_owned());
        }
        tracing::info!(
            model.name = info.name,
            model.sha256 = info.sha256,
            model.quantization = info.quantization,
            model.parameters = info.parameters,
            kv.tokens_max = limits.scheduler.blocks * BLOCK_TOKENS,
            kv.bytes_max = decoder.cache_bytes(limits.scheduler.blocks, cache),
            "the model is loaded"
        );
        let (tokenizer_of_model, meters) = (Arc::clone(&tokenizer), Arc::new(Meters::default()));
        let engine = EngineLimits {
            scheduler: limits.scheduler,
            cache,
            reader_wait_max: limits.reader_wait_max,
        };
        let meters_of_model = Arc::clone(&meters);
        let build = move || {
            let (decoder, tokenizer) = (Arc::clone(&decoder), Arc::clone(&tokenizer_of_model));
            Ok(ServingModel::new(decoder, tokenizer, engine, Arc::clone(&meters_of_model))?)
        };
        let batcher = Batcher::start(batcher_config(&config.engine), build).map_err(|source| {
            StartError::failed("the model thread cannot be started").with_source(source)
        })?;
        let encoder = Arc::new(encoder);
        let encodings = Host::encodings();
        let constraints = Host::constraints(&tokenizer, &encoder);
        let host =
            Host { info, limits, tokenizer, encoder, constraints, batcher, meters, encodings };
        Ok(Self { host: Arc::new(host), place })
    }

    fn routes(ready: Ready<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(LlmApi::server(ready));
    }

    fn describe(&self) -> v1::DescribeResponse {
        v1::DescribeResponse {
            models: vec![self.host.info.clone()],
            ..v1::DescribeResponse::default()
        }
    }

    fn stats(&self) -> v1::StatsResponse {
        let (batcher, meters) = (self.host.batcher.stats(), self.host.meters.now());
        let (limits, scheduler) = (self.host.limits.scheduler, meters.scheduler);
        // The batcher lets all of them into the model, where some wait for their turn.
        let waiting = scheduler.waiting.min(batcher.running);
        v1::StatsResponse {
            requests_running: (batcher.running - waiting) as u32,
            requests_queued: (waiting + batcher.waiting.iter().sum::<usize>()) as u32,
            queue_depth_max: self.host.info.limits.map_or(0, |limits| limits.queue_depth_max),
            requests_total: batcher.submitted_total,
            requests_cancelled_total: batcher.unfinished_total,
            steps_total: batcher.steps_total,
            step_rows_total: meters.rows,
            prompt_tokens_total: meters.prompt_tokens,
            prompt_tokens_cached_total: meters.prompt_tokens_cached,
            output_tokens_total: meters.output_tokens,
            kv_tokens_used: scheduler.kv_tokens_used as u64,
            kv_tokens_max: (limits.blocks * limits.block_tokens) as u64,
            kv_tokens_cached: scheduler.kv_tokens_kept as u64,
            kv_evictions_total: scheduler.evictions,
            preemptions_total: scheduler.preemptions,
            draft_tokens_total: scheduler.drafted,
            draft_tokens_accepted_total: scheduler.accepted,
            gpus: self.place.gpus(),
            ..v1::StatsResponse::default()
        }
    }

    fn drain(&self) -> impl Future<Output = ()> + Send {
        self.host.batcher.drain()
    }
}

fn decoder(
    source: &dyn ModelSource,
    config: &LlmConfig,
    place: &Place,
    progress: &LoadProgress,
) -> Result<Arc<Decoder>, StartError> {
    let engine = &config.engine;
    let device = place.device();
    let threads = Some(engine.threads).filter(|threads| *threads > 0);
    let pool = Pool::new(threads).map_err(|source| {
        StartError::failed("the computing threads cannot be made").with_source(source)
    })?;
    let threads = pool.threads();
    let report = |done, total| progress.report("weights", done, total);
    let decoder = Decoder::load(source, engine.context_tokens_max, Arc::new(pool), device, report)
        .map_err(|source| unusable(&config.model.path, source))?;
    tracing::info!(threads, device = place.name(), "computing");
    Ok(Arc::new(decoder))
}

/// What the model takes of its device at most.
fn memory_plan(
    source: &dyn ModelSource,
    config: &LlmConfig,
    place: &Place,
) -> Result<MemoryPlan, StartError> {
    let shape = source.config().map_err(|source| unusable(&config.model.path, source))?;
    let views = source.tensor_names();
    let bytes = |name: &str| source.tensor(name).ok().map(|view| view.bytes.len() as u64);
    let tensors = views.into_iter().filter_map(bytes);
    let is_gpu = !place.device().is_cpu();
    Ok(MemoryPlan::new(&shape, tensors, &config.engine, is_gpu))
}

fn request_limits(engine: &EngineSection, decoder: &Decoder) -> RequestLimits {
    let trained = decoder.config().context_tokens;
    let context_tokens_max = engine.context_tokens_max.min(trained);
    if context_tokens_max < engine.context_tokens_max {
        tracing::info!(
            engine.context_tokens_max,
            model.context_tokens = trained,
            "the context is cut to what the model was trained for"
        );
    }
    RequestLimits {
        context_tokens_max,
        output_tokens_max: engine.output_tokens_max.min(context_tokens_max),
        scheduler: SchedulerLimits {
            rows_max: engine.batch_rows_max,
            blocks: engine.kv_tokens_max / BLOCK_TOKENS,
            block_tokens: BLOCK_TOKENS,
            prefill_tokens_alone: engine.prefill_chunk_tokens,
            prefill_tokens_beside_decode: engine.prefill_chunk_tokens_beside_decode,
            slowdown_percent_max: engine.decode_slowdown_percent_max,
            sharing: match engine.prefix_cache {
                PrefixCache::Off => PrefixSharing::Off,
                PrefixCache::PerKey => PrefixSharing::PerOwner,
                PrefixCache::Shared => PrefixSharing::All,
            },
            draft_tokens_max: engine.draft_tokens_max,
        },
        reader_wait_max: Duration::from_millis(engine.reader_wait_ms_max),
    }
}

fn batcher_config(engine: &EngineSection) -> BatcherConfig {
    BatcherConfig {
        thread_name: "llm-model".to_owned(),
        // All of them are the scheduler's: it has the queue that knows owners and the cache.
        running_max: engine.batch_rows_max + engine.queue_depth_max,
        queue_depth_max: 0,
        ..BatcherConfig::default()
    }
}

fn info(
    source: &dyn ModelSource,
    config: &LlmConfig,
    decoder: &Decoder,
    limits: &RequestLimits,
) -> v1::ModelInfo {
    let shape = decoder.config();
    let license = if config.model.license.is_empty() {
        shape.license.clone().unwrap_or_default()
    } else {
        config.model.license.clone()
    };
    v1::ModelInfo {
        name: config.model.name.clone(),
        family: shape.architecture.clone(),
        format: source.format().to_owned(),
        quantization: model::quantization(source),
        sha256: String::new(),
        license,
        parameters: decoder.parameters(),
        file_bytes: source.file_bytes(),
        tasks: vec!["completion".to_owned()],
        limits: Some(v1::Limits {
            context_tokens_max: limits.context_tokens_max as u32,
            output_tokens_max: limits.output_tokens_max as u32,
            queue_depth_max: config.engine.queue_depth_max as u32,
            batch_rows_max: config.engine.batch_rows_max as u32,
        }),
        ..v1::ModelInfo::default()
    }
}
