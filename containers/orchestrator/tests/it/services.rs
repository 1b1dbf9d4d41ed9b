//! Services of the other capabilities in this process: real gRPC on real sockets, with simple
//! answers. What a text says decides how a service behaves: `hold` waits for leave, `die` breaks
//! the first call off after its first part.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aisemble_protocol::data::{OutputView, ProcessResult, TableFormat};
use aisemble_protocol::v1;
use aisemble_protocol::v1::data_server::{Data, DataServer};
use aisemble_protocol::v1::model_server::{Model, ModelServer};
use aisemble_protocol::v1::nlp_request::Task;
use aisemble_protocol::v1::nlp_server::{Nlp, NlpServer};
use aisemble_protocol::v1::vision_server::{Vision, VisionServer};
use aisemble_protocol::{ApiError, ErrorCode};
use futures_util::Stream;
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

const SHA256: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Steps that a query that holds tells of.
pub(crate) const STEPS: usize = 20_000;

/// A running service.
#[derive(Debug)]
pub(crate) struct Peer {
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// Name and tasks of each model.
    models: Vec<(&'static str, Vec<&'static str>)>,
    service: &'static str,
    leave: Semaphore,
    calls: AtomicU64,
    deaths: AtomicU32,
    cancelled: Notify,
    traces: std::sync::Mutex<Vec<String>>,
}

