//! Runs jobs: finds out what kind a claimed job is, and has an attempt made at it.
//!
//! It must not know HTTP, or how jobs are claimed and retried.

use aisemble_jobs::{ClaimedJob, Executor, JobContext, JobFailure, JobFuture};

use crate::capability::Capability;
use crate::work::{Attempt, Bench, Kind};

/// Runs the jobs of every capability.
#[derive(Debug)]
pub struct DispatchExecutor {
    bench: Bench,
}

impl DispatchExecutor {
    /// An executor whose attempts have `bench`.
    #[must_use]
    pub fn new(bench: Bench) -> Self {
        Self { bench }
    }
}

impl Executor for DispatchExecutor {
    fn free(&self, capability: &str) -> usize {
        Capability::parse(capability).map_or(0, |capability| self.bench.dispatch.free(capability))
    }

    fn execute(&self, job: ClaimedJob, context: JobContext) -> JobFuture<'_> {
        match Kind::named(&job.kind) {
            Ok(kind) => kind.run(Attempt::new(self.bench.clone(), &job, context), job),
            Err(unknown) => Box::pin(std::future::ready(Err::<_, JobFailure>(unknown))),
        }
    }
}
