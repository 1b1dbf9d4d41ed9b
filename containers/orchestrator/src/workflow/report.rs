//! A report on the run so far: Markdown for a person, JSON for a machine, both as files.

use std::collections::HashMap;
use std::fmt::Write as _;

use aisemble_jobs::JobFailure;
use aisemble_protocol::file::Purpose;
use aisemble_protocol::workflow::{ReportInput, StepKind, StepView, mermaid};
use bytes::Bytes;
use serde_json::{Value, json};

use super::desk::step_views;
use super::plot;
use super::step::Scene;
use super::table::{TableReader, file_id, invalid};
use crate::files::NewFile;

/// Rows of each table that are shown.
const SAMPLES_DEFAULT: u32 = 5;
const SAMPLES_MAX: u32 = 50;
/// Rows of a table that are counted for a plot.
const PLOT_ROWS_MAX: u64 = 100_000;
/// Different values of one plot.
const PLOT_VALUES_MAX: usize = 10_000;
/// Characters of one cell.
const CELL_CHARS_MAX: usize = 120;

/// Runs a report step.
pub(super) async fn run(scene: &Scene<'_>, input: Value) -> Result<(Value, u64), JobFailure> {
    let input = if input.is_null() { json!({}) } else { input };
    let report: ReportInput = serde_json::from_value(input)
        .map_err(|error| invalid(format!("the step's input is not valid: {error}")))?;
    let faulty = |_| invalid("the workflow is not valid");
    let plan = scene.request.validate().map_err(faulty)?;
    let mut steps = step_views(scene.engine, scene.workflow, (&scene.request, &plan)).await?;
    // Of itself it knows nothing yet.
    steps.retain(|step| step.kind != StepKind::Report);
    let mut plots = Vec::new();
    for wanted in &report.plots {
        let table = TableReader::open(scene.engine, &scene.job.owner, wanted.table.clone()).await?;
        let counts = count(table, &wanted.column).await?;
        plots.push((wanted.column.clone(), counts));
    }
    let title = report.title.clone().unwrap_or_else(|| scene.request.name.clone());
    let samples = report.samples.unwrap_or(SAMPLES_DEFAULT).min(SAMPLES_MAX) as usize;
    let states: Vec<_> = Vec::new();
    let graph = mermaid(&scene.request, &plan, &states);
    let markdown = markdown(&title, &steps, samples, (&graph, &plots));
    let document = json!({
        "title": title,
        "workflow": scene.workflow,
        "steps": steps,
        "plots": plots.iter().map(|(column, counts)| json!({
            "column": column,
            "counts": counts.iter().map(|(value, count)| json!({"value": value, "count": count}))
                .collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    let markdown_file = store(scene, "report.md", markdown.clone()).await?;
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    let json_file = store(scene, "report.json", text).await?;
    let mut svg_files = Vec::new();
    for (number, (column, counts)) in plots.iter().enumerate() {
        let name = format!("plot-{number}.svg");
        svg_files.push(store(scene, &name, plot::bars(column, counts)).await?);
    }
    let output = json!({
        "markdown_file": markdown_file,
        "json_file": json_file,
        "svg_files": svg_files,
        "markdown": markdown.chars().take(64 * 1024).collect::<String>(),
    });
    Ok((output, 0))
}

async fn store(scene: &Scene<'_>, name: &str, text: String) -> Result<Value, JobFailure> {
    // A repeated attempt may say other times: then it is another file.
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let id = file_id(scene.job.id, &format!("{name}/{digest}"));
    let new = NewFile::new(name, Purpose::Result).with_id(id);
    let bytes = Bytes::from(text);
    let view = scene.engine.files.store_bytes(&scene.job.owner, new, bytes).await?;
    Ok(json!(view.id))
}

/// How often each value of a column occurs, the commonest first.
async fn count(mut table: TableReader, column: &str) -> Result<Vec<(String, u64)>, JobFailure> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut rows = 0;
    loop {
        let batch = table.next().await?;
        rows += batch.len() as u64;
        for row in &batch {
            let value = row.get(column);
            let value = value.ok_or_else(|| invalid(format!("a row has no column {column:?}")))?;
            let text = value.as_str().map_or_else(|| value.to_string(), |s| s.trim().to_owned());
            if counts.len() < PLOT_VALUES_MAX || counts.contains_key(&text) {
                *counts.entry(text).or_default() += 1;
            }
        }
        if batch.is_empty() || rows >= PLOT_ROWS_MAX {
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            return Ok(counts);
        }
    }
}

/// A column, and how often each of its values is there.
type Counts = (String, Vec<(String, u64)>);

fn markdown(
    title: &str,
    steps: &[StepView],
    samples: usize,
    (graph, plots): (&str, &[Counts]),
) -> String {
    let mut text = format!("# {}\n\n```mermaid\n{graph}```\n\n## Steps\n\n", cell(title));
    text.push_str("| step | kind | state | seconds | rows | failed | tokens |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for step in steps {
        let taken_ms = step.started_at_ms.zip(step.finished_at_ms);
        let seconds = taken_ms.map_or_else(String::new, |(from, to)| {
            format!("{:.1}", to.saturating_sub(from) as f64 / 1e3)
        });
        let output = step.output.as_ref().unwrap_or(&Value::Null);
        let number = |key: &str| output[key].as_u64().map_or(String::new(), |n| n.to_string());
        let used = output["tokens"].as_u64().or_else(|| output["usage"]["total_tokens"].as_u64());
        let tokens = used.map_or(String::new(), |tokens| tokens.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {seconds} | {} | {} | {tokens} |",
            step.id,
            step.kind.as_str(),
            step.state.as_str(),
            number("rows"),
            number("failed"),
        );
    }
    for step in steps {
        if let Some(error) = &step.error {
            let _ = writeln!(text, "\n**{}**: {}", step.id, cell(&error.message));
        }
        if let Some(rows) = step.output.as_ref().and_then(|output| output["sample"].as_array())
            && !rows.is_empty()
        {
            let _ = writeln!(text, "\n### {}\n", step.id);
            table(&mut text, &rows[..rows.len().min(samples)]);
        }
    }
    for (column, counts) in plots {
        let _ = writeln!(text, "\n### {}\n\n{}", cell(column), plot::bars(column, counts));
    }
    text
}

fn table(text: &mut String, rows: &[Value]) {
    let Some(Value::Object(first)) = rows.first() else { return };
    let names: Vec<_> = first.keys().collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(names.iter().map(|name| cell(name)).collect()));
    text.push_str(&line(names.iter().map(|_| "---".to_owned()).collect()));
    for row in rows {
        let value = |name: &&String| {
            let value = &row[name.as_str()];
            value.as_str().map_or_else(|| cell(&value.to_string()), cell)
        };
        text.push_str(&line(names.iter().map(value).collect()));
    }
}

/// A value in one line that cannot end the table's cell, or begin markup.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for (place, c) in text.chars().enumerate() {
        if place == CELL_CHARS_MAX {
            cell.push('…');
            break;
        }
        match c {
            '|' => cell.push_str("\\|"),
            '<' => cell.push_str("&lt;"),
            '`' => cell.push('\''),
            c if c.is_control() => cell.push(' '),
            c => cell.push(c),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use aisemble_protocol::workflow::StepState;

    use super::*;

    #[test]
    fn values_stay_in_their_cells() {
        let step = StepView {
            id: "label".to_owned(),
            kind: StepKind::Map,
            state: StepState::Succeeded,
            job_id: None,
            needs: Vec::new(),
            started_at_ms: Some(1_000),
            finished_at_ms: Some(3_500),
            progress: None,
            output: Some(json!({"rows": 2, "failed": 1, "tokens": 9,
                "sample": [{"a|b": "x\ny | <b>", "n": 1}]})),
            kept_from: None,
            error: None,
        };
        let counts = vec![("yes".to_owned(), 2)];
        let text = markdown("T", &[step], 5, ("flowchart TD\n", &[("c".to_owned(), counts)]));
        assert!(text.contains("| label | map | succeeded | 2.5 | 2 | 1 | 9 |"), "{text}");
        assert!(text.contains("| a\\|b | n |\n| --- | --- |\n| x y \\| &lt;b> | 1 |"), "{text}");
        assert!(text.contains("<svg"), "{text}");
    }
}
