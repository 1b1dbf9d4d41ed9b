//! Which device computes: `auto`, `cpu` or `cuda:N`, as configuration says it.

use candle_core::Device;

/// Why the configured device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Neither `auto`, `cpu` nor `cuda:N`.
    #[error("device `{found}` is unknown: use `auto`, `cpu` or `cuda:N`")]
    Unknown {
        /// What was configured.
        found: String,
    },
    /// The build has no CUDA support, or the machine has no such device.
    #[error("device `{found}` is not available: {reason}")]
    Unavailable {
        /// What was configured.
        found: String,
        /// Why.
        reason: String,
    },
}

/// The device that `spec` names. `auto` takes the first CUDA device when there is one, else the
/// CPU, and logs which; `cuda:N` fails when that device cannot be used.
///
/// # Errors
/// [`DeviceError`].
pub fn device(spec: &str) -> Result<Device, DeviceError> {
    match spec {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(cuda(0).unwrap_or_else(|reason| {
            tracing::info!(device = "cpu", reason, "no GPU is used");
            Device::Cpu
        })),
        _ => {
            let unknown = || DeviceError::Unknown { found: spec.to_owned() };
            let ordinal = spec.strip_prefix("cuda:").ok_or_else(unknown)?;
            let ordinal = ordinal.parse().map_err(|_| unknown())?;
            cuda(ordinal)
                .map_err(|reason| DeviceError::Unavailable { found: spec.to_owned(), reason })
        }
    }
}

fn cuda(ordinal: usize) -> Result<Device, String> {
    if !candle_core::utils::cuda_is_available() {
        return Err("this build has no CUDA support".to_owned());
    }
    Device::new_cuda(ordinal).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_auto_falls_back_to_it() {
        assert!(device("cpu").unwrap().is_cpu());
        if !candle_core::utils::cuda_is_available() {
            assert!(device("auto").unwrap().is_cpu());
        }
    }

    #[test]
    fn a_device_that_is_asked_for_by_name_is_not_replaced() {
        if !candle_core::utils::cuda_is_available() {
            assert!(matches!(device("cuda:0"), Err(DeviceError::Unavailable { .. })));
        }
        for spec in ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "metal:0"] {
            assert!(matches!(device(spec), Err(DeviceError::Unknown { .. })), "{spec}");
        }
    }
}
