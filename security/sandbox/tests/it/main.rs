//! The sandbox as a process meets it: each test runs the probe binary, or an example service, in
//! a child of its own and looks at what comes back.

mod endings;
mod files;
mod kernels;
mod probe;
mod rules;
mod services;
mod starts;
