//! The sandbox as a process meets it: each test runs the probe binary, or an example service, in
//! a child of its own and looks at what comes back.
//!
//! The modules are `cfg(test)` so that clippy takes all of them for tests, not the functions only.

#[cfg(test)]
mod endings;
#[cfg(test)]
mod files;
#[cfg(test)]
mod kernels;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod services;
#[cfg(test)]
mod starts;
