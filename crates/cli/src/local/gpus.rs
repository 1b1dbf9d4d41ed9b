//! The GPUs that services compute on, read from the metrics page: the services report them, nobody
//! here opens a device.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::terminal::size;

/// One GPU.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct GpuLine {
    name: String,
    driver: String,
    utilization: Option<f64>,
    memory_used_bytes: Option<f64>,
    memory_total_bytes: Option<f64>,
    temperature_celsius: Option<f64>,
    power_watts: Option<f64>,
    power_limit_watts: Option<f64>,
    /// Why its clocks are held down now.
    throttled: Vec<String>,
    ecc_uncorrected_errors: Option<f64>,
}

/// By UUID.
pub(super) fn gpus(metrics: &str) -> BTreeMap<String, GpuLine> {
    let mut gpus: BTreeMap<String, GpuLine> = BTreeMap::new();
    for line in metrics.lines() {
        let Some((name, labels, value)) = sample(line) else { continue };
        let Some(figure) = name.strip_prefix("aisemble_gpu_") else { continue };
        let Some(uuid) = label(labels, "gpu") else { continue };
        let gpu = gpus.entry(uuid).or_default();
        match figure {
            "info" => {
                gpu.name = label(labels, "name").unwrap_or_default();
                gpu.driver = label(labels, "driver").unwrap_or_default();
            }
            "utilization_ratio" => gpu.utilization = Some(value),
            "memory_used_bytes" => gpu.memory_used_bytes = Some(value),
            "memory_total_bytes" => gpu.memory_total_bytes = Some(value),
            "temperature_celsius" => gpu.temperature_celsius = Some(value),
            "power_watts" => gpu.power_watts = Some(value),
            "power_limit_watts" => gpu.power_limit_watts = Some(value),
            "clocks_throttled" if value > 0.0 => {
                gpu.throttled.extend(label(labels, "reason").filter(|it| it != "gpu_idle"));
            }
            "ecc_errors_total" if label(labels, "type").as_deref() == Some("uncorrected") => {
                gpu.ecc_uncorrected_errors = Some(value);
            }
            _ => {}
        }
    }
    gpus
}

/// A line of the exposition format with labels.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once('}')?;
    Some((name, labels, value.trim().parse().ok()?))
}

/// A label's value, without its escapes.
fn label(labels: &str, name: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let (key, behind) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = behind.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        if key.trim_start_matches(',') == name {
            return Some(value);
        }
        rest = &behind[end + 1..];
    }
}

/// In words for a person.
pub(super) fn words(uuid: &str, gpu: &GpuLine) -> String {
    let mut parts = Vec::new();
    parts.extend(gpu.utilization.map(|share| format!("{:.0} % busy", share * 100.0)));
    if let (Some(used), Some(total)) = (gpu.memory_used_bytes, gpu.memory_total_bytes) {
        parts.push(format!("{} of {}", size(used as u64), size(total as u64)));
    }
    parts.extend(gpu.temperature_celsius.map(|celsius| format!("{celsius:.0} °C")));
    if let Some(watts) = gpu.power_watts {
        let limit = gpu.power_limit_watts.map(|limit| format!(" of {limit:.0}"));
        parts.push(format!("{watts:.0}{} W", limit.unwrap_or_default()));
    }
    if !gpu.throttled.is_empty() {
        parts.push(format!("held down by {}", gpu.throttled.join(", ")));
    }
    if let Some(errors) = gpu.ecc_uncorrected_errors.filter(|errors| *errors > 0.0) {
        parts.push(format!("{errors:.0} uncorrected ECC errors"));
    }
    format!("{} ({uuid}): {}", gpu.name, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE aisemble_gpu_info gauge\n\
        aisemble_gpu_info{gpu=\"GPU-1\",name=\"A \\\"card\\\", new\",driver=\"580\"} 1\n\
        aisemble_gpu_utilization_ratio{gpu=\"GPU-1\"} 0.45\n\
        aisemble_gpu_power_watts{gpu=\"GPU-1\"} 310.5\n\
        aisemble_gpu_power_limit_watts{gpu=\"GPU-1\"} 700\n\
        aisemble_gpu_clocks_throttled{gpu=\"GPU-1\",reason=\"sw_power_cap\"} 1\n\
        aisemble_gpu_clocks_throttled{gpu=\"GPU-1\",reason=\"gpu_idle\"} 1\n\
        aisemble_gpu_clocks_throttled{gpu=\"GPU-1\",reason=\"hw_slowdown\"} 0\n\
        aisemble_gpu_ecc_errors_total{gpu=\"GPU-1\",type=\"corrected\"} 9\n\
        aisemble_gpu_ecc_errors_total{gpu=\"GPU-1\",type=\"uncorrected\"} 2\n\
        aisemble_gpu_temperature_celsius{gpu=\"GPU-2\"} 31\n\
        aisemble_gpu_power_watts{gpu=\"broken} 1\naisemble_gpu_info{ 1\n";

    #[test]
    fn each_gpu_is_one_line() {
        let gpus = gpus(PAGE);
        assert_eq!(gpus.len(), 2);
        let said = words("GPU-1", &gpus["GPU-1"]);
        assert_eq!(
            said,
            "A \"card\", new (GPU-1): 45 % busy, 310 of 700 W, held down by sw_power_cap, \
             2 uncorrected ECC errors"
        );
        assert_eq!(words("GPU-2", &gpus["GPU-2"]), " (GPU-2): 31 °C");
    }
}
