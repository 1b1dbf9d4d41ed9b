//! Which device computes: `auto`, `cpu` or `cuda:N`, as configuration says it, and why.

use candle_core::Device;

/// GPUs that may be named; no machine has more.
const GPUS_MAX: usize = 64;

/// Why the configured device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Neither `auto`, `cpu` nor `cuda:N`.
    #[error("device `{found}` is unknown: use `auto`, `cpu` or `cuda:N`")]
    Unknown {
        /// What was configured.
        found: String,
    },
    /// The build has no CUDA support.
    #[error(
        "device `{found}` needs the GPU build of this program, and this one computes on the CPU \
         only: scripts/build-cuda.sh makes it"
    )]
    NotInThisBuild {
        /// What was configured.
        found: String,
    },
    /// The machine has no such device, or it does not work.
    #[error("device `{found}` is not available: {reason}")]
    Unavailable {
        /// What was configured.
        found: String,
        /// Why.
        reason: String,
    },
}

/// A device that can be computed on.
#[derive(Debug, Clone)]
pub struct ChosenDevice {
    /// It.
    pub device: Device,
    /// `cpu`, `cuda:0`.
    pub name: String,
    /// Why it is this one, when that was not said: `auto: this build has no CUDA support`.
    pub note: String,
}

/// The device that `spec` names. `auto` takes the first GPU when it works, else the CPU, and says
/// why; `cuda:N` fails when that device cannot be used.
///
/// # Errors
/// [`DeviceError`].
pub fn device(spec: &str) -> Result<ChosenDevice, DeviceError> {
    let chosen = |device: Device, name: &str, note: String| {
        Ok(ChosenDevice { device, name: name.to_owned(), note })
    };
    match spec {
        "cpu" => chosen(Device::Cpu, "cpu", String::new()),
        "auto" => match cuda(0) {
            Ok(device) => chosen(device, "cuda:0", "auto: the first GPU".to_owned()),
            Err(reason) => chosen(Device::Cpu, "cpu", format!("auto: {reason}")),
        },
        _ => {
            let unknown = || DeviceError::Unknown { found: spec.to_owned() };
            let digits = spec.strip_prefix("cuda:").ok_or_else(unknown)?;
            let ordinal: usize = digits.parse().map_err(|_| unknown())?;
            // `+1` and `01` are numbers to `parse`.
            if ordinal >= GPUS_MAX || ordinal.to_string() != digits {
                return Err(unknown());
            }
            let found = || spec.to_owned();
            if !candle_core::utils::cuda_is_available() {
                return Err(DeviceError::NotInThisBuild { found: found() });
            }
            let device = cuda(ordinal)
                .map_err(|reason| DeviceError::Unavailable { found: found(), reason })?;
            chosen(device, spec, String::new())
        }
    }
}

/// `GPU-...` of a GPU, as NVML names it too; `None` for the CPU.
#[must_use]
pub fn gpu_uuid(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        let uuid = cuda.cuda_stream().context().uuid().ok()?;
        let hex: String = uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect();
        let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        return Some(format!("GPU-{a}-{b}-{c}-{d}-{e}"));
    }
    let _ = device;
    None
}

/// Free and total memory of a GPU, bytes; `None` for the CPU, or when the driver does not say.
#[must_use]
pub fn gpu_memory_bytes(device: &Device) -> Option<(u64, u64)> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        let (free, total) = cuda.cuda_stream().context().mem_get_info().ok()?;
        return Some((free as u64, total as u64));
    }
    let _ = device;
    None
}

/// The GPU of that number, ready to compute.
fn cuda(ordinal: usize) -> Result<Device, String> {
    // It says whether the feature is on, not whether there is a GPU.
    if !candle_core::utils::cuda_is_available() {
        return Err("this build has no CUDA support".to_owned());
    }
    Device::new_cuda(ordinal).map_err(|error| {
        // Without a driver its own words for an error are missing too; the code is always there.
        let text = format!("{error:?}");
        let code = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let code = code.into_iter().find(|word| {
            ["CUDA_ERROR_", "CUBLAS_STATUS_", "CURAND_STATUS_"].iter().any(|p| word.starts_with(p))
        });
        match code {
            Some("CUDA_ERROR_NO_DEVICE") => "no NVIDIA driver, or no GPU, is there".to_owned(),
            Some("CUBLAS_STATUS_NOT_INITIALIZED") => "libcublas.so.13 does not load".to_owned(),
            Some("CURAND_STATUS_INITIALIZATION_FAILED") => {
                "libcurand.so.10 does not load".to_owned()
            }
            Some(code) => code.to_owned(),
            None => error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_auto_falls_back_to_it() {
        let cpu = device("cpu").unwrap();
        assert!(cpu.device.is_cpu() && cpu.note.is_empty());
        let auto = device("auto").unwrap();
        assert!(auto.note.starts_with("auto: "), "{}", auto.note);
        assert_eq!(auto.device.is_cpu(), auto.name == "cpu");
        assert_eq!((gpu_uuid(&cpu.device), gpu_memory_bytes(&cpu.device)), (None, None));
    }

    #[test]
    fn a_device_that_is_asked_for_by_name_is_not_replaced() {
        if !candle_core::utils::cuda_is_available() {
            let refused = device("cuda:0").unwrap_err();
            assert!(refused.to_string().contains("scripts/build-cuda.sh"), "{refused}");
        }
        let unknown = ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:01"];
        for spec in unknown.into_iter().chain(["cuda:64", "metal:0"]) {
            assert!(matches!(device(spec), Err(DeviceError::Unknown { .. })), "{spec}");
        }
    }
}
