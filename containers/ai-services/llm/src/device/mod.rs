//! Where the model computes: the configured device, what the model takes of its memory, and what
//! the GPU says of itself meanwhile. It knows sizes and devices, not requests.

mod gauge;
mod plan;

use aisemble_protocol::v1;
use aisemble_service::StartError;
use aisemble_weights::candle::Device;
use aisemble_weights::{ChosenDevice, gpu_memory_bytes};

pub use plan::MemoryPlan;

use crate::config::EngineSection;
use gauge::Gauge;

/// The device of one instance.
#[derive(Debug)]
pub struct Place {
    chosen: ChosenDevice,
    /// Bytes that the model may take; `None` = as many as there are.
    limit_bytes: Option<u64>,
    /// Why the limit is what it is.
    limit_reason: String,
    gauge: Option<Gauge>,
}

impl Place {
    /// Takes the configured device; `auto` falls back to the CPU and the log says why.
    ///
    /// # Errors
    /// When a device that is asked for by name cannot be used.
    pub fn choose(engine: &EngineSection) -> Result<Self, StartError> {
        let chosen = aisemble_weights::device(&engine.device).map_err(|source| {
            StartError::config("engine.device cannot be used").with_source(source)
        })?;
        tracing::info!(device = chosen.name, reason = chosen.note, "the model computes here");
        let configured = Some(engine.memory_bytes_max).filter(|bytes| *bytes > 0);
        let free = gpu_memory_bytes(&chosen.device).map(|(free, _)| free);
        let (limit_bytes, limit_reason) = match (configured, free) {
            (Some(limit), Some(free)) if free < limit => (Some(free), "are free on the GPU"),
            (Some(limit), _) => (Some(limit), "are allowed by engine.memory_bytes_max"),
            (None, Some(free)) => (Some(free), "are free on the GPU"),
            (None, None) => (None, ""),
        };
        let gauge = Gauge::of(&chosen.device);
        Ok(Self { chosen, limit_bytes, limit_reason: limit_reason.to_owned(), gauge })
    }

    /// It, for tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.chosen.device
    }

    /// `cpu`, `cuda:0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.chosen.name
    }

    /// Why it is this one; empty when it was asked for by name.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.chosen.note
    }

    /// Whether `plan` fits, before anything of it is loaded.
    ///
    /// # Errors
    /// The sum, its parts, and what is allowed.
    pub fn admit(&self, plan: &MemoryPlan) -> Result<(), StartError> {
        tracing::info!(
            memory.weights_bytes = plan.weights_bytes,
            memory.kv_bytes = plan.kv_bytes,
            memory.workspace_bytes = plan.workspace_bytes,
            memory.limit_bytes = self.limit_bytes,
            "planned: {plan}"
        );
        let Some(limit) = self.limit_bytes.filter(|limit| plan.total_bytes() > *limit) else {
            return Ok(());
        };
        let (name, limit, why) = (self.name(), plan::gigabytes(limit), &self.limit_reason);
        Err(StartError::config(format!("the model does not fit on {name}: {plan}; {limit} {why}"))
            .with_hint("lower engine.kv_tokens_max, take a smaller model, or another device"))
    }

    /// The plan as Describe tells it.
    #[must_use]
    pub fn described(&self, plan: &MemoryPlan) -> v1::MemoryPlan {
        v1::MemoryPlan {
            weights_bytes: plan.weights_bytes,
            kv_bytes: plan.kv_bytes,
            workspace_bytes: plan.workspace_bytes,
            limit_bytes: self.limit_bytes.unwrap_or(0),
        }
    }

    /// The GPU's own figures; none on the CPU. Never waits for the driver.
    #[must_use]
    pub fn gpus(&self) -> Vec<v1::GpuStats> {
        self.gauge.as_ref().map(Gauge::gpus).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(engine: EngineSection) -> Place {
        Place::choose(&EngineSection { device: "cpu".to_owned(), ..engine }).unwrap()
    }

    fn plan() -> MemoryPlan {
        MemoryPlan { weights_bytes: 5_000_000_000, kv_bytes: 2_000_000_000, workspace_bytes: 0 }
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_the_sum() {
        let limited =
            place(EngineSection { memory_bytes_max: 6_000_000_000, ..EngineSection::default() });
        let refused = limited.admit(&plan()).unwrap_err().to_string();
        for part in ["cpu", "7.0 GB", "weights 5.0 GB", "KV cache 2.0 GB", "6.0 GB are allowed"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let smaller = MemoryPlan { kv_bytes: 1_000_000_000, ..plan() };
        assert!(limited.admit(&smaller).is_ok());
        assert_eq!(limited.described(&smaller).limit_bytes, 6_000_000_000);
    }

    #[test]
    fn without_a_limit_the_cpu_takes_what_there_is() {
        let place = place(EngineSection::default());
        assert!(place.admit(&plan()).is_ok());
        assert_eq!((place.name(), place.note(), place.gpus().len()), ("cpu", "", 0));
    }

    #[test]
    fn a_gpu_by_name_is_refused_by_a_build_without_one() {
        if aisemble_weights::candle::utils::cuda_is_available() {
            return;
        }
        let engine = EngineSection { device: "cuda:0".to_owned(), ..EngineSection::default() };
        let refused = Place::choose(&engine).unwrap_err();
        assert_eq!(refused.exit_code(), 78);
        let auto = EngineSection { device: "auto".to_owned(), ..EngineSection::default() };
        let note = Place::choose(&auto).unwrap().note().to_owned();
        assert_eq!(note, "auto: this build has no CUDA support");
    }
}
