//! What an NVIDIA GPU says of itself through NVML, the driver's library `libnvidia-ml.so.1`:
//! load, memory, temperature, power, throttling, ECC errors, the memory of a process.
//!
//! The library is opened when it is asked for and never linked: a program runs the same where there
//! is none. A static program (`crt-static`) cannot open one at all, and says that. This crate knows
//! no CUDA, no models and no metrics page; it imports nothing of ours.

mod absent;
#[cfg(not(target_feature = "crt-static"))]
mod reader;
mod sampler;
#[cfg(target_feature = "crt-static")]
mod without;

pub use absent::Absent;
#[cfg(not(target_feature = "crt-static"))]
pub use reader::Reader;
pub use sampler::Sampler;
#[cfg(target_feature = "crt-static")]
pub use without::Reader;

/// One GPU at one moment. A figure that the card or the driver does not give is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Its identity, `GPU-...`: the same in every container, unlike its number.
    pub uuid: String,
    /// Its number in this process's view, from 0.
    pub index: u32,
    /// `NVIDIA H200`, ...
    pub name: String,
    /// Version of the driver.
    pub driver: String,
    /// Share of the last sample period in which a kernel ran, percent.
    pub utilization_percent: Option<u32>,
    /// Share of it in which memory was read or written, percent.
    pub memory_utilization_percent: Option<u32>,
    /// Memory in use by all processes, bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory that processes can have, bytes.
    pub memory_total_bytes: Option<u64>,
    /// Temperature of the chip, degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power draw, milliwatts.
    pub power_milliwatts: Option<u32>,
    /// The limit on it that is in force, milliwatts.
    pub power_limit_milliwatts: Option<u32>,
    /// Energy since the driver was loaded, millijoules.
    pub energy_millijoules: Option<u64>,
    /// Why the clocks are lower than they could be: `nvmlClocksEventReason` bits; 0 = they are not.
    pub throttle_reasons: Option<u64>,
    /// ECC errors that were corrected, since the driver was loaded.
    pub ecc_corrected_total: Option<u64>,
    /// ECC errors that were not.
    pub ecc_uncorrected_total: Option<u64>,
    /// Memory of the process that was asked for, bytes. `None` when the driver does not list it:
    /// within a PID namespace of its own a process is listed under a number that it does not know.
    pub process_memory_bytes: Option<u64>,
}
