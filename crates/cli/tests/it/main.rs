//! The command from outside, with real processes: a home of its own for each test, and this test
//! program in the services' place where their own work does not matter.

#[cfg(test)]
mod models;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod supervise;
#[cfg(test)]
mod up;
