//! `docs/jobs.md` shows the states as the code has them. `AISEMBLE_BLESS=1` rewrites the diagram.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use aisemble_jobs::JobState;
use aisemble_jobs::state::{Event, next};

const BEGIN: &str = "<!-- states: generated from aisemble_jobs::state::next -->\n";
const END: &str = "<!-- end of states -->\n";

fn diagram() -> String {
    let mut text = "```mermaid\nstateDiagram-v2\n".to_owned();
    for from in JobState::ALL {
        let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in Event::ALL {
            if let Ok(to) = next(from, event) {
                edges.entry(to.as_str()).or_default().push(event.as_str());
            }
        }
        for (to, events) in edges {
            writeln!(text, "  {} --> {to}: {}", from.as_str(), events.join(" / ")).unwrap();
        }
        if from.is_final() {
            writeln!(text, "  {} --> [*]", from.as_str()).unwrap();
        }
    }
    text.push_str("```\n");
    text
}

#[test]
fn the_diagram_is_the_function() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/jobs.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = text.find(BEGIN).expect("the mark before the diagram") + BEGIN.len();
    let end = text.find(END).expect("the mark after the diagram");
    if std::env::var_os("AISEMBLE_BLESS").is_some() {
        let blessed = format!("{}{}{}", &text[..begin], diagram(), &text[end..]);
        std::fs::write(&path, blessed).unwrap();
        return;
    }
    assert_eq!(&text[begin..end], diagram(), "run this test with AISEMBLE_BLESS=1");
}
