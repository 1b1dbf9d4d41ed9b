//! Numbers that others count and the page only shows: jobs, store, services, sandbox, process.

use aisemble_jobs::metrics::Histogram;
use aisemble_jobs::{Depth, JobState, StoreMetrics};
use aisemble_protocol::v1;

use super::families::{self as f, Family};
use super::gpu;
use super::page::{Page, as_f64};

/// What is sampled for one page.
#[derive(Debug, Default)]
pub struct Samples {
    /// What waits and runs; `None` when the store did not say in time.
    pub depth: Option<Depth>,
    /// Capabilities that are configured: they have a queue depth even when it is 0.
    pub capabilities: Vec<&'static str>,
    /// The store's counters.
    pub store: StoreMetrics,
    /// Every instance of every service.
    pub instances: Vec<SampledInstance>,
    /// What confines the orchestrator; `None` where it is not confined.
    pub sandbox: Option<v1::SandboxInfo>,
    /// Resident memory of the orchestrator, bytes.
    pub resident_bytes: f64,
    /// Its open files.
    pub open_fds: Option<f64>,
    /// When it started, seconds since 1970.
    pub started_s: f64,
}

/// What is known of one instance.
#[derive(Debug, Clone, Default)]
pub struct SampledInstance {
    /// `llm`, ...
    pub service: &'static str,
    /// Its name: that of its socket.
    pub name: String,
    /// Whether it takes work.
    pub ready: bool,
    /// Calls that we have under way.
    pub calls_in_flight: u64,
    /// Who it is.
    pub described: Option<v1::DescribeResponse>,
    /// Its figures, and how old they are in seconds.
    pub stats: Option<(v1::StatsResponse, f64)>,
    /// Mean rows of a forward pass between the last two looks.
    pub batch_size: Option<f64>,
}

/// Appends the samples to the page's `text`.
pub(super) fn render(text: String, samples: &Samples) -> String {
    let mut page = Page::starting_with(text);
    jobs(&mut page, samples);
    store(&mut page, &samples.store);
    instances(&mut page, &samples.instances);
    gpu::render(&mut page, &samples.instances);
    sandbox(&mut page, samples);
    page.family(&f::BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1.0)]);
    page.single(&f::RESIDENT, samples.resident_bytes);
    if let Some(count) = samples.open_fds {
        page.single(&f::OPEN_FDS, count);
    }
    page.single(&f::START_TIME, samples.started_s);
    page.into_text()
}

fn jobs(page: &mut Page, samples: &Samples) {
    let Some(depth) = &samples.depth else { return };
    let waiting = [JobState::Pending, JobState::Scheduled, JobState::Queued];
    let states = JobState::ALL.into_iter().filter(|state| !state.is_final());
    let each = states
        .flat_map(|state| samples.capabilities.iter().map(move |capability| (*capability, state)));
    page.family(
        &f::JOBS,
        each.map(|(name, state)| ([name, state.as_str()], as_f64(depth.count(name, state)))),
    );
    let capabilities = || samples.capabilities.iter().copied();
    page.family(
        &f::QUEUE_DEPTH,
        capabilities().map(|name| {
            ([name], as_f64(waiting.iter().map(|state| depth.count(name, *state)).sum()))
        }),
    );
    page.family(
        &f::QUEUE_OLDEST,
        capabilities().map(|name| {
            let queued = |e: &&aisemble_jobs::DepthEntry| {
                e.capability == name && e.state == JobState::Queued
            };
            let oldest_ms = depth.entries.iter().find(queued).map_or(0, |entry| entry.oldest_ms);
            ([name], as_f64(oldest_ms) / 1e3)
        }),
    );
}

fn store(page: &mut Page, store: &StoreMetrics) {
    let tally = &store.tally;
    let events = [
        ("submitted", tally.submitted),
        ("replayed", tally.replayed),
        ("claimed", tally.claimed),
        ("succeeded", tally.succeeded),
        ("failed", tally.failed),
        ("cancelled", tally.cancelled),
        ("expired", tally.expired),
        ("retried", tally.retried),
        ("interrupted", tally.interrupted),
        ("rescued", tally.rescued),
        ("stale", tally.stale),
        ("emitted", tally.emitted),
        ("purged", tally.purged),
    ];
    page.family(&f::JOB_EVENTS, events.map(|(event, count)| ([event], as_f64(count))));
    histogram(page, &f::STORE_COMMIT, &store.commit_us, 1e-6);
    histogram(page, &f::STORE_BATCH, &store.batch_ops, 1.0);
    page.single(&f::STORE_WRITE_QUEUE, as_f64(store.write_queue));
    page.single(&f::STORE_COMMIT_FAILURES, as_f64(store.commit_failures));
}

