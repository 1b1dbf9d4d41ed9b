//! Fuzzing of everything that reads what outsiders wrote: the targets, and a driver that mutates
//! real inputs for as long as it is told. It needs no other toolchain than the project's: coverage
//! counters are used where the build has them (scripts/fuzz.sh), else what a target answered.

pub mod coverage;
pub mod driver;
pub mod mutate;
pub mod seeds;
pub mod targets;
