//! Reads GPUs through nvml-wrapper. It keeps no state but the open library.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use crate::{Absent, Gpu};

/// The soname that the driver installs; the name without a version belongs to its development
/// files.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// GPUs that are looked at; the largest machines have 16.
const GPUS_MAX: u32 = 64;

/// The driver's library, open.
#[derive(Debug)]
pub struct Reader {
    nvml: Nvml,
}

impl Reader {
    /// Opens the driver's library where the loader finds it.
    ///
    /// # Errors
    /// [`Absent`] says why there is nothing to read.
    pub fn open() -> Result<Self, Absent> {
        Self::open_library(LIBRARY.as_ref())
    }

    /// Opens the library of that name or path.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_library(library: &OsStr) -> Result<Self, Absent> {
        let nvml = Nvml::builder().lib_path(library).init();
        let reader = Self { nvml: nvml.map_err(|error| absent(&error, library))? };
        match reader.nvml.device_count() {
            Ok(0) => Err(Absent::NoDevice { reason: "it lists none".to_owned() }),
            Ok(_) => Ok(reader),
            Err(error) => Err(absent(&error, library)),
        }
    }

    /// Every GPU that this process may see, with the memory that process `pid` has on it.
    ///
    /// # Errors
    /// When the driver lists no devices any more, for example because one fell off the bus.
    pub fn gpus(&self, pid: u32) -> Result<Vec<Gpu>, Absent> {
        let failed = |error: NvmlError| absent(&error, LIBRARY.as_ref());
        let count = self.nvml.device_count().map_err(failed)?.min(GPUS_MAX);
        let driver = self.nvml.sys_driver_version().unwrap_or_default();
        (0..count).map(|index| self.gpu(index, pid, &driver).map_err(failed)).collect()
    }

    fn gpu(&self, index: u32, pid: u32, driver: &str) -> Result<Gpu, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        // What a card does not support is left out; a card without ECC is no error.
        let rates = device.utilization_rates().ok();
        let memory = device.memory_info().ok();
        let ecc = |kind| device.total_ecc_errors(kind, EccCounter::Volatile).ok();
        let processes = device.running_compute_processes().unwrap_or_default();
        let own = processes.into_iter().find(|process| process.pid == pid);
        Ok(Gpu {
            uuid: device.uuid()?,
            index,
            name: device.name().unwrap_or_default(),
            driver: driver.to_owned(),
            utilization_percent: rates.as_ref().map(|rates| rates.gpu),
            memory_utilization_percent: rates.map(|rates| rates.memory),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.map(|memory| memory.total),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            power_milliwatts: device.power_usage().ok(),
            power_limit_milliwatts: device.enforced_power_limit().ok(),
            energy_millijoules: device.total_energy_consumption().ok(),
            throttle_reasons: device.current_throttle_reasons().ok().map(|reasons| reasons.bits()),
            ecc_corrected_total: ecc(MemoryError::Corrected),
            ecc_uncorrected_total: ecc(MemoryError::Uncorrected),
            process_memory_bytes: own.and_then(|process| match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            }),
        })
    }
}

fn absent(error: &NvmlError, library: &OsStr) -> Absent {
    let reason = error.to_string();
    let library = || library.to_string_lossy().into_owned();
    #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate that grows")]
    match error {
        NvmlError::LibloadingError(source) => {
            // The loader gives words, no codes.
            let reason = source.to_string();
            if reason.contains("Permission denied") {
                Absent::NoPermission { reason }
            } else if reason.contains("No such file") {
                Absent::NoLibrary { library: library() }
            } else {
                Absent::Unloadable { library: library(), reason }
            }
        }
        NvmlError::FailedToLoadSymbol(_) | NvmlError::LibraryNotFound => {
            Absent::Unloadable { library: library(), reason }
        }
        NvmlError::DriverNotLoaded | NvmlError::NotFound | NvmlError::GpuLost => {
            Absent::NoDevice { reason }
        }
        NvmlError::NoPermission | NvmlError::OperatingSystem => Absent::NoPermission { reason },
        NvmlError::LibRmVersionMismatch => Absent::VersionMismatch,
        _ => Absent::Failed { reason },
    }
}
