//! `engine.device` of a service whose computing has no GPU code: the key is there, as in every
//! service with a model, and says plainly what it can be.

use serde::{Deserialize, Serialize};

/// `auto` or `cpu`: both are the CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CpuOnly {
    /// Whatever is best, which is the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
}

impl CpuOnly {
    /// Why it is the CPU, for Describe.
    #[must_use]
    pub fn note(self) -> &'static str {
        match self {
            Self::Auto => "auto: this service computes on the CPU only",
            Self::Cpu => "",
        }
    }
}

/// Another device was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is {found:?}; this service computes on the CPU only in this version, so it must be auto or \
     cpu (the llm service has a GPU build: scripts/build-cuda.sh)"
)]
pub struct NotTheCpu {
    found: String,
}

impl TryFrom<String> for CpuOnly {
    type Error = NotTheCpu;

    fn try_from(found: String) -> Result<Self, NotTheCpu> {
        match found.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => Err(NotTheCpu { found }),
        }
    }
}

impl From<CpuOnly> for String {
    fn from(device: CpuOnly) -> Self {
        match device {
            CpuOnly::Auto => "auto".to_owned(),
            CpuOnly::Cpu => "cpu".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_refused_with_where_there_is_one() {
        assert_eq!(CpuOnly::try_from("cpu".to_owned()), Ok(CpuOnly::Cpu));
        assert_eq!(CpuOnly::try_from(String::from(CpuOnly::Auto)), Ok(CpuOnly::Auto));
        let refused = CpuOnly::try_from("cuda:0".to_owned()).unwrap_err().to_string();
        assert!(refused.contains("scripts/build-cuda.sh"), "{refused}");
        assert!(CpuOnly::default().note().starts_with("auto: "));
    }
}
