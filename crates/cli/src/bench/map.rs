//! What durability costs a map. The same rows go in turn through a workflow's map, through a loop
//! by hand over HTTP, and through one over the service's own socket, each with as many rows at the
//! same time.

use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use aisemble_client::{Client, Upload};
use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::file::Purpose;
use aisemble_protocol::nlp::{EmbedRequest, NlpTask as _, Texts};
use aisemble_protocol::v1::llm_client::LlmClient;
use aisemble_protocol::v1::nlp_client::NlpClient;
use aisemble_protocol::{ApiError, FileId, JobState};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tonic::transport::Channel;

use crate::args::{BenchMap, BenchMapWork, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::Terminal;
use crate::{direct, remote};

/// Pause between a look at the workflow and the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Words of the texts that are made up here: as many as a short ticket has.
const WORDS_OF_A_TEXT: usize = 14;
const WORDS: [&str; 24] = [
    "the", "invoice", "of", "March", "was", "charged", "twice", "and", "my", "screen", "stays",
    "dark", "after", "update", "please", "call", "me", "back", "order", "never", "arrived",
    "since", "Monday", "router",
];

/// Rows a second of each way.
#[derive(Debug, Default)]
struct Rates {
    map: f64,
    http: f64,
    socket: f64,
}

/// Everything that a turn needs.
struct Place {
    client: Client,
    channel: Channel,
    texts: Vec<String>,
    options: BenchMap,
}

pub(super) async fn run(global: &Global, options: BenchMap, terminal: Terminal) -> Outcome<()> {
    let texts = texts(&options)?;
    let socket = match &options.socket {
        Some(socket) => socket.clone(),
        None => Home::named(global)?.run().join(service(options.work)),
    };
    let client = remote::connect(global)?;
    let channel = direct::channel(&socket).await?;
    let place = Place { client, channel, texts, options };
    let bar = terminal.count_bar("measuring", (place.options.rounds.max(1) * 3) as u64);
    let mut best = Rates::default();
    for _ in 0..place.options.rounds.max(1) {
        best.socket = best.socket.max(place.rate(place.over_socket()).await?);
        bar.inc(1);
        best.map = best.map.max(place.rate(place.as_map()).await?);
        bar.inc(1);
        best.http = best.http.max(place.rate(place.over_http()).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    report(&best, &place.options, terminal)
}

fn service(work: BenchMapWork) -> &'static Path {
    Path::new(match work {
        BenchMapWork::Embed => "nlp/nlp.sock",
        BenchMapWork::Llm => "llm/llm.sock",
    })
}

fn report(best: &Rates, options: &BenchMap, terminal: Terminal) -> Outcome<()> {
    let share = |rate: f64| 100.0 * best.map / rate;
    if terminal.json {
        return terminal.data(&json!({
            "bench": "map", "rows": options.rows, "concurrency": options.concurrency,
            "chunk_rows": options.chunk_rows, "map_rows_per_s": best.map,
            "http_rows_per_s": best.http, "socket_rows_per_s": best.socket,
            "map_of_http_percent": share(best.http), "map_of_socket_percent": share(best.socket),
        }));
    }
    let row = |name: &str, rate: f64| {
        vec![name.to_owned(), format!("{rate:.1}"), format!("{:.1} %", share(rate))]
    };
    terminal.table(
        &["WAY", "ROWS/S", "THE MAP HAS"],
        &[
            row("map of a workflow", best.map),
            row("loop over HTTP", best.http),
            row("loop over the service's socket", best.socket),
        ],
    )
}

/// As many texts as rows: those of a file over and over, or made up.
fn texts(options: &BenchMap) -> Outcome<Vec<String>> {
    let Some(path) = &options.texts else {
        return Ok((0..options.rows).map(made_up).collect());
    };
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file("read", path, e))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("{} has no text", path.display())));
    }
    Ok(lines.iter().cycle().take(options.rows).map(|line| (*line).to_owned()).collect())
}

/// The text of that number: no two are the same.
fn made_up(number: usize) -> String {
    let mut text = format!("Ticket {number}:");
    let mut state = number as u64;
    for _ in 0..WORDS_OF_A_TEXT {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let place = usize::try_from(state >> 40).unwrap_or(0) % WORDS.len();
        // Writing to a text cannot fail.
        let _ = write!(text, " {}", WORDS[place]);
    }
    text
}

impl Place {
    /// Rows a second of one way.
    async fn rate(&self, way: impl Future<Output = Outcome<()>>) -> Outcome<f64> {
        let begun = Instant::now();
        way.await?;
        #[expect(clippy::cast_precision_loss, reason = "a number of rows")]
        let rows = self.texts.len() as f64;
        Ok(rows / begun.elapsed().as_secs_f64())
    }

