//! Every metric by name: its type, labels, buckets and what it says. `docs/metrics.md` and the
//! metrics themselves are made from this one table.
//!
//! It must not know where the numbers come from.

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// As the exposition format writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, unit last.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Upper bounds of its buckets, for a histogram that is observed here.
    pub buckets: &'static [f64],
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Counter, labels, help, buckets: &[] }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help, buckets: &[] }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Histogram, labels, help, buckets }
}

/// From half a millisecond (what the orchestrator itself may cost) to five minutes.
const REQUEST_S: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];
/// As vLLM has them, so that its dashboards fit.
const FIRST_TOKEN_S: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// As vLLM has them, and finer below 10 ms, where small models are.
const INTER_TOKEN_S: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// The next four: buckets that the OpenTelemetry GenAI conventions name.
const GEN_AI_REQUEST_S: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const GEN_AI_FIRST_TOKEN_S: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const GEN_AI_OUTPUT_TOKEN_S: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const GEN_AI_TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const GEN_AI_LABELS: &[&str] = &[
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
];
const GEN_AI_ERROR_LABELS: &[&str] = &[
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "error_type",
];
const GEN_AI_TOKEN_LABELS: &[&str] = &[
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "gen_ai_token_type",
];

macro_rules! families {
    ($($name:ident = $family:expr;)*) => {
        $(pub(crate) const $name: Family = $family;)*

        /// The whole table, in the order of the documentation.
        pub const ALL: &[Family] = &[$($name),*];
    };
}

