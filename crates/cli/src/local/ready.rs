//! Waits until the orchestrator says that everything is ready, and shows how far it is.

use std::collections::BTreeMap;
use std::time::Duration;

use aisemble_client::{Client, Ready};
use aisemble_protocol::v1;
use aisemble_protocol::v1::model_client::ModelClient;
use tokio::time::Instant;

use super::services::Running;
use crate::direct;
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::Terminal;

/// How long one look may take: the listener takes connections before the orchestrator answers them.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Longest pause between a look at readiness and the next.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is waited for.
#[derive(Debug)]
pub struct Wait<'a> {
    /// A client of the orchestrator; one call takes at most [`ANSWER_MAX`].
    pub client: &'a Client,
    /// The services: each knows how far its models are loaded.
    pub services: &'a BTreeMap<String, Running>,
    /// How long is waited.
    pub patience: Duration,
}

/// Asks until everything is ready. `still` may end it with an error.
///
/// # Errors
/// When `patience` runs out, or `still` says so.
pub async fn wait(
    wait: &Wait<'_>,
    terminal: Terminal,
    mut still: impl FnMut() -> Outcome<()>,
) -> Outcome<()> {
    let Wait { client, services, patience } = wait;
    let bar = terminal.percent_bar("starting");
    let until = Instant::now() + *patience;
    let mut said = String::new();
    loop {
        still()?;
        let now = match client.ready().await {
            Ok(ready) if ready.ready => break,
            Ok(ready) => loading(services).await.unwrap_or_else(|| told(&ready)),
            // Until the orchestrator takes connections, they wait in the listener's queue.
            Err(_) => "the orchestrator is starting".to_owned(),
        };
        if let Some(percent) = percent(&now) {
            bar.set_position(percent);
        }
        bar.set_message(now.clone());
        if bar.is_hidden() && now != said && percent(&now).is_none() {
            terminal.note(&now);
        }
        said = now;
        if Instant::now() >= until {
            let message = format!("not ready in {} s: {said}", patience.as_secs());
            return Err(Failure::new(Exit::TryLater, message)
                .hint("give it more time with --ready-seconds; the logs directory tells more"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// What the first service says whose models are still loading: it answers every call with how far
/// it is.
async fn loading(services: &BTreeMap<String, Running>) -> Option<String> {
    for (name, service) in services {
        let ask = async {
            let mut client = ModelClient::new(direct::channel(&service.socket).await.ok()?);
            let refused = client.describe(v1::DescribeRequest {}).await.err()?;
            percent(refused.message()).map(|_| format!("{name}: {}", refused.message()))
        };
        if let Ok(Some(told)) = tokio::time::timeout(ANSWER_MAX, ask).await {
            return Some(told);
        }
    }
    None
}

fn told(ready: &Ready) -> String {
    let waiting = ready.capabilities.iter().filter(|(_, capability)| !capability.ready);
    let each: Vec<_> = waiting
        .map(|(name, capability)| match capability.sentence() {
            text if text.is_empty() => format!("{name} is not ready"),
            text => format!("{name}: {text}"),
        })
        .collect();
    if each.is_empty() { "not ready yet".to_owned() } else { each.join("; ") }
}

/// The number before a per cent sign.
fn percent(text: &str) -> Option<u64> {
    let before = text[..text.find('%')?].trim_end();
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    before[before.len() - digits..].parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_is_found_in_the_sentence() {
        assert_eq!(percent("llm: the model is loading, 43 %"), Some(43));
        assert_eq!(percent("43% of é"), Some(43));
        for none in ["", "loading", "% 5", "900 %", "é%"] {
            assert_eq!(percent(none), None, "{none}");
        }
    }
}
