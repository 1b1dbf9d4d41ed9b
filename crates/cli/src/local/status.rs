//! `ai-semble status`: what runs here, as the kernel and the orchestrator tell it.

use std::collections::BTreeMap;

use aisemble_client::{Client, ClientConfig, RetryPolicy};
use serde::Serialize;

use super::gpus::{GpuLine, gpus, words};
use super::services::{Running, capability};
use super::state::UpState;
use crate::args::Global;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, read_secret};
use crate::process::Identity;
use crate::terminal::{Terminal, size, span};

/// What is told.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    model: String,
    served: String,
    services: BTreeMap<String, Running>,
    ready: bool,
    capabilities: BTreeMap<String, serde_json::Value>,
    processes: Vec<Process>,
    figures: Figures,
    /// By UUID.
    gpus: BTreeMap<String, GpuLine>,
}

#[derive(Debug, Serialize)]
struct Process {
    name: String,
    state: String,
    pid: Option<u32>,
    uptime_s: Option<u64>,
    resident_bytes: Option<u64>,
    restarts: u32,
    last_end: Option<String>,
    seccomp_mode: Option<u32>,
}

/// What the metrics page says.
#[derive(Debug, Default, Serialize)]
struct Figures {
    tokens_in: Option<f64>,
    tokens_out: Option<f64>,
    jobs_waiting: Option<f64>,
    requests_running: Option<f64>,
    requests_queued: Option<f64>,
    kv_tokens_used: Option<f64>,
    kv_tokens_max: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// `NotRunning` when nothing runs.
pub async fn run(global: &Global, terminal: Terminal) -> Outcome<()> {
    let home = Home::named(global)?;
    let Some(state) = UpState::alive(&home)? else {
        let message = format!("nothing runs in {}", home.root().display());
        return Err(
            Failure::new(Exit::NotRunning, message).hint("start it with `ai-semble up --detach`")
        );
    };
    let report = gather(&home, &state).await?;
    if terminal.json {
        return terminal.data(&report);
    }
    show(&report, terminal)
}

async fn gather(home: &Home, state: &UpState) -> Outcome<Report> {
    let mut config = ClientConfig::new(state.url(), read_secret(&home.client_key()).ok());
    config.retry = RetryPolicy::NEVER;
    config.deadline = std::time::Duration::from_secs(5);
    let client = Client::new(config)?;
    let ready = client.ready().await.unwrap_or_default();
    let metrics = client.metrics().await.unwrap_or_default();
    let mut processes = vec![process("up", Some(state.identity), None)];
    for (name, child) in &state.children {
        let of = state.services.get(name).map(|running| capability(&running.service));
        let of = of.and_then(|capability| ready.capabilities.get(capability));
        let mut process = process(name, child.identity, of.map(|capability| capability.ready));
        process.restarts = child.restarts;
        process.last_end.clone_from(&child.last_end);
        if child.given_up {
            process.state = "given up".to_owned();
        }
        processes.push(process);
    }
    let capabilities = ready
        .capabilities
        .iter()
        .map(|(name, capability)| {
            (
                name.clone(),
                serde_json::json!({ "ready": capability.ready, "detail": capability.sentence() }),
            )
        })
        .collect();
    Ok(Report {
        url: state.url(),
        model: state.model.clone(),
        served: state.served(),
        services: state.services.clone(),
        ready: ready.ready,
        capabilities,
        processes,
        figures: figures(&metrics),
        gpus: gpus(&metrics),
    })
}

fn process(name: &str, identity: Option<Identity>, is_ready: Option<bool>) -> Process {
    let identity = identity.filter(Identity::is_alive);
    let status = identity.and_then(|identity| identity.status());
    let state = match (identity, is_ready) {
        (None, _) => "not running",
        (Some(_), Some(false)) => "not ready",
        (Some(_), Some(true) | None) => "running",
    };
    Process {
        name: name.to_owned(),
        state: state.to_owned(),
        pid: identity.map(|identity| identity.pid),
        uptime_s: identity.and_then(|identity| identity.age()).map(|age| age.as_secs()),
        resident_bytes: status.as_ref().map(|status| status.resident_bytes),
        restarts: 0,
        last_end: None,
        seccomp_mode: status.map(|status| status.seccomp_mode),
    }
}

fn figures(metrics: &str) -> Figures {
    if metrics.is_empty() {
        return Figures::default();
    }
    let sum = |name: &str, label: &str| sum_of(metrics, name, label);
    // A counter appears on the page with its first event.
    let count = |name: &str, label: &str| sum(name, label).or(Some(0.0));
    Figures {
        tokens_in: count("aisemble_tokens_total", "type=\"input\""),
        tokens_out: count("aisemble_tokens_total", "type=\"output\""),
        jobs_waiting: sum("aisemble_queue_depth", ""),
        requests_running: sum("aisemble_service_requests_running", ""),
        requests_queued: sum("aisemble_service_requests_queued", ""),
        kv_tokens_used: sum("aisemble_kv_tokens_used", ""),
        kv_tokens_max: sum("aisemble_kv_tokens_max", ""),
    }
}

/// Sum of a metric's samples whose labels contain `label`.
fn sum_of(metrics: &str, name: &str, label: &str) -> Option<f64> {
    let mut sum = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (labels, value) = match rest.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) {
            Some((labels, value)) => (labels, value),
            None if rest.starts_with(' ') => ("", rest),
            None => continue,
        };
        if let (true, Ok(value)) = (labels.contains(label), value.trim().parse::<f64>()) {
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

fn show(report: &Report, terminal: Terminal) -> Outcome<()> {
    let ready = if report.ready { "ready" } else { "not ready" };
    terminal.line(&format!("{} serves {}: {ready}", report.url, report.served))?;
    for (name, capability) in &report.capabilities {
        if capability["ready"] != true {
            let detail = capability["detail"].as_str().unwrap_or_default();
            terminal.line(&format!("  {name}: {detail}"))?;
        }
    }
    let rows: Vec<_> = report.processes.iter().map(row).collect();
    terminal.line("")?;
    terminal
        .table(&["PROCESS", "PID", "STATE", "UPTIME", "MEMORY", "RESTARTS", "LAST END"], &rows)?;
    for (uuid, gpu) in &report.gpus {
        terminal.line(&format!("\nGPU {}", words(uuid, gpu)))?;
    }
    let figures = &report.figures;
    let number = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.0}"));
    terminal.line(&format!(
        "\ntokens {} in, {} out; jobs waiting {}; requests {} running, {} queued; \
         KV cache {}/{} tokens",
        number(figures.tokens_in),
        number(figures.tokens_out),
        number(figures.jobs_waiting),
        number(figures.requests_running),
        number(figures.requests_queued),
        number(figures.kv_tokens_used),
        number(figures.kv_tokens_max),
    ))
}

fn row(process: &Process) -> Vec<String> {
    let uptime = process.uptime_s.map(|s| span(std::time::Duration::from_secs(s)));
    vec![
        process.name.clone(),
        process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        process.state.clone(),
        uptime.unwrap_or_default(),
        process.resident_bytes.map(size).unwrap_or_default(),
        process.restarts.to_string(),
        process.last_end.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_label() {
        let page = "# HELP aisemble_tokens_total x\n\
            aisemble_tokens_total{model=\"m\",type=\"input\"} 10\n\
            aisemble_tokens_total{model=\"n\",type=\"input\"} 2.5\n\
            aisemble_tokens_total{model=\"m\",type=\"output\"} 7\n\
            aisemble_tokens_total_other 99\naisemble_plain 3\nbroken{\n";
        assert_eq!(sum_of(page, "aisemble_tokens_total", "type=\"input\""), Some(12.5));
        assert_eq!(sum_of(page, "aisemble_plain", ""), Some(3.0));
        assert_eq!(sum_of(page, "aisemble_none", ""), None);
        assert_eq!(sum_of(page, "broken", ""), None);
    }
}