    async fn over_socket(&self) -> Outcome<()> {
        let calls = self.texts.iter().map(|text| async move {
            match self.options.work {
                BenchMapWork::Embed => embed(self.channel.clone(), text).await,
                BenchMapWork::Llm => complete(self.channel.clone(), text).await,
            }
        });
        self.in_turn(calls).await
    }

    async fn over_http(&self) -> Outcome<()> {
        let calls = self.texts.iter().map(|text| async move {
            let (path, body) = match self.options.work {
                BenchMapWork::Embed => ("/v1/embeddings", json!({"model": "", "input": text})),
                BenchMapWork::Llm => (
                    "/v1/completions",
                    json!({"model": "", "prompt": text, "max_tokens": 2, "temperature": 0}),
                ),
            };
            self.client.post_json(path, &body).await?;
            Ok(())
        });
        self.in_turn(calls).await
    }

    async fn in_turn(
        &self,
        calls: impl Iterator<Item = impl Future<Output = Outcome<()>>>,
    ) -> Outcome<()> {
        let width = self.options.concurrency.max(1) as usize;
        futures_util::stream::iter(calls).buffer_unordered(width).try_collect().await
    }

    /// From the upload of the table to the end of the workflow.
    async fn as_map(&self) -> Outcome<()> {
        let file = self.upload().await?;
        let (kind, input) = match self.options.work {
            BenchMapWork::Embed => ("nlp.embed", json!({"texts": ["{{text}}"]})),
            BenchMapWork::Llm => {
                ("llm.completion", json!({"prompt": "{{text}}", "max_tokens": 2, "temperature": 0}))
            }
        };
        let request = json!({"name": "bench map", "steps": [{"id": "map", "kind": "map", "input": {
            "table": {"file": file, "format": "ndjson"}, "as": "answer", "keep": ["id"],
            "concurrency": self.options.concurrency, "chunk_rows": self.options.chunk_rows,
            "step": {"kind": kind, "input": input}}}]});
        let request = serde_json::from_value(request)
            .map_err(|error| Failure::new(Exit::Failed, "no workflow").because(error))?;
        let mut view = self.client.submit_workflow(&request, None).await?;
        while !view.state.is_final() {
            tokio::time::sleep(LOOK_EVERY).await;
            view = self.client.workflow(view.id).await?;
        }
        let output = view.steps.first().and_then(|step| step.output.clone()).unwrap_or_default();
        let whole = output["rows"].as_u64() == Some(self.texts.len() as u64);
        if view.state != JobState::Succeeded || !whole {
            let message = format!("the map did not do all rows: {output}");
            return Err(Failure::new(Exit::Failed, message));
        }
        self.client.delete_file(file).await?;
        let made = output["file"].as_str().and_then(|id| id.parse().ok());
        if let Some(made) = made {
            self.client.delete_file(made).await?;
        }
        Ok(())
    }

    async fn upload(&self) -> Outcome<FileId> {
        let lines = self.texts.iter().enumerate();
        let lines: String =
            lines.map(|(id, text)| format!("{}\n", json!({"id": id, "text": text}))).collect();
        let upload = Upload {
            name: "bench.ndjson".to_owned(),
            purpose: Purpose::Data,
            bytes: lines.len() as u64,
        };
        let content = futures_util::stream::iter([Ok(Bytes::from(lines))]);
        Ok(self.client.upload_file(&upload, content).await?.id)
    }
}

fn not_valid(error: ApiError) -> Failure {
    Failure::new(Exit::Failed, "the request is not valid").because(error)
}

fn refused(status: tonic::Status) -> Failure {
    Failure::new(Exit::Failed, format!("the service refused: {}", status.message()))
}

async fn embed(channel: Channel, text: &str) -> Outcome<()> {
    let texts = Some(Texts::Many(vec![text.to_owned()]));
    let request = EmbedRequest { texts, ..EmbedRequest::default() };
    let run = request.to_run().map_err(not_valid)?;
    let mut events = NlpClient::new(channel).run(run).await.map_err(refused)?.into_inner();
    while events.message().await.map_err(refused)?.is_some() {}
    Ok(())
}

async fn complete(channel: Channel, text: &str) -> Outcome<()> {
    let request = CompletionRequest {
        prompt: Some(text.to_owned()),
        max_tokens: Some(2),
        temperature: Some(0.0),
        ..CompletionRequest::default()
    };
    let request = request.to_generate().map_err(not_valid)?;
    let mut events = LlmClient::new(channel).generate(request).await.map_err(refused)?.into_inner();
    while events.message().await.map_err(refused)?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn made_up_texts_differ_and_are_the_same_again() {
        let all: HashSet<String> = (0..500).map(made_up).collect();
        assert_eq!(all.len(), 500);
        assert_eq!(made_up(7), made_up(7));
        assert_eq!(made_up(7).split(' ').count(), WORDS_OF_A_TEXT + 2);
    }
}
