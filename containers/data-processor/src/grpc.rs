//! The gRPC service: a request is checked here, field by field, before any of it goes to a process.
//! It must not know processes or polars.

use std::time::Instant;

use aisemble_protocol::data::{Operation, ReadOptions, TableFormat, limits as data};
use aisemble_protocol::v1::process_request::Plan;
use aisemble_protocol::v1::table::Source;
use aisemble_protocol::{ApiError, ErrorCode, limits, v1};
use aisemble_service::{Ready, deadline};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::host::{Event, Query};
use crate::service::DataService;
use crate::worker::{Order, Origin, PlanOrder, TableOrder};

/// Events that may wait for a slow reader.
const EVENTS_MAX: usize = 16;

/// The `Data` service.
#[derive(Debug, Clone)]
pub struct DataApi {
    ready: Ready<DataService>,
}

impl DataApi {
    /// A server of it; it answers `unavailable` until `ready` is.
    #[must_use]
    pub fn server(ready: Ready<DataService>) -> v1::data_server::DataServer<Self> {
        v1::data_server::DataServer::new(Self { ready })
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl v1::data_server::Data for DataApi {
    type ProcessStream = BoxStream<'static, Result<v1::ProcessEvent, Status>>;

    async fn process(
        &self,
        request: Request<v1::ProcessRequest>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let host = self.ready.get()?.host();
        let deadline = deadline(request.metadata());
        let query = query(request.into_inner(), deadline)?;
        let inside = host.enter()?;
        let (to, events) = tokio::sync::mpsc::channel(EVENTS_MAX);
        host.start(inside, query, to);
        let events = ReceiverStream::new(events).map(|event| {
            let event = match event? {
                Event::Progress(progress) => v1::process_event::Event::Progress(progress),
                Event::Outcome(outcome) => v1::process_event::Event::Outcome(*outcome),
            };
            Ok(v1::ProcessEvent { event: Some(event) })
        });
        Ok(Response::new(events.boxed()))
    }
}

/// Checks a request.
fn query(request: v1::ProcessRequest, deadline: Option<Instant>) -> Result<Query, ApiError> {
    let given = request.tables.len();
    if given == 0 || given > data::TABLES_MAX {
        let limit = data::TABLES_MAX;
        let message = format!("{given} tables are given; between 1 and {limit} are taken");
        return Err(ApiError::invalid("tables", message));
    }
    let (mut tables, mut inline, mut blobs) = (Vec::with_capacity(given), Vec::new(), Vec::new());
    for (at, table) in request.tables.into_iter().enumerate() {
        let param = format!("tables[{at}]");
        let invalid = |what: &str| ApiError::invalid(&param, format!("{param}.{what}"));
        if table.name.is_empty() || table.name.len() > data::TABLE_NAME_BYTES_MAX {
            return Err(invalid("name is empty or too long"));
        }
        let format = TableFormat::parse(&table.format)
            .ok_or_else(|| invalid("format is not csv, json, ndjson, parquet or arrow"))?;
        let options: ReadOptions = match table.options_json.as_str() {
            "" => ReadOptions::default(),
            text => serde_json::from_str(text)
                .map_err(|error| invalid(&format!("options_json: {error}")))?,
        };
        let origin = match table.source {
            Some(Source::Inline(bytes)) => {
                let origin = Origin::Inline { bytes: bytes.len() };
                inline.push(bytes);
                origin
            }
            Some(Source::Blob(sha256)) => {
                blobs.push((at, sha256));
                Origin::File { path: std::path::PathBuf::new() }
            }
            None => return Err(invalid("source is required")),
        };
        tables.push(TableOrder { name: table.name, format, options, origin });
    }
    let output_format = match request.output_format.as_str() {
        "" => None,
        text => Some(TableFormat::parse(text).ok_or_else(|| {
            let message = "output_format is not parquet, csv, ndjson, arrow or json";
            ApiError::invalid("output.format", message)
        })?),
    };
    let order = Order {
        tables,
        plan: plan(request.plan, request.pipeline_from, given)?,
        output_format,
        output_folder: None,
        output_bytes_max: 0,
        preview_rows: request.preview_rows_max.min(data::PREVIEW_ROWS_MAX) as usize,
        profile: request.profile,
        threads: 1,
    };
    let limits = request.limits.unwrap_or_default();
    Ok(Query { order, inline, blobs, limits, deadline })
}

fn plan(plan: Option<Plan>, from: String, tables: usize) -> Result<PlanOrder, ApiError> {
    match plan {
        None if tables > 1 => {
            Err(ApiError::invalid("sql", "sql or pipeline is required with more than one table"))
        }
        None => Ok(PlanOrder::AsItIs),
        Some(Plan::Sql(sql)) if sql.len() > data::SQL_BYTES_MAX => {
            let (bytes, limit) = (sql.len(), data::SQL_BYTES_MAX);
            let message = format!("sql has {bytes} bytes; the limit is {limit}");
            Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param("sql"))
        }
        Some(Plan::Sql(sql)) => Ok(PlanOrder::Sql(sql)),
        Some(Plan::PipelineJson(json)) => {
            let operations: Vec<Operation> = serde_json::from_str(&json).map_err(|error| {
                ApiError::invalid("pipeline", format!("pipeline is not understood: {error}"))
            })?;
            let (given, limit) = (operations.len(), data::OPERATIONS_MAX);
            if given > limit {
                let message = format!("{given} operations are given; the limit is {limit}");
                return Err(ApiError::invalid("pipeline", message));
            }
            Ok(PlanOrder::Pipeline { from, operations })
        }
    }
}
