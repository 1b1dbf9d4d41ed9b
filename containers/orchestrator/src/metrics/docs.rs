//! `docs/metrics.md`, made from the table of metrics.

use std::fmt::Write as _;

use super::families::{ALL, Family};

/// The document.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` (scope `metrics`) gives the Prometheus text format. One scrape covers the\n\
         orchestrator and, from figures that it collects every two seconds in the background,\n\
         every service: a scrape never calls a service and never waits for one.\n\n\
         This file is made from `containers/orchestrator/src/metrics/families.rs`; a test\n\
         compares it.\n\
         `AISEMBLE_UPDATE=1 cargo test -p aisemble-orchestrator` writes it anew.\n\n\
         | metric | type | labels | what it says |\n|---|---|---|---|\n",
    );
    for Family { name, kind, labels, help, .. } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        // Writing to a String does not fail.
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {help} |");
    }
    text
}
