//! A service of the shape of `ai-semble-orchestrator`, for the tests of the sandbox: a TCP
//! listener from before the sandbox, SQLite in WAL mode, files written and renamed, connections
//! to another service's socket, SIGTERM. Usage: `job_service DATA_DIRECTORY SERVICE_SOCKET`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aisemble_sandbox::{Confined, Paths, Policy, confine, self_check};
use rusqlite::Connection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

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
    let (data, service) = arguments.next().zip(arguments.next()).ok_or("two paths, please")?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let directory = service.parent().ok_or("the socket has no directory")?.to_owned();
    let paths =
        Paths { read_write: vec![data.clone()], sockets: vec![directory], ..Paths::default() };
    let confined = confine(&Policy::named("orchestrator")?, &paths)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(live(listener, &data, &service, confined))
}

async fn live(
    listener: std::net::TcpListener,
    data: &Path,
    service: &Path,
    confined: Confined,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::from_std(listener)?;
    let jobs = store(&data.join("jobs.db"))?;
    jobs.execute("INSERT INTO job (text) VALUES ('before')", [])?;

    let report = confined.lock_down()?;
    tracing::info!(sandbox.policy = report.policy, "locked down");
    let directory = data.to_owned();
    let rows = tokio::task::spawn_blocking(move || work(&jobs, &directory)).await??;
    let wrong: Vec<_> = self_check().into_iter().filter(|check| !check.passed).collect();
    let port = listener.local_addr()?.port();
    tracing::info!(rows, wrong = ?wrong, port, "serving");

    loop {
        tokio::select! {
            accepted = listener.accept() => relay(accepted?.0, service).await?,
            _ = terminate.recv() => break,
        }
    }
    tracing::info!("ended in order");
    Ok(())
}

/// Answers a client with what the other service says.
async fn relay(mut client: tokio::net::TcpStream, service: &Path) -> Result<(), Failure> {
    client.set_nodelay(true)?;
    let mut upstream = UnixStream::connect(service).await?;
    let mut question = [0; 4];
    client.read_exact(&mut question).await?;
    upstream.write_all(&question).await?;
    let mut answer = [0; 4];
    upstream.read_exact(&mut answer).await?;
    client.write_all(&answer).await?;
    client.shutdown().await?;
    Ok(())
}

fn store(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "mmap_size", 1 << 20)?;
    connection.execute("CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, text TEXT)", [])?;
    Ok(connection)
}

/// What the store and the artifacts do over a day, all of it after lock-down.
fn work(jobs: &Connection, data: &Path) -> Result<i64, Failure> {
    let other = store(&data.join("jobs.db"))?;
    for index in 0..200 {
        let connection = if index % 2 == 0 { jobs } else { &other };
        connection.execute("INSERT INTO job (text) VALUES (?1)", ["x".repeat(5_000)])?;
    }
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    other.execute("DELETE FROM job WHERE id % 3 = 0", [])?;
    other.execute_batch("VACUUM; PRAGMA optimize;")?;
    let backup = data.join("backup.db").display().to_string();
    other.execute("VACUUM INTO ?1", [backup])?;
    let rollback = Connection::open(data.join("rollback.db"))?;
    rollback.execute_batch("PRAGMA journal_mode = DELETE; CREATE TABLE t (x); DROP TABLE t;")?;
    let rows = jobs.query_row("SELECT count(*) FROM job", [], |row| row.get(0))?;

    let artifacts = data.join("artifacts");
    std::fs::create_dir(&artifacts)?;
    let (part, whole) = (artifacts.join("result.part"), artifacts.join("result"));
    let mut file = File::create_new(&part)?;
    file.write_all(b"result")?;
    file.sync_all()?;
    std::fs::rename(&part, &whole)?;
    File::open(&artifacts)?.sync_all()?;
    if std::fs::read_dir(&artifacts)?.count() != 1 {
        return Err("the artifact is not there".into());
    }
    std::fs::remove_dir_all(&artifacts)?;
    Ok(rows)
}
