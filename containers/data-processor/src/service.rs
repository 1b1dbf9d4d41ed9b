//! The service as the skeleton runs it: the fork server while there is one thread, a warm-up query
//! whose answer is checked, and what the service says of itself.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aisemble_protocol::data::{ProcessResult, ReadOptions, TableFormat};
use aisemble_protocol::v1;
use aisemble_service::{LoadProgress, Paths, Ready, Service, StartError};
use tonic::service::RoutesBuilder;

use crate::config::DataConfig;
use crate::fork::{self, Forks};
use crate::grpc::DataApi;
use crate::host::{Event, Host, Query};
use crate::output;
use crate::worker::{self, Order, Origin, PlanOrder, TableOrder};

/// The fork server between [`Service::prepare`] and [`Service::load`]: a fact about the process.
static FORK_SERVER: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// What is computed before the service is ready, and what must come out.
const WARM_UP: (&str, &str) = (
    "SELECT name, SUM(amount) AS total FROM warm_up GROUP BY name ORDER BY total DESC",
    r#"[{"name":"b","total":5},{"name":"a","total":4}]"#,
);
/// How long the warm-up may take.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Files that this process and its children make are for the group too: the orchestrator takes
/// them over.
const UMASK: libc::mode_t = 0o007;

/// One data processor.
#[derive(Debug)]
pub struct DataService {
    host: Arc<Host>,
}

impl DataService {
    /// The processor as handlers see it.
    #[must_use]
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }
}

fn paths(config: &DataConfig) -> Paths {
    Paths {
        read: vec![config.files.blobs.clone()],
        read_write: vec![config.files.exchange.clone()],
        ..Paths::default()
    }
}

impl Service for DataService {
    const NAME: &'static str = "data-processor";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = DataConfig;

    fn paths(config: &DataConfig) -> Paths {
        paths(config)
    }

    fn prepare(config: &DataConfig) -> Result<(), StartError> {
        #[expect(unsafe_code, reason = "std sets no umask")]
        // SAFETY: takes an integer; there is one thread.
        unsafe {
            libc::umask(UMASK);
        }
        let socket = fork::start(worker::run, &paths(config)).map_err(|source| {
            StartError::failed("the fork server cannot be made").with_source(source)
        })?;
        *FORK_SERVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        Ok(())
    }

    fn load(config: &DataConfig, progress: &LoadProgress) -> Result<Self, StartError> {
        let failed = |sentence: &'static str| {
            move |source: std::io::Error| StartError::failed(sentence).with_source(source)
        };
        let socket = FORK_SERVER.lock().unwrap_or_else(PoisonError::into_inner).take();
        let socket = socket.ok_or_else(|| StartError::failed("there is no fork server"))?;
        let forks = Forks::connect(socket).map_err(failed("the fork server cannot be reached"))?;
        let left = output::remove_left(&config.files.exchange)
            .map_err(failed("the folder for outputs cannot be read"))?;
        if left > 0 {
            tracing::info!(outputs.left = left, "removed outputs that nobody took");
        }
        progress.report("warm-up", 0, 1);
        let host = Host::new(config.clone(), forks);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("the warm-up cannot run"))?;
        runtime.block_on(async {
            tokio::time::timeout(WARM_UP_TIMEOUT, warm_up(&host))
                .await
                .map_err(|_elapsed| StartError::failed("the warm-up query does not end"))?
        })?;
        progress.report("warm-up", 1, 1);
        Ok(Self { host })
    }

    fn routes(ready: Ready<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(DataApi::server(ready));
    }

    fn describe(&self) -> v1::DescribeResponse {
        let workers = &self.host.config().workers;
        let limits = v1::Limits {
            queue_depth_max: workers.queue_depth_max as u32,
            batch_rows_max: workers.running_max as u32,
            ..v1::Limits::default()
        };
        let info = v1::ModelInfo {
            name: "polars".to_owned(),
            family: "dataframe".to_owned(),
            device: "cpu".to_owned(),
            license: "MIT".to_owned(),
            tasks: vec!["process".to_owned()],
            limits: Some(limits),
            ..v1::ModelInfo::default()
        };
        v1::DescribeResponse { models: vec![info], ..v1::DescribeResponse::default() }
    }

    fn stats(&self) -> v1::StatsResponse {
        let figures = self.host.figures();
        v1::StatsResponse {
            requests_running: figures.running as u32,
            requests_queued: figures.waiting as u32,
            queue_depth_max: self.host.config().workers.queue_depth_max as u32,
            requests_total: figures.total,
            requests_cancelled_total: figures.cancelled,
            ..v1::StatsResponse::default()
        }
    }

    async fn drain(&self) {
        self.host.idle().await;
    }
}

/// Runs a query through a worker, as every query will, and checks its answer.
async fn warm_up(host: &Arc<Host>) -> Result<(), StartError> {
    let wrong = |what: String| {
        StartError::failed("the data processor computes nonsense on this machine")
            .with_source(std::io::Error::other(what))
    };
    let csv = b"name,amount\na,1\nb,5\na,3\n".to_vec();
    let table = TableOrder {
        name: "warm_up".to_owned(),
        format: TableFormat::Csv,
        options: ReadOptions::default(),
        origin: Origin::Inline { bytes: csv.len() },
    };
    let order = Order {
        tables: vec![table],
        plan: PlanOrder::Sql(WARM_UP.0.to_owned()),
        output_format: None,
        output_folder: None,
        output_bytes_max: 0,
        preview_rows: 10,
        profile: false,
        threads: 1,
    };
    let limits = v1::ProcessLimits::default();
    let query = Query { order, inline: vec![csv], blobs: Vec::new(), limits, deadline: None };
    let inside = host.enter().map_err(|error| wrong(error.message))?;
    let (to, mut events) = tokio::sync::mpsc::channel(16);
    host.start(inside, query, to);
    while let Some(event) = events.recv().await {
        match event.map_err(|error| wrong(error.message))? {
            Event::Progress(_) => {}
            Event::Outcome(outcome) => {
                let result: ProcessResult = serde_json::from_str(&outcome.result_json)
                    .map_err(|error| wrong(error.to_string()))?;
                let found = serde_json::to_string(&result.preview)
                    .map_err(|error| wrong(error.to_string()))?;
                if found == WARM_UP.1 {
                    return Ok(());
                }
                return Err(wrong(format!("{found} instead of {}", WARM_UP.1)));
            }
        }
    }
    Err(wrong("no answer".to_owned()))
}
