//! What the machine has of NVIDIA GPUs: the kernel module, its device nodes and who may open them,
//! the description that Podman reads, and what the driver says of each card. A machine without a
//! GPU gets one line and no warning.

use std::fs;
use std::path::{Path, PathBuf};

use aisemble_nvml::{Gpu, Reader};
use rustix::fs::{Access, access};

use super::Finding;

/// Folders of CDI descriptions, in the order that Podman reads them.
const CDI_FOLDERS: [&str; 2] = ["etc/cdi", "var/run/cdi"];
/// Bytes of a text that is read here.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn look() -> Vec<Finding> {
    let mut findings = on_disk(Path::new("/"));
    if findings.iter().any(|finding| finding.name == "gpu driver") {
        findings.extend(by_the_driver());
    }
    findings
}

/// What lies under `root`, which is `/`.
fn on_disk(root: &Path) -> Vec<Finding> {
    let version = text(&root.join("proc/driver/nvidia/version"));
    let nodes = nodes(root);
    let Some(version) = version else {
        if nodes.is_empty() {
            return vec![Finding::ok("gpu", "none: models compute on the CPU")];
        }
        let observed = format!("{} is there, and the driver is not loaded", nodes[0].display());
        let fix = "load the driver (`modprobe nvidia`); after a kernel update install it again";
        return vec![Finding::warn("gpu", observed, fix)];
    };
    let version = version.lines().next().unwrap_or_default().trim().to_owned();
    let mut findings = vec![Finding::ok("gpu driver", version)];
    findings.push(nodes_finding(root, &nodes));
    findings.push(cdi(root));
    findings
}

fn nodes(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root.join("dev")) else { return Vec::new() };
    let mut nodes: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(is_compute_node))
        .map(|entry| entry.path())
        .collect();
    nodes.sort();
    nodes
}

/// `nvidiactl`, `nvidia-uvm`, `nvidia0`: what computing needs, and no more.
fn is_compute_node(name: &str) -> bool {
    let number = name.strip_prefix("nvidia").unwrap_or_default();
    let is_card = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_card || ["nvidiactl", "nvidia-uvm"].contains(&name)
}

fn nodes_finding(root: &Path, nodes: &[PathBuf]) -> Finding {
    let name = "gpu devices";
    let missing = ["nvidiactl", "nvidia-uvm", "nvidia0"]
        .into_iter()
        .find(|needed| !nodes.contains(&root.join("dev").join(needed)));
    if let Some(missing) = missing {
        let fix =
            "a rootless user cannot make them: `nvidia-modprobe -u -c 0` as root, at each boot";
        return Finding::warn(name, format!("/dev/{missing} is not there"), fix);
    }
    let closed =
        nodes.iter().find(|node| access(*node, Access::READ_OK | Access::WRITE_OK).is_err());
    if let Some(closed) = closed {
        let observed = format!("this user may not open {}", closed.display());
        let fix = "a udev rule that opens them to this user, rather than the group video for a pod";
        return Finding::warn(name, observed, fix);
    }
    Finding::ok(name, format!("{} device files, open to this user", nodes.len()))
}

/// A pod gets its GPU by a CDI description; local mode needs none.
fn cdi(root: &Path) -> Finding {
    let name = "gpu in pods";
    let files = CDI_FOLDERS.iter().filter_map(|folder| fs::read_dir(root.join(folder)).ok());
    let kinds = files
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter_map(|entry| text(&entry.path()))
        .filter_map(|text| kind(&text));
    let mut kinds: Vec<_> = kinds.filter(|kind| kind.ends_with("/gpu")).collect();
    kinds.sort();
    if kinds.iter().any(|kind| kind == "ai-semble.local/gpu") {
        return Finding::ok(name, "CDI has ai-semble.local/gpu");
    }
    let fix = "scripts/setup-gpu.sh --cdi writes the least that computing needs (docs/gpu.md)";
    let observed = match kinds.as_slice() {
        [] => "no CDI description of a GPU".to_owned(),
        [first, ..] => format!("CDI has {first}, which gives a container more than it needs"),
    };
    Finding::warn(name, observed, fix)
}