fn histogram(page: &mut Page, family: &Family, histogram: &Histogram, unit: f64) {
    // Rounded to a millionth, so that 2500 us reads 0.0025 and not 0.0024999999999999996.
    let scaled = |value: u64| (as_f64(value) * unit * 1e6).round() / 1e6;
    let bounds: Vec<f64> = histogram.bounds.iter().map(|bound| scaled(*bound)).collect();
    page.histogram(family, &bounds, &histogram.counts, scaled(histogram.sum));
}

/// A figure of an instance.
type Figure = fn(&v1::StatsResponse) -> f64;

const FIGURES: [(&Family, Figure); 16] = [
    (&f::SERVICE_UPTIME, |stats| as_f64(stats.uptime_ms) / 1e3),
    (&f::SERVICE_RUNNING, |stats| stats.requests_running.into()),
    (&f::SERVICE_QUEUED, |stats| stats.requests_queued.into()),
    (&f::SERVICE_REQUESTS, |stats| as_f64(stats.requests_total)),
    (&f::SERVICE_CANCELLED, |stats| as_f64(stats.requests_cancelled_total)),
    (&f::SERVICE_STEPS, |stats| as_f64(stats.steps_total)),
    (&f::SERVICE_STEP_ROWS, |stats| as_f64(stats.step_rows_total)),
    (&f::KV_USED, |stats| as_f64(stats.kv_tokens_used)),
    (&f::KV_MAX, |stats| as_f64(stats.kv_tokens_max)),
    (&f::KV_CACHED, |stats| as_f64(stats.kv_tokens_cached)),
    (&f::KV_EVICTIONS, |stats| as_f64(stats.kv_evictions_total)),
    (&f::PREFIX_TOKENS, |stats| as_f64(stats.prompt_tokens_cached_total)),
    (&f::PREEMPTIONS, |stats| as_f64(stats.preemptions_total)),
    (&f::DRAFT_TOKENS, |stats| as_f64(stats.draft_tokens_total)),
    (&f::DRAFT_ACCEPTED, |stats| as_f64(stats.draft_tokens_accepted_total)),
    (&f::SERVICE_RESIDENT, |stats| as_f64(stats.resident_bytes)),
];

fn instances(page: &mut Page, instances: &[SampledInstance]) {
    let each = |figure: fn(&SampledInstance) -> Option<f64>| {
        instances.iter().filter_map(move |i| Some(([i.service, i.name.as_str()], figure(i)?)))
    };
    page.family(&f::SERVICE_READY, each(|i| Some(f64::from(u8::from(i.ready)))));
    page.family(&f::CALLS_IN_FLIGHT, each(|i| Some(as_f64(i.calls_in_flight))));
    page.family(&f::SERVICE_STATS_AGE, each(|i| i.stats.as_ref().map(|(_, age_s)| *age_s)));
    page.family(
        &f::SERVICE_LOAD,
        each(|i| i.described.as_ref().map(|described| as_f64(described.load_ms) / 1e3)),
    );
    page.family(&f::BATCH_SIZE, each(|i| i.batch_size));
    for (family, figure) in FIGURES {
        let samples = instances.iter().filter_map(|i| {
            let (stats, _) = i.stats.as_ref()?;
            Some(([i.service, i.name.as_str()], figure(stats)))
        });
        page.family(family, samples);
    }
    let models = instances.iter().flat_map(|i| {
        let models = i.described.iter().flat_map(|described| &described.models);
        models.map(|m| {
            let labels =
                [i.service, &i.name, &m.name, &m.family, &m.quantization, &m.sha256, &m.device];
            (labels, 1.0)
        })
    });
    page.family(&f::MODEL_INFO, models);
}

fn sandbox(page: &mut Page, samples: &Samples) {
    let services = samples.instances.iter().filter_map(|instance| {
        let info = instance.described.as_ref()?.sandbox.as_ref()?;
        Some((instance.name.as_str(), info))
    });
    let own = samples.sandbox.as_ref().map(|info| ("orchestrator", info));
    let samples = own.into_iter().chain(services).flat_map(|(process, info)| {
        [
            ([process, "landlock_abi"], f64::from(info.landlock_abi)),
            ([process, "no_new_privs"], f64::from(u8::from(info.no_new_privs))),
            ([process, "seccomp_mode"], f64::from(info.seccomp_mode)),
            ([process, "seccomp_filters"], f64::from(info.seccomp_filters)),
            ([process, "locked_down"], f64::from(u8::from(info.locked_down))),
        ]
    });
    page.family(&f::SANDBOX, samples);
}
