//! Why a file was not converted.

/// A weight file that cannot be taken. Nothing of it was run, and nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Something is larger than a weight file needs.
    #[error("{what}: {limit} at most")]
    Limit {
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The file ends in the middle.
    #[error("the file ends inside {what}, at byte {at}")]
    Ends {
        /// What was being read.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The pickle wants something that no weight file needs.
    #[error(
        "the pickle names {name}, which no weight file needs: it was not looked up and not run"
    )]
    Forbidden {
        /// `module.name`.
        name: String,
    },
    /// The pickle has an instruction that no weight file needs.
    #[error("the pickle has the instruction {byte:#04x} at byte {at}, which no weight file needs")]
    Instruction {
        /// The instruction.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// The file is not what its format says.
    #[error("{what}, at byte {at}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The file is of another kind.
    #[error("the file is not {wanted}: {why}")]
    Kind {
        /// What was expected.
        wanted: &'static str,
        /// What speaks against it.
        why: &'static str,
    },
    /// The archive cannot be read.
    #[error("the archive cannot be read")]
    Archive {
        /// Why.
        #[source]
        source: zip::result::ZipError,
    },
    /// An entry of the archive cannot be read.
    #[error("the archive's entry {entry:?} cannot be read")]
    Entry {
        /// Which.
        entry: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// One tensor is not as it should be.
    #[error("tensor {name:?}: {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// There are no weights in the file.
    #[error("there are no weights in the file")]
    Empty,
}

impl ConvertError {
    pub(crate) fn tensor(name: &str, why: &'static str) -> Self {
        let mut name = name.to_owned();
        while name.len() > 100 {
            name.pop();
        }
        Self::Tensor { name, why }
    }
}