families! {
    HTTP_REQUESTS = counter("aisemble_http_requests_total", &["method", "route", "status"],
        "Requests answered.");
    HTTP_DURATION = histogram("aisemble_http_request_duration_seconds", &["method", "route"],
        &REQUEST_S, "From a request's head until its answer's; a stream's body is not counted.");
    HTTP_IN_FLIGHT = gauge("aisemble_http_requests_in_flight", &[],
        "Requests whose answer has not begun.");
    HTTP_CONNECTIONS = gauge("aisemble_http_connections", &[], "Open connections.");
    HTTP_CONNECTIONS_REFUSED = counter("aisemble_http_connections_refused_total", &[],
        "Connections refused because too many were open.");
    ERRORS = counter("aisemble_errors_total", &["code"],
        "Answers that were an error, by its code.");
    JOBS = gauge("aisemble_jobs", &["capability", "state"],
        "Jobs that have not ended, by state.");
    QUEUE_DEPTH = gauge("aisemble_queue_depth", &["capability"],
        "Jobs that wait: pending, scheduled and queued.");
    QUEUE_OLDEST = gauge("aisemble_queue_oldest_seconds", &["capability"],
        "How long the oldest queued job has been ready to run.");
    JOB_EVENTS = counter("aisemble_job_events_total", &["event"],
        "What happened to jobs: submitted, replayed, claimed, succeeded, failed, cancelled, \
         expired, retried, interrupted, rescued, stale, emitted, purged.");
    STORE_COMMIT = histogram("aisemble_store_commit_seconds", &[], &[],
        "From the start of a transaction until it was durable.");
    STORE_BATCH = histogram("aisemble_store_batch_operations", &[], &[],
        "Operations that shared a transaction.");
    STORE_WRITE_QUEUE = gauge("aisemble_store_write_queue", &[],
        "Writes that wait for the writer.");
    STORE_COMMIT_FAILURES = counter("aisemble_store_commit_failures_total", &[],
        "Transactions that failed as a whole.");
    CALLS = counter("aisemble_calls_total", &["capability", "task", "outcome"],
        "Calls to nlp, vision and data services ended: ok, or the code of the error.");
    CALL_DURATION = histogram("aisemble_call_duration_seconds", &["capability", "task"],
        &REQUEST_S, "From the call to such a service until the end of its answer.");
    GENERATIONS = counter("aisemble_generations_total", &["model", "outcome"],
        "Generations ended: stop, length, or the code of the error.");
    TOKENS = counter("aisemble_tokens_total", &["model", "type"],
        "Tokens: input (cached ones included), cached, output.");
    FIRST_TOKEN = histogram("aisemble_time_to_first_token_seconds", &["model"], &FIRST_TOKEN_S,
        "From the call to a service until its first token, queues included.");
    INTER_TOKEN = histogram("aisemble_inter_token_latency_seconds", &["model"], &INTER_TOKEN_S,
        "Between two tokens of one generation.");
    SERVICE_QUEUE = histogram("aisemble_service_queue_seconds", &["model"], &FIRST_TOKEN_S,
        "Time in the service's own queue.");
    CALLS_IN_FLIGHT = gauge("aisemble_service_calls_in_flight", &["service", "instance"],
        "Calls that the orchestrator has under way.");
    SERVICE_READY = gauge("aisemble_service_ready", &["service", "instance"],
        "1 when the instance takes work.");
    SERVICE_STATS_AGE = gauge("aisemble_service_stats_age_seconds", &["service", "instance"],
        "Age of the instance's figures below.");
    SERVICE_UPTIME = gauge("aisemble_service_uptime_seconds", &["service", "instance"],
        "Since the instance started.");
    SERVICE_LOAD = gauge("aisemble_service_load_seconds", &["service", "instance"],
        "From the start of the process until it was ready.");
    SERVICE_RUNNING = gauge("aisemble_service_requests_running", &["service", "instance"],
        "Requests in the instance's batch.");
    SERVICE_QUEUED = gauge("aisemble_service_requests_queued", &["service", "instance"],
        "Requests in the instance's queue.");
    SERVICE_REQUESTS = counter("aisemble_service_requests_total", &["service", "instance"],
        "Requests that the instance took.");
    SERVICE_CANCELLED = counter("aisemble_service_requests_cancelled_total",
        &["service", "instance"], "Requests whose caller went away or gave up.");
    SERVICE_STEPS = counter("aisemble_service_steps_total", &["service", "instance"],
        "Forward passes.");
    SERVICE_STEP_ROWS = counter("aisemble_service_step_rows_total", &["service", "instance"],
        "Rows over all forward passes: the rate of it over that of the passes is the batch size.");
    BATCH_SIZE = gauge("aisemble_batch_size", &["service", "instance"],
        "Mean rows of a forward pass between the last two looks at the instance.");
    KV_USED = gauge("aisemble_kv_tokens_used", &["service", "instance"],
        "Tokens in the KV cache.");
    KV_MAX = gauge("aisemble_kv_tokens_max", &["service", "instance"],
        "Tokens that the KV cache holds.");
    KV_CACHED = gauge("aisemble_kv_tokens_cached", &["service", "instance"],
        "Tokens of kept prefixes in blocks that no sequence uses.");
    KV_EVICTIONS = counter("aisemble_kv_evictions_total", &["service", "instance"],
        "Blocks of kept prefixes that made room.");
    PREFIX_TOKENS = counter("aisemble_prefix_tokens_reused_total", &["service", "instance"],
        "Prompt tokens that a kept prefix gave, not computed again.");
    PREEMPTIONS = counter("aisemble_preemptions_total", &["service", "instance"],
        "Running sequences that made room for others and went on later.");
    DRAFT_TOKENS = counter("aisemble_draft_tokens_total", &["service", "instance"],
        "Tokens that speculation proposed.");
    DRAFT_ACCEPTED = counter("aisemble_draft_tokens_accepted_total", &["service", "instance"],
        "Proposed tokens that turned out to be the ones.");
    SERVICE_RESIDENT = gauge("aisemble_service_resident_bytes", &["service", "instance"],
        "Resident memory of the instance.");
    MODEL_INFO = gauge("aisemble_model_info",
        &["service", "instance", "model", "family", "quantization", "sha256", "device"],
        "1 for each model that an instance hosts.");
    MODEL_MEMORY = gauge("aisemble_model_memory_planned_bytes",
        &["service", "instance", "model", "part"],
        "What a model takes of its device at most: weights, kv, workspace.");
    GPU_INFO = gauge("aisemble_gpu_info", &["gpu", "name", "driver"],
        "1 for each GPU that a service computes on; gpu is its UUID.");
    GPU_UTILIZATION = gauge("aisemble_gpu_utilization_ratio", &["gpu"],
        "Share of the driver's last sample period in which a kernel ran.");
    GPU_MEMORY_UTILIZATION = gauge("aisemble_gpu_memory_utilization_ratio", &["gpu"],
        "Share of it in which device memory was read or written.");
    GPU_MEMORY_USED = gauge("aisemble_gpu_memory_used_bytes", &["gpu"],
        "Device memory in use, by all processes.");
    GPU_MEMORY_TOTAL = gauge("aisemble_gpu_memory_total_bytes", &["gpu"],
        "Device memory that processes can have.");
    GPU_TEMPERATURE = gauge("aisemble_gpu_temperature_celsius", &["gpu"],
        "Temperature of the chip.");
    GPU_POWER = gauge("aisemble_gpu_power_watts", &["gpu"], "Power draw.");
    GPU_POWER_LIMIT = gauge("aisemble_gpu_power_limit_watts", &["gpu"],
        "The power limit in force.");
    GPU_ENERGY = counter("aisemble_gpu_energy_joules_total", &["gpu"],
        "Energy since the driver was loaded.");
    GPU_THROTTLED = gauge("aisemble_gpu_clocks_throttled", &["gpu", "reason"],
        "1 while the clocks are held down for this reason (NVML's clocks event reasons).");
    GPU_ECC = counter("aisemble_gpu_ecc_errors_total", &["gpu", "type"],
        "ECC errors since the driver was loaded: corrected, uncorrected.");
    GPU_PROCESS_MEMORY = gauge("aisemble_gpu_process_memory_bytes",
        &["service", "instance", "gpu"],
        "Device memory of the instance; absent where its process has a PID namespace of its own.");
    SANDBOX = gauge("aisemble_sandbox", &["process", "control"],
        "What confines a process: landlock_abi, no_new_privs, seccomp_mode (2 = filter), \
         seccomp_filters, locked_down. 0 = not in force.");
    BUILD_INFO = gauge("aisemble_build_info", &["version"], "1, with the version.");
    RESIDENT = gauge("process_resident_memory_bytes", &[],
        "Resident memory of the orchestrator.");
    OPEN_FDS = gauge("process_open_fds", &[], "Open files of the orchestrator.");
    START_TIME = gauge("process_start_time_seconds", &[],
        "When the orchestrator started, seconds since 1970.");
    GEN_AI_REQUEST = histogram("gen_ai_server_request_duration_seconds", GEN_AI_ERROR_LABELS,
        &GEN_AI_REQUEST_S, "OpenTelemetry gen_ai.server.request.duration.");
    GEN_AI_FIRST_TOKEN = histogram("gen_ai_server_time_to_first_token_seconds", GEN_AI_LABELS,
        &GEN_AI_FIRST_TOKEN_S, "OpenTelemetry gen_ai.server.time_to_first_token.");
    GEN_AI_OUTPUT_TOKEN = histogram("gen_ai_server_time_per_output_token_seconds", GEN_AI_LABELS,
        &GEN_AI_OUTPUT_TOKEN_S,
        "OpenTelemetry gen_ai.server.time_per_output_token: the mean of one generation after its \
         first token.");
    GEN_AI_TOKEN_USAGE = histogram("gen_ai_client_token_usage", GEN_AI_TOKEN_LABELS,
        &GEN_AI_TOKENS, "OpenTelemetry gen_ai.client.token.usage: tokens of one generation.");
}