impl Peer {
    fn state(service: &'static str, models: &[(&'static str, &[&'static str])]) -> Arc<State> {
        Arc::new(State {
            models: models.iter().map(|(name, tasks)| (*name, tasks.to_vec())).collect(),
            service,
            leave: Semaphore::new(0),
            calls: AtomicU64::new(0),
            deaths: AtomicU32::new(0),
            cancelled: Notify::new(),
            traces: std::sync::Mutex::default(),
        })
    }

    /// An nlp service with three models.
    pub(crate) async fn nlp(path: &Path) -> Self {
        let models: [(_, &[_]); 3] = [
            ("mini", &["embed", "classify"]),
            ("splade", &["embed_sparse", "rerank"]),
            ("tagger", &["entities"]),
        ];
        let state = Self::state("nlp", &models);
        let service = NlpServer::new(Service(Arc::clone(&state)));
        Self::serve(path, state, |routes| routes.add_service(service)).await
    }

    /// A vision service with two models.
    pub(crate) async fn vision(path: &Path) -> Self {
        let models: [(_, &[_]); 2] = [("eyes", &["classify", "embed"]), ("faces", &["faces"])];
        let state = Self::state("vision", &models);
        let service = VisionServer::new(Service(Arc::clone(&state)))
            .max_decoding_message_size(aisemble_protocol::vision::GRPC_MESSAGE_BYTES_MAX);
        Self::serve(path, state, |routes| routes.add_service(service)).await
    }

    /// A data processor.
    pub(crate) async fn data(path: &Path) -> Self {
        let state = Self::state("data-processor", &[("polars", &["process"])]);
        let service = DataServer::new(Service(Arc::clone(&state)));
        Self::serve(path, state, |routes| routes.add_service(service)).await
    }

    async fn serve(
        path: &Path,
        state: Arc<State>,
        add: impl FnOnce(tonic::transport::server::Router) -> tonic::transport::server::Router,
    ) -> Self {
        let (_, health) = tonic_health::server::health_reporter();
        let routes = tonic::transport::Server::builder()
            .add_service(health)
            .add_service(ModelServer::new(Service(Arc::clone(&state))));
        let routes = add(routes);
        let listener = UnixListener::bind(path).unwrap();
        let server = tokio::spawn(async move {
            routes.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { state, server }
    }

    /// Gives leave for so many parts of calls that hold.
    pub(crate) fn let_go(&self, parts: usize) {
        self.state.leave.add_permits(parts);
    }

    /// Resolves when a caller has gone away in the middle.
    pub(crate) async fn cancelled(&self) {
        self.state.cancelled.notified().await;
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// `traceparent` of each call.
    pub(crate) fn traces(&self) -> Vec<String> {
        self.state.traces.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<State>);

type Events<E> = Pin<Box<dyn Stream<Item = Result<E, Status>> + Send>>;

impl Service {
    fn called<R>(&self, request: Request<R>) -> R {
        let trace = request.metadata().get("traceparent").unwrap().to_str().unwrap().to_owned();
        self.0.traces.lock().unwrap().push(trace);
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        request.into_inner()
    }

    /// Sends the parts one by one, as `mood` says, then the end.
    fn answer<E: Send + 'static>(
        &self,
        mood: &str,
        parts: Vec<E>,
        end: Vec<E>,
    ) -> Response<Events<E>> {
        let (sender, receiver) = mpsc::channel(1);
        let state = Arc::clone(&self.0);
        let (holds, dies) = (mood.contains("hold"), mood.contains("die"));
        let dies = dies && state.deaths.fetch_add(1, Ordering::Relaxed) == 0;
        tokio::spawn(async move {
            let sent = async {
                for (number, part) in parts.into_iter().enumerate() {
                    if holds {
                        tokio::select! {
                            permit = state.leave.acquire() => permit.unwrap().forget(),
                            () = sender.closed() => return None,
                        }
                    }
                    sender.send(Ok(part)).await.ok()?;
                    if dies && number == 0 {
                        let broken = Status::unknown("error reading a body from connection");
                        return sender.send(Err(broken)).await.ok();
                    }
                }
                for event in end {
                    sender.send(Ok(event)).await.ok()?;
                }
                Some(())
            };
            if sent.await.is_none() {
                state.cancelled.notify_one();
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// The vector of a text: its length, and 1.
pub(crate) fn vector(length: usize) -> Vec<f32> {
    vec![f32::from(u16::try_from(length).unwrap()), 1.0]
}

fn result(task: &Task, index: usize, text: &str) -> v1::TextResult {
    use v1::text_result::Result;
    let length = text.chars().count();
    let label = |label: &str| v1::Label { label: label.to_owned(), score: 0.75 };
    let entity = || v1::Entity {
        label: "WORD".to_owned(),
        text: text.to_owned(),
        end: u32::try_from(length).unwrap(),
        score: 0.5,
        ..v1::Entity::default()
    };
    let result = match task {
        Task::Embed(embed) if embed.sparse => {
            Result::Sparse(v1::Sparse { ids: vec![7], weights: vec![0.5] })
        }
        Task::Embed(_) => Result::Dense(v1::Dense { values: vector(length) }),
        Task::Rerank(_) => Result::Relevance(f32::from(u16::try_from(length).unwrap())),
        Task::Classify(_) => Result::Labels(v1::Labels { labels: vec![label("good")] }),
        Task::Entities(_) => Result::Entities(v1::Entities { entities: vec![entity()] }),
        Task::Redact(_) => {
            let span = v1::RedactedSpan {
                label: "WORD".to_owned(),
                source: "rule".to_owned(),
                end: 3,
                redacted_end: 6,
                score: 1.0,
                ..v1::RedactedSpan::default()
            };
            let text = text.replace("two", "[WORD]");
            Result::Redacted(v1::Redacted { text, spans: vec![span] })
        }
    };
    let index = u32::try_from(index).unwrap();
    v1::TextResult { index, tokens: 3, windows: 1, result: Some(result) }
}

#[tonic::async_trait]
impl Nlp for Service {
    type RunStream = Events<v1::NlpEvent>;

    async fn run(
        &self,
        request: Request<v1::NlpRequest>,
    ) -> Result<Response<Self::RunStream>, Status> {
        use v1::nlp_event::Event;
        let request = self.called(request);
        let task = request.task.unwrap();
        let texts = match &task {
            Task::Embed(embed) if !embed.tokens.is_empty() => {
                embed.tokens.iter().map(|list| "t".repeat(list.ids.len())).collect()
            }
            Task::Embed(embed) => embed.texts.clone(),
            Task::Rerank(rerank) => rerank.documents.clone(),
            Task::Classify(classify) => classify.texts.clone(),
            Task::Entities(entities) => entities.texts.clone(),
            Task::Redact(redact) => redact.texts.clone(),
        };
        if let Task::Embed(embed) = &task
            && embed.dimensions > 2
        {
            let message = format!("dimensions is {}; the model has 2", embed.dimensions);
            return Err(ApiError::invalid("dimensions", message).into());
        }
        let mood = texts.join(" ");
        let event = |event| v1::NlpEvent { event: Some(event) };
        let count = u32::try_from(texts.len()).unwrap();
        let tokens = 3 * count;
        let (model, sha256) = (request.model, SHA256.to_owned());
        let started = v1::NlpStarted { model, sha256, texts: count, tokens, windows: count };
        let part = |(index, text): (usize, &String)| {
            event(Event::Part(v1::NlpPart { results: vec![result(&task, index, text)] }))
        };
        let mut parts = vec![event(Event::Started(started))];
        parts.extend(texts.iter().enumerate().map(part));
        let finished = v1::NlpFinished { tokens, batches: 1, ..v1::NlpFinished::default() };
        Ok(self.answer(&mood, parts, vec![event(Event::Finished(finished))]))
    }
}

#[tonic::async_trait]
impl Vision for Service {
    type AnalyzeStream = Events<v1::AnalyzeEvent>;

    async fn analyze(
        &self,
        request: Request<v1::AnalyzeRequest>,
    ) -> Result<Response<Self::AnalyzeStream>, Status> {
        use v1::analyze_event::Event;
        let request = self.called(request);
        if let Some(at) = request.images.iter().position(|image| image.starts_with(b"broken")) {
            let param = format!("images[{at}]");
            return Err(ApiError::invalid(&param, format!("{param} is no picture")).into());
        }
        let event = |event| v1::AnalyzeEvent { event: Some(event) };
        let label = |image: &Vec<u8>| v1::ImageLabel {
            label: String::from_utf8_lossy(image).into_owned(),
            score: 0.9,
            class: Some(3),
        };
        let part = |(index, image): (usize, &Vec<u8>)| {
            event(Event::Result(v1::ImageResult {
                index: u32::try_from(index).unwrap(),
                width: 4,
                height: 3,
                format: "png".to_owned(),
                classify: Some(v1::ImageLabels { labels: vec![label(image)] }),
                ..v1::ImageResult::default()
            }))
        };
        let parts = request.images.iter().enumerate().map(part).collect();
        let mood: String =
            request.images.iter().map(|image| String::from_utf8_lossy(image)).collect();
        let finished = v1::AnalyzeFinished::default();
        Ok(self.answer(&mood, parts, vec![event(Event::Finished(finished))]))
    }
}

#[tonic::async_trait]
impl Data for Service {
    type ProcessStream = Events<v1::ProcessEvent>;

    async fn process(
        &self,
        request: Request<v1::ProcessRequest>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        use v1::process_event::Event;
        use v1::process_request::Plan;
        let request = self.called(request);
        let sql = match request.plan {
            Some(Plan::Sql(sql)) => sql,
            Some(Plan::PipelineJson(_)) | None => String::new(),
        };
        if sql.contains("nonsense") {
            let message = "sql: no column is called nonsense";
            return Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("sql").into());
        }
        let event = |event| v1::ProcessEvent { event: Some(event) };
        let progress = |rows_read| {
            let phase = "computing".to_owned();
            event(Event::Progress(v1::Progress { phase, rows_read, ..v1::Progress::default() }))
        };
        let mut result = ProcessResult { rows: 2, ..ProcessResult::default() };
        let mut output = None;
        if let Some(format) = TableFormat::parse(&request.output_format) {
            let name = format!("output.{}", format.as_str());
            let (bytes, sha256) = (8, SHA256.to_owned());
            output = Some(v1::OutputFile { path: "here/output".into(), bytes, sha256 });
            let sha256 = SHA256.to_owned();
            result.output = Some(OutputView { file: None, name, format, bytes, sha256 });
        }
        let result_json = serde_json::to_string(&result).unwrap();
        let outcome = event(Event::Outcome(v1::Outcome { result_json, output }));
        let steps = if sql.contains("hold") { STEPS } else { 2 };
        let parts = (1..=u64::try_from(steps).unwrap()).map(progress).collect();
        Ok(self.answer(&sql, parts, vec![outcome]))
    }
}

#[tonic::async_trait]
impl Model for Service {
    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let limits = v1::Limits { queue_depth_max: 4, batch_rows_max: 4, ..v1::Limits::default() };
        let model = |(name, tasks): &(&str, Vec<&str>)| v1::ModelInfo {
            name: (*name).to_owned(),
            family: "bert".to_owned(),
            sha256: SHA256.to_owned(),
            license: "Apache-2.0".to_owned(),
            device: "cpu".to_owned(),
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
            labels: vec!["good".to_owned()],
            limits: Some(limits),
            ..v1::ModelInfo::default()
        };
        Ok(Response::new(v1::DescribeResponse {
            service: self.0.service.to_owned(),
            models: self.0.models.iter().map(model).collect(),
            load_ms: 3_000,
            ..v1::DescribeResponse::default()
        }))
    }

    async fn stats(
        &self,
        _: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let requests_total = self.calls_so_far();
        let queue_depth_max = 4;
        let stats = v1::StatsResponse { requests_total, queue_depth_max, ..Default::default() };
        Ok(Response::new(stats))
    }

    async fn self_check(
        &self,
        _: Request<v1::SelfCheckRequest>,
    ) -> Result<Response<v1::SelfCheckResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

impl Service {
    fn calls_so_far(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }
}
