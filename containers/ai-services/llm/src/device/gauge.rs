//! The GPU's own figures, read from the driver by the process that computes on it: nobody else in
//! the pod has the device. Where they cannot be read, one line says why, once.

use std::time::Duration;

use aisemble_nvml::{Gpu, Reader, Sampler};
use aisemble_protocol::v1;
use aisemble_weights::candle::Device;
use aisemble_weights::gpu_uuid;

/// As often as the orchestrator asks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Samples the GPU that the model computes on.
#[derive(Debug)]
pub(super) struct Gauge {
    sampler: Sampler,
}

impl Gauge {
    /// For a GPU; the CPU has none.
    pub(super) fn of(device: &Device) -> Option<Self> {
        if device.is_cpu() {
            return None;
        }
        let uuid = gpu_uuid(device);
        let started = Reader::open().map_err(|absent| absent.to_string()).and_then(|reader| {
            let keep = move |gpu: &Gpu| uuid.as_ref().is_none_or(|uuid| *uuid == gpu.uuid);
            Sampler::start(reader, std::process::id(), INTERVAL, keep)
                .map_err(|error| error.to_string())
        });
        match started {
            Ok(sampler) => Some(Self { sampler }),
            Err(reason) => {
                tracing::warn!(reason, "the GPU's own figures are not shown");
                None
            }
        }
    }

    pub(super) fn gpus(&self) -> Vec<v1::GpuStats> {
        let Some((gpus, age)) = self.sampler.last() else { return Vec::new() };
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        gpus.into_iter().map(|gpu| stats(gpu, age_ms)).collect()
    }
}

fn stats(gpu: Gpu, age_ms: u64) -> v1::GpuStats {
    v1::GpuStats {
        uuid: gpu.uuid,
        name: gpu.name,
        driver: gpu.driver,
        age_ms,
        utilization_percent: gpu.utilization_percent,
        memory_utilization_percent: gpu.memory_utilization_percent,
        memory_used_bytes: gpu.memory_used_bytes,
        memory_total_bytes: gpu.memory_total_bytes,
        temperature_celsius: gpu.temperature_celsius,
        power_milliwatts: gpu.power_milliwatts,
        power_limit_milliwatts: gpu.power_limit_milliwatts,
        energy_millijoules: gpu.energy_millijoules,
        throttle_reasons: gpu.throttle_reasons,
        ecc_corrected_total: gpu.ecc_corrected_total,
        ecc_uncorrected_total: gpu.ecc_uncorrected_total,
        process_memory_bytes: gpu.process_memory_bytes,
    }
}
