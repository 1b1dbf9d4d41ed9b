//! `aisemble.v1.Model`: what every service answers of itself.

use std::sync::Arc;
use std::time::Instant;

use aisemble_protocol::{ApiError, ErrorCode, v1};
use aisemble_sandbox::Report;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::Process;
use crate::{Ready, Service};

pub(super) struct ModelService<S> {
    ready: Ready<S>,
    process: Arc<Process>,
    /// One self-check at a time: each tries dozens of system calls.
    self_check: Semaphore,
}

impl<S: Service> ModelService<S> {
    pub(super) fn new(ready: Ready<S>, process: Arc<Process>) -> Self {
        Self { ready, process, self_check: Semaphore::new(1) }
    }
}

#[tonic::async_trait]
impl<S: Service> v1::model_server::Model for ModelService<S> {
    async fn describe(
        &self,
        _request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let mut answer = self.ready.get()?.describe();
        S::NAME.clone_into(&mut answer.service);
        S::VERSION.clone_into(&mut answer.version);
        answer.pid = std::process::id();
        answer.sandbox = Some(sandbox_info(aisemble_sandbox::report()));
        answer.load_ms = self.process.load_ms.get().copied().unwrap_or(0);
        Ok(Response::new(answer))
    }

    async fn stats(
        &self,
        _request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        // While the service loads it has no figures, but the process has.
        let mut answer =
            self.ready.get().map_or_else(|_| v1::StatsResponse::default(), |it| it.stats());
        answer.uptime_ms = elapsed_ms(self.process.started_at);
        answer.resident_bytes = self.process.memory.resident_bytes();
        Ok(Response::new(answer))
    }

    async fn self_check(
        &self,
        _request: Request<v1::SelfCheckRequest>,
    ) -> Result<Response<v1::SelfCheckResponse>, Status> {
        let Ok(_permit) = self.self_check.try_acquire() else {
            let message = "a self-check runs already, one at a time is allowed";
            return Err(ApiError::new(ErrorCode::Overloaded, message)
                .with_retry_after_ms(1000)
                .into());
        };
        let checks = tokio::task::spawn_blocking(aisemble_sandbox::self_check)
            .await
            .map_err(|_| ApiError::new(ErrorCode::Internal, "the self-check failed"))?;
        let checks = checks
            .into_iter()
            .map(|check| v1::Check {
                name: check.name,
                expected: check.expected,
                observed: check.observed,
                passed: check.passed,
            })
            .collect();
        let sandbox = Some(sandbox_info(aisemble_sandbox::report()));
        Ok(Response::new(v1::SelfCheckResponse { checks, sandbox }))
    }
}

pub(crate) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn sandbox_info(report: Report) -> v1::SandboxInfo {
    v1::SandboxInfo {
        landlock_abi: report.landlock_abi,
        no_new_privs: report.no_new_privs,
        seccomp_mode: report.seccomp_mode,
        seccomp_filters: report.seccomp_filters,
        policy: report.policy,
        locked_down: report.locked_down,
    }
}
