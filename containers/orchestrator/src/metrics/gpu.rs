//! GPUs on the page, as the services that compute on them report them. The orchestrator itself has
//! no device and opens none. Instances that share a GPU report the same one: it is shown once, from
//! the freshest report.

use std::collections::BTreeMap;

use aisemble_protocol::v1::{GpuStats, MemoryPlan};

use super::families::{self as f, Family};
use super::page::{Page, as_f64};
use super::sampled::SampledInstance;

/// Older figures are not shown: a gauge that stands still looks like a GPU that does.
const AGE_S_MAX: f64 = 30.0;

/// NVML's reasons for lower clocks, by their bit (`nvmlClocksEventReasons`).
const REASONS: [(u64, &str); 9] = [
    (0x1, "gpu_idle"),
    (0x2, "applications_clocks_setting"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
];

/// A figure of a GPU; `None` when the card does not give it.
type Figure = fn(&GpuStats) -> Option<f64>;

const FIGURES: [(&Family, Figure); 8] = [
    (&f::GPU_UTILIZATION, |gpu| Some(f64::from(gpu.utilization_percent?) / 100.0)),
    (&f::GPU_MEMORY_UTILIZATION, |gpu| Some(f64::from(gpu.memory_utilization_percent?) / 100.0)),
    (&f::GPU_MEMORY_USED, |gpu| gpu.memory_used_bytes.map(as_f64)),
    (&f::GPU_MEMORY_TOTAL, |gpu| gpu.memory_total_bytes.map(as_f64)),
    (&f::GPU_TEMPERATURE, |gpu| gpu.temperature_celsius.map(f64::from)),
    (&f::GPU_POWER, |gpu| Some(f64::from(gpu.power_milliwatts?) / 1e3)),
    (&f::GPU_POWER_LIMIT, |gpu| Some(f64::from(gpu.power_limit_milliwatts?) / 1e3)),
    (&f::GPU_ENERGY, |gpu| Some(as_f64(gpu.energy_millijoules?) / 1e3)),
];

/// Appends the GPUs of all instances, and what their models plan to take.
pub(super) fn render(page: &mut Page, instances: &[SampledInstance]) {
    planned(page, instances);
    let gpus = by_uuid(instances);
    let each = || gpus.values().map(|(_, gpu)| *gpu);
    page.family(&f::GPU_INFO, each().map(|gpu| ([gpu.uuid.as_str(), &gpu.name, &gpu.driver], 1.0)));
    for (family, figure) in FIGURES {
        page.family(family, each().filter_map(|gpu| Some(([gpu.uuid.as_str()], figure(gpu)?))));
    }
    let throttled = each().filter_map(|gpu| Some((gpu, gpu.throttle_reasons?)));
    let throttled = throttled.flat_map(|(gpu, bits)| {
        REASONS.map(|(bit, reason)| {
            ([gpu.uuid.as_str(), reason], f64::from(u8::from(bits & bit != 0)))
        })
    });
    page.family(&f::GPU_THROTTLED, throttled);
    let errors = each().flat_map(|gpu| {
        [("corrected", gpu.ecc_corrected_total), ("uncorrected", gpu.ecc_uncorrected_total)]
            .into_iter()
            .filter_map(|(kind, count)| Some(([gpu.uuid.as_str(), kind], as_f64(count?))))
    });
    page.family(&f::GPU_ECC, errors);
    let own = reports(instances).filter_map(|(instance, gpu, _)| {
        let bytes = as_f64(gpu.process_memory_bytes?);
        Some(([instance.service, instance.name.as_str(), &gpu.uuid], bytes))
    });
    page.family(&f::GPU_PROCESS_MEMORY, own);
}

fn planned(page: &mut Page, instances: &[SampledInstance]) {
    let models = instances.iter().flat_map(|instance| {
        let models = instance.described.iter().flat_map(|described| &described.models);
        models.filter_map(move |model| Some((instance, model, model.memory.as_ref()?)))
    });
    let parts = models.flat_map(|(instance, model, memory)| {
        let MemoryPlan { weights_bytes, kv_bytes, workspace_bytes, limit_bytes: _ } = *memory;
        [("weights", weights_bytes), ("kv", kv_bytes), ("workspace", workspace_bytes)].map(
            |(part, bytes)| {
                let labels = [instance.service, instance.name.as_str(), &model.name, part];
                (labels, as_f64(bytes))
            },
        )
    });
    page.family(&f::MODEL_MEMORY, parts);
}

/// Every report of a GPU that is fresh enough, and its age in seconds.
fn reports(
    instances: &[SampledInstance],
) -> impl Iterator<Item = (&SampledInstance, &GpuStats, f64)> {
    instances
        .iter()
        .filter_map(|instance| Some((instance, instance.stats.as_ref()?)))
        .flat_map(|(instance, (stats, age_s))| {
            stats.gpus.iter().map(move |gpu| (instance, gpu, age_s + as_f64(gpu.age_ms) / 1e3))
        })
        .filter(|(_, _, age_s)| *age_s <= AGE_S_MAX)
}

fn by_uuid(instances: &[SampledInstance]) -> BTreeMap<&str, (f64, &GpuStats)> {
    let mut gpus: BTreeMap<&str, (f64, &GpuStats)> = BTreeMap::new();
    for (_, gpu, age_s) in reports(instances) {
        let known = gpus.entry(&gpu.uuid).or_insert((age_s, gpu));
        if age_s < known.0 {
            *known = (age_s, gpu);
        }
    }
    gpus
}

#[cfg(test)]
mod tests {
    use aisemble_protocol::v1;

    use super::*;

    fn instance(name: &str, age_s: f64, gpu: GpuStats) -> SampledInstance {
        let stats = v1::StatsResponse { gpus: vec![gpu], ..v1::StatsResponse::default() };
        SampledInstance {
            service: "llm",
            name: name.to_owned(),
            stats: Some((stats, age_s)),
            ..SampledInstance::default()
        }
    }

    fn gpu(uuid: &str, utilization_percent: u32) -> GpuStats {
        GpuStats {
            uuid: uuid.to_owned(),
            name: "A \"card\"".to_owned(),
            driver: "580".to_owned(),
            utilization_percent: Some(utilization_percent),
            power_milliwatts: Some(310_500),
            throttle_reasons: Some(0x24),
            ecc_uncorrected_total: Some(2),
            process_memory_bytes: Some(1024),
            ..GpuStats::default()
        }
    }

    fn page(instances: &[SampledInstance]) -> String {
        let mut page = Page::default();
        render(&mut page, instances);
        page.into_text()
    }

    #[test]
    fn a_gpu_that_two_instances_share_is_shown_once_and_from_the_fresher_report() {
        let text =
            page(&[instance("llm", 2.0, gpu("GPU-1", 10)), instance("b", 0.5, gpu("GPU-1", 90))]);
        let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("aisemble_gpu_info{"), 1, "{text}");
        assert!(text.contains("aisemble_gpu_utilization_ratio{gpu=\"GPU-1\"} 0.9\n"), "{text}");
        assert!(text.contains("aisemble_gpu_power_watts{gpu=\"GPU-1\"} 310.5\n"), "{text}");
        assert_eq!(lines("aisemble_gpu_process_memory_bytes{"), 2, "{text}");
        assert_eq!(lines("aisemble_gpu_clocks_throttled{"), REASONS.len());
        let held = text.lines().filter(|line| line.contains("reason=") && line.ends_with(" 1"));
        assert_eq!(held.count(), 2, "{text}");
        // A figure that the card does not give is no line, not a zero.
        assert!(!text.contains("temperature") && !text.contains("type=\"corrected\""), "{text}");
        assert!(text.contains("type=\"uncorrected\"} 2\n"), "{text}");
    }

    #[test]
    fn figures_that_are_old_are_not_shown() {
        assert_eq!(page(&[instance("llm", AGE_S_MAX + 1.0, gpu("GPU-1", 10))]), "");
        let stuck = GpuStats { age_ms: 60_000, ..gpu("GPU-1", 10) };
        assert_eq!(page(&[instance("llm", 0.0, stuck)]), "");
    }

    #[test]
    fn what_a_model_plans_to_take_is_shown_by_part() {
        let memory = MemoryPlan { weights_bytes: 7, kv_bytes: 5, ..MemoryPlan::default() };
        let model = v1::ModelInfo {
            name: "m".to_owned(),
            memory: Some(memory),
            ..v1::ModelInfo::default()
        };
        let described =
            v1::DescribeResponse { models: vec![model], ..v1::DescribeResponse::default() };
        let instance = SampledInstance { described: Some(described), ..Default::default() };
        let text = page(&[instance]);
        assert!(text.contains("model=\"m\",part=\"weights\"} 7\n"), "{text}");
        assert!(text.contains("part=\"kv\"} 5\n") && text.contains("\"workspace\"} 0\n"), "{text}");
    }
}
