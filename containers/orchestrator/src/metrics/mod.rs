//! What is counted, and the page that shows it. `GET /metrics` reads only what is at hand: it never
//! calls a service and never waits for one.
//!
//! It must not know HTTP or gRPC.

mod calls;
pub mod docs;
pub mod families;
mod generation;
mod gpu;
mod page;
mod process;
mod sampled;

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

pub use calls::CallMeter;
use families::Family;
pub(crate) use generation::Tokens;
pub use generation::{GenerationMeter, Operation};
pub use page::CONTENT_TYPE;
pub use process::ProcessFigures;
pub use sampled::{SampledInstance, Samples};

use aisemble_protocol::ErrorCode;

use crate::capability::Capability;

/// The counters that the orchestrator keeps.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    errors: IntCounterVec,
    /// Requests whose answer has not begun.
    pub http_in_flight: IntGauge,
    /// Open connections.
    pub http_connections: IntGauge,
    /// Connections refused.
    pub http_connections_refused: IntCounter,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    generations: IntCounterVec,
    tokens: IntCounterVec,
    first_token: HistogramVec,
    inter_token: HistogramVec,
    service_queue: HistogramVec,
    gen_ai_request: HistogramVec,
    gen_ai_first_token: HistogramVec,
    gen_ai_output_token: HistogramVec,
    gen_ai_token_usage: HistogramVec,
}

impl Metrics {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        Self {
            http_requests: counters(&registry, &families::HTTP_REQUESTS),
            http_duration: histograms(&registry, &families::HTTP_DURATION),
            errors: counters(&registry, &families::ERRORS),
            http_in_flight: gauge(&registry, &families::HTTP_IN_FLIGHT),
            http_connections: gauge(&registry, &families::HTTP_CONNECTIONS),
            http_connections_refused: counter(&registry, &families::HTTP_CONNECTIONS_REFUSED),
            calls: counters(&registry, &families::CALLS),
            call_duration: histograms(&registry, &families::CALL_DURATION),
            generations: counters(&registry, &families::GENERATIONS),
            tokens: counters(&registry, &families::TOKENS),
            first_token: histograms(&registry, &families::FIRST_TOKEN),
            inter_token: histograms(&registry, &families::INTER_TOKEN),
            service_queue: histograms(&registry, &families::SERVICE_QUEUE),
            gen_ai_request: histograms(&registry, &families::GEN_AI_REQUEST),
            gen_ai_first_token: histograms(&registry, &families::GEN_AI_FIRST_TOKEN),
            gen_ai_output_token: histograms(&registry, &families::GEN_AI_OUTPUT_TOKEN),
            gen_ai_token_usage: histograms(&registry, &families::GEN_AI_TOKEN_USAGE),
            registry,
        }
    }

    /// A request was answered. `route` is the route's pattern, never the path itself.
    pub fn answered(&self, method: &str, route: &str, status: u16, seconds: f64) {
        self.http_requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.http_duration.with_label_values(&[method, route]).observe(seconds);
    }

    /// An answer was an error.
    pub fn refused(&self, code: ErrorCode) {
        self.errors.with_label_values(&[code.as_str()]).inc();
    }

    /// Meters one generation.
    #[must_use]
    pub fn generation(&self, operation: Operation, model: &str) -> GenerationMeter {
        GenerationMeter::start(self.clone(), operation, model)
    }

    /// Meters one call that is no generation.
    #[must_use]
    pub fn call(&self, capability: Capability, task: &'static str) -> CallMeter {
        CallMeter::start(self.clone(), capability, task)
    }

    /// The whole page: the counters, then what was sampled.
    #[must_use]
    pub fn page(&self, samples: &Samples) -> String {
        // It fails only for a family without a metric, which `gather` leaves out.
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default();
        sampled::render(text, samples)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
    family: &Family,
) -> C {
    let registered =
        made.and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric));
    assert!(registered.is_ok(), "{} is twice in the table or malformed", family.name);
    #[expect(clippy::expect_used, reason = "asserted above; the table is a constant")]
    registered.expect("the table names each metric once")
}

fn counters(registry: &Registry, family: &Family) -> IntCounterVec {
    let made = IntCounterVec::new(Opts::new(family.name, family.help), family.labels);
    register(registry, made, family)
}

fn counter(registry: &Registry, family: &Family) -> IntCounter {
    register(registry, IntCounter::new(family.name, family.help), family)
}

fn gauge(registry: &Registry, family: &Family) -> IntGauge {
    register(registry, IntGauge::new(family.name, family.help), family)
}

fn histograms(registry: &Registry, family: &Family) -> HistogramVec {
    let opts = HistogramOpts::new(family.name, family.help).buckets(family.buckets.to_vec());
    register(registry, HistogramVec::new(opts, family.labels), family)
}
