//! A workflow as a picture: Mermaid and Graphviz.

use std::fmt::Write as _;

use super::{Plan, StepState, WorkflowRequest};

/// The graph as Mermaid. `states`, when given, colours the steps.
#[must_use]
pub fn mermaid(request: &WorkflowRequest, plan: &Plan, states: &[StepState]) -> String {
    let mut text = String::from("flowchart TD\n");
    for (number, step) in request.steps.iter().enumerate() {
        let shape = if step.when.is_some() { ("{{", "}}") } else { ("[", "]") };
        // Ids have only letters, digits, `_` and `-`; the number keeps Mermaid's words apart.
        let _ = write!(text, "  s{number}{}\"{}<br/>{}\"", shape.0, step.id, step.kind.as_str());
        text.push_str(shape.1);
        if let Some(state) = states.get(number) {
            let _ = write!(text, ":::{}", state.as_str());
        }
        text.push('\n');
    }
    for (number, needs) in plan.needs.iter().enumerate() {
        for need in needs {
            let _ = writeln!(text, "  s{need} --> s{number}");
        }
    }
    if !states.is_empty() {
        text.push_str("  classDef succeeded fill:#d4edda,stroke:#28a745\n");
        text.push_str("  classDef failed fill:#f8d7da,stroke:#dc3545\n");
        text.push_str("  classDef running fill:#fff3cd,stroke:#ffc107\n");
        text.push_str("  classDef skipped fill:#eeeeee,stroke:#999999\n");
        text.push_str("  classDef cancelled fill:#eeeeee,stroke:#999999\n");
        text.push_str("  classDef pending fill:#ffffff,stroke:#666666\n");
    }
    text
}

/// The graph as Graphviz.
#[must_use]
pub fn dot(request: &WorkflowRequest, plan: &Plan, states: &[StepState]) -> String {
    let mut text = String::from("digraph workflow {\n  rankdir=TB;\n  node [shape=box];\n");
    for (number, step) in request.steps.iter().enumerate() {
        let state = states.get(number).map_or(String::new(), |s| format!("\\n{}", s.as_str()));
        let kind = step.kind.as_str();
        let _ = writeln!(text, "  s{number} [label=\"{}\\n{kind}{state}\"];", step.id);
    }
    for (number, needs) in plan.needs.iter().enumerate() {
        for need in needs {
            let _ = writeln!(text, "  s{need} -> s{number};");
        }
    }
    text.push_str("}\n");
    text
}
