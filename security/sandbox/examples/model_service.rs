//! A service of the shape of `ai-semble-llm`, for the tests of the sandbox: tokio with several
//! threads, gRPC on a Unix socket, a mapped model file, a thread pool of its own, JSON logs, a
//! handler that panics, SIGTERM. Usage: `model_service SOCKET_DIRECTORY MODEL_FILE`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread;

use aisemble_sandbox::{Confined, Paths, Policy, confine, self_check};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error.cause = %error, "the example failed");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Failure> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (directory, model) = arguments.next().zip(arguments.next()).ok_or("two paths, please")?;
    let paths =
        Paths { read: vec![model.clone()], sockets: vec![directory.clone()], ..Paths::default() };
    let confined = confine(&Policy::named("llm")?, &paths)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build()?;
    runtime.block_on(live(&directory.join("llm.sock"), &model, confined))
}

async fn live(socket: &Path, model: &Path, confined: Confined) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = UnixListenerStream::new(UnixListener::bind(socket)?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let stopped = async { _ = stopped.await };
        Server::builder().add_service(health).serve_with_incoming_shutdown(listener, stopped).await
    });
    let weights = Arc::new(map(model)?);
    let before = sum_on_threads(&weights);

    let report = confined.lock_down()?;
    tracing::info!(sandbox.policy = report.policy, "locked down");
    // Threads, memory, files and panics, now that it counts.
    let after = sum_on_threads(&weights);
    let again = {
        let model = model.to_owned();
        tokio::task::spawn_blocking(move || std::fs::File::open(model).map(drop)).await?
    };
    let large = vec![1_u8; 64 * 1024 * 1024];
    let panicked = tokio::spawn(async { deliberate_panic() }).await.is_err();
    let wrong: Vec<_> = self_check().into_iter().filter(|check| !check.passed).collect();
    let parallelism = thread::available_parallelism()?.get();
    tracing::info!(
        same_sum = before == after,
        opened_again = again.is_ok(),
        allocated = large.iter().map(|&byte| usize::from(byte)).sum::<usize>(),
        panicked,
        wrong = ?wrong,
        parallelism,
        "tried"
    );
    reporter.set_service_status("", ServingStatus::Serving).await;
    tracing::info!("serving");

    _ = terminate.recv().await;
    // A closed channel stops it too.
    _ = stop.send(());
    server.await??;
    std::fs::remove_file(socket)?;
    tracing::info!("ended in order");
    Ok(())
}

#[expect(clippy::panic, reason = "the service must outlive it")]
fn deliberate_panic() {
    panic!("a deliberate panic");
}

fn map(model: &Path) -> Result<memmap2::Mmap, Failure> {
    let file = std::fs::File::open(model)?;
    #[expect(unsafe_code, reason = "mapping a file is unsafe in memmap2")]
    // SAFETY: the test does not change the file while this process lives.
    Ok(unsafe { memmap2::Mmap::map(&file) }?)
}

/// Sums the weights on four new threads that run at the same time.
fn sum_on_threads(weights: &Arc<memmap2::Mmap>) -> u64 {
    const THREADS: usize = 4;
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|index| {
            let (weights, barrier) = (Arc::clone(weights), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                weights
                    .iter()
                    .skip(index)
                    .step_by(THREADS)
                    .map(|&byte| u64::from(byte))
                    .sum::<u64>()
            })
        })
        .collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
}
