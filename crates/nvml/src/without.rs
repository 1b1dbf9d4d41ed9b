//! The reader of a static program: there is none, and asking for it says why.

use std::convert::Infallible;
use std::ffi::OsStr;

use crate::{Absent, Gpu};

/// Reads GPUs; cannot exist in a static program.
#[derive(Debug)]
pub struct Reader {
    never: Infallible,
}

impl Reader {
    /// Always [`Absent::StaticProgram`].
    ///
    /// # Errors
    /// See above.
    pub fn open() -> Result<Self, Absent> {
        Err(Absent::StaticProgram)
    }

    /// Always [`Absent::StaticProgram`].
    ///
    /// # Errors
    /// See above.
    pub fn open_library(_library: &OsStr) -> Result<Self, Absent> {
        Err(Absent::StaticProgram)
    }

    /// Cannot be called: there is no reader.
    ///
    /// # Errors
    /// Never.
    pub fn gpus(&self, _pid: u32) -> Result<Vec<Gpu>, Absent> {
        match self.never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_says_that_it_is_one() {
        let absent = Reader::open().unwrap_err();
        assert!(absent.is_plain());
        assert!(absent.to_string().contains("static"), "{absent}");
    }
}
