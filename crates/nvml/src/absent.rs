//! Why there are no figures of a GPU. Each reason is one plain line, because each has another
//! remedy.

/// Why no GPU can be read.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// The program is static.
    #[error(
        "this program is static and cannot load the NVIDIA driver's library; the GPU build \
         (scripts/build-cuda.sh) can"
    )]
    StaticProgram,
    /// The library is not installed.
    #[error("no NVIDIA driver library is installed ({library} is not found)")]
    NoLibrary {
        /// Its name.
        library: String,
    },
    /// The library is there and does not load.
    #[error("the NVIDIA driver library {library} does not load: {reason}")]
    Unloadable {
        /// Its name.
        library: String,
        /// What the loader says.
        reason: String,
    },
    /// The library is there and finds no GPU, or no loaded driver.
    #[error("the NVIDIA driver library is installed, but there is no GPU: {reason}")]
    NoDevice {
        /// What it said.
        reason: String,
    },
    /// The GPU is there, and this user may not open it.
    #[error("this user has no permission to open the NVIDIA devices: {reason}")]
    NoPermission {
        /// What was refused.
        reason: String,
    },
    /// The library and the kernel module are of different versions.
    #[error(
        "the NVIDIA driver library and the loaded kernel module have different versions: restart \
         the machine after a driver update"
    )]
    VersionMismatch,
    /// Anything else.
    #[error("the NVIDIA driver library fails: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
}

impl Absent {
    /// Whether this is simply a machine (or a program) without a GPU, and nothing is broken.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        match self {
            Self::StaticProgram | Self::NoLibrary { .. } => true,
            Self::Unloadable { .. }
            | Self::NoDevice { .. }
            | Self::NoPermission { .. }
            | Self::VersionMismatch
            | Self::Failed { .. } => false,
        }
    }
}
