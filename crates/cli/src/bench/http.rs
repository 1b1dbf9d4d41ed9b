//! What the orchestrator adds to a call. The same one-token completion goes three ways in turn, so
//! that all three see the same machine; the model's own time, as the service reports it, is taken
//! off.

use std::time::{Duration, Instant};

use aisemble_client::Client;
use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::v1;
use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::v1::llm_client::LlmClient;
use serde_json::json;
use tonic::transport::Channel;

use super::figures::{Spread, ms};
use crate::args::{BenchHttp, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::Terminal;
use crate::{direct, remote};

const PROMPT: &str = "a";
const WAIT: Duration = Duration::from_secs(60);

/// Times of one way, milliseconds: whole, and less the model's own.
#[derive(Default)]
struct Way {
    whole: Vec<f64>,
    around: Vec<f64>,
}

pub(super) async fn run(global: &Global, options: BenchHttp, terminal: Terminal) -> Outcome<()> {
    let client = remote::connect(global)?;
    let socket = match &options.socket {
        Some(socket) => socket.clone(),
        None => Home::named(global)?.llm_socket(),
    };
    let mut service = LlmClient::new(direct::channel(&socket).await?);
    let model = first_model(&client).await?;
    let (mut v1_way, mut job_way, mut own_way) = (Way::default(), Way::default(), Way::default());
    let mut health = Vec::new();
    let bar = terminal.count_bar("measuring", (options.warmup + options.rounds) as u64);
    for round in 0..options.warmup + options.rounds {
        let direct = directly(&mut service).await?;
        let through_v1 = through_v1(&client, &model).await?;
        let as_job = as_job(&client).await?;
        let begun = Instant::now();
        client.health().await?;
        let alive = ms(begun.elapsed());
        bar.inc(1);
        if round < options.warmup {
            continue;
        }
        own_way.add(direct);
        v1_way.whole.push(through_v1);
        job_way.add(as_job);
        health.push(alive);
    }
    bar.finish_and_clear();
    report(v1_way, job_way, own_way, health, terminal)
}

impl Way {
    fn add(&mut self, (whole, model): (f64, f64)) {
        self.whole.push(whole);
        self.around.push((whole - model).max(0.0));
    }
}

fn report(
    through_v1: Way,
    as_job: Way,
    own: Way,
    health: Vec<f64>,
    terminal: Terminal,
) -> Outcome<()> {
    // Pair by pair in the same round: what the machine did meanwhile is in both.
    let added =
        |way: &[f64]| Spread::of(way.iter().zip(&own.whole).map(|(way, own)| way - own).collect());
    let (v1_adds, job_adds) = (added(&through_v1.whole), added(&as_job.whole));
    let around_job = Spread::of(as_job.around.clone());
    let around_own = Spread::of(own.around.clone());
    let rows = [
        ("direct: service socket", Spread::of(own.whole)),
        ("/v1/completions", Spread::of(through_v1.whole)),
        ("job, Prefer: wait", Spread::of(as_job.whole)),
        ("direct, less the model", around_own),
        ("job, less the model", around_job),
        ("/v1 adds (same round)", v1_adds),
        ("job adds (same round)", job_adds),
        ("GET /health", Spread::of(health)),
    ];
    if terminal.json {
        let all: serde_json::Map<_, _> =
            rows.iter().map(|(name, spread)| ((*name).to_owned(), json!(spread))).collect();
        return terminal.data(&json!({ "bench": "http", "unit": "ms", "figures": all }));
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, spread)| {
            let mut row = vec![(*name).to_owned()];
            row.extend(spread.cells());
            row
        })
        .collect();
    terminal.table(&["ms", "P50", "P95", "P99", "MAX"], &rows)
}

async fn first_model(client: &Client) -> Outcome<String> {
    let models = client.models().await?;
    let first = models.data.into_iter().next().map(|model| model.id);
    first.ok_or_else(|| Failure::new(Exit::TryLater, "no model is served"))
}

/// Whole time and the model's own, milliseconds.
async fn directly(service: &mut LlmClient<Channel>) -> Outcome<(f64, f64)> {
    let refused = |status: tonic::Status| {
        Failure::new(Exit::Failed, format!("the service refused: {}", status.message()))
    };
    let request = one_token()
        .to_generate()
        .map_err(|error| Failure::new(Exit::Failed, "the request is not valid").because(error))?;
    let begun = Instant::now();
    let mut events = service.generate(request).await.map_err(refused)?.into_inner();
    let mut model_ms = 0.0;
    while let Some(event) = events.message().await.map_err(refused)? {
        if let Some(Event::Finished(v1::Finished { prompt_us, decode_us, queue_us, .. })) =
            event.event
        {
            model_ms = ms(Duration::from_micros(prompt_us + decode_us + queue_us));
        }
    }
    Ok((ms(begun.elapsed()), model_ms))
}

async fn through_v1(client: &Client, model: &str) -> Outcome<f64> {
    let body = json!({ "model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0 });
    let begun = Instant::now();
    client.post_json("/v1/completions", &body).await?;
    Ok(ms(begun.elapsed()))
}

async fn as_job(client: &Client) -> Outcome<(f64, f64)> {
    let begun = Instant::now();
    let done = client.complete(&one_token(), WAIT).await?;
    let whole = ms(begun.elapsed());
    let result = done.map_err(|job| {
        Failure::new(Exit::TryLater, format!("job {} did not end in time", job.id))
    })?;
    let timings = result.timings;
    Ok((whole, timings.queue_ms + timings.prompt_ms + timings.decode_ms))
}

fn one_token() -> CompletionRequest {
    CompletionRequest {
        prompt: Some(PROMPT.to_owned()),
        max_tokens: Some(1),
        temperature: Some(0.0),
        ..CompletionRequest::default()
    }
}