/// The kind that a CDI file, JSON or YAML, describes.
fn kind(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| {
        let line = line.trim().trim_matches(|c| c == '{' || c == ',');
        line.trim_start_matches('"').strip_prefix("kind")
    })?;
    let value = line.trim_start_matches('"').trim_start().strip_prefix(':')?;
    let value = value.trim().trim_matches(|c| c == '"' || c == '\'' || c == ',');
    Some(value.to_owned())
}

/// What NVML says, where this program can load it.
fn by_the_driver() -> Vec<Finding> {
    let read = Reader::open().and_then(|reader| reader.gpus(std::process::id()));
    match read {
        Ok(gpus) => gpus.iter().map(card).collect(),
        Err(absent) if absent.is_plain() => {
            vec![Finding::ok("gpu figures", format!("not read here: {absent}"))]
        }
        Err(absent) => {
            let fix = "`nvidia-smi` shows whether the driver itself works";
            vec![Finding::warn("gpu figures", absent.to_string(), fix)]
        }
    }
}

fn card(gpu: &Gpu) -> Finding {
    let label = format!("gpu {}", gpu.index);
    let memory = gpu.memory_used_bytes.zip(gpu.memory_total_bytes);
    let memory = memory.map_or(String::new(), |(used, total)| {
        format!(", {} of {} in use", crate::terminal::size(used), crate::terminal::size(total))
    });
    let heat = gpu.temperature_celsius.map_or(String::new(), |celsius| format!(", {celsius} °C"));
    let observed = format!("{} ({}){memory}{heat}", gpu.name, gpu.uuid);
    match gpu.ecc_uncorrected_total {
        Some(errors @ 1..) => {
            let observed = format!("{observed}, {errors} uncorrected ECC errors");
            Finding::warn(label, observed, "its memory is failing: results may be wrong")
        }
        Some(0) | None => Finding::ok(label, observed),
    }
}

fn text(path: &Path) -> Option<String> {
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    if length > TEXT_BYTES_MAX { None } else { fs::read_to_string(path).ok() }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn found<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.name == name).unwrap()
    }

    const VERSION: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05\nGCC version:";

    #[test]
    fn a_machine_without_a_gpu_gets_one_line_and_no_warning() {
        let root = tempfile::tempdir().unwrap();
        let findings = on_disk(root.path());
        assert_eq!((findings.len(), findings[0].level), (1, Level::Ok));
    }

    #[test]
    fn nodes_without_a_driver_and_a_driver_without_nodes_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "dev/nvidia0", "");
        assert!(on_disk(root.path())[0].observed.contains("driver is not loaded"));
        put(root.path(), "proc/driver/nvidia/version", VERSION);
        let findings = on_disk(root.path());
        assert!(found(&findings, "gpu driver").observed.ends_with("580.95.05"));
        let devices = found(&findings, "gpu devices");
        assert!(devices.observed.contains("/dev/nvidiactl is not there"), "{devices:?}");
    }

    #[test]
    fn a_whole_machine_is_ok_and_a_wide_description_is_said() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "proc/driver/nvidia/version", VERSION);
        for node in ["nvidiactl", "nvidia-uvm", "nvidia0", "nvidia-modeset", "nvidia-caps"] {
            put(root.path(), &format!("dev/{node}"), "");
        }
        let findings = on_disk(root.path());
        assert!(found(&findings, "gpu devices").observed.starts_with("3 device files"));
        assert!(found(&findings, "gpu in pods").observed.contains("no CDI description"));
        put(root.path(), "var/run/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n");
        let wide = on_disk(root.path());
        assert!(found(&wide, "gpu in pods").observed.contains("nvidia.com/gpu"));
        put(
            root.path(),
            "etc/cdi/a.json",
            "{\"cdiVersion\": \"0.5.0\",\n  \"kind\": \"ai-semble.local/gpu\",",
        );
        assert_eq!(found(&on_disk(root.path()), "gpu in pods").level, Level::Ok);
    }

    #[test]
    fn a_card_whose_memory_fails_is_a_warning() {
        let gpu = Gpu { ecc_uncorrected_total: Some(2), ..Gpu::default() };
        assert_eq!(card(&gpu).level, Level::Warn);
        assert_eq!(card(&Gpu::default()).level, Level::Ok);
    }
}
