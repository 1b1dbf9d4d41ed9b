//! SQL: checked by the allow-list, then given to polars-sql. EXPLAIN is answered here, because
//! polars' own shows the paths of files.

use aisemble_protocol::ApiError;
use polars_sql::SQLContext;
use sqlparser::ast::Statement;

use super::{Opened, Planned, allow, error};

/// What `text` asks for.
pub(super) fn plan(text: &str, tables: Vec<Opened>) -> Result<Planned, ApiError> {
    let statement = allow::statement(text)?;
    let (query, explains) = if let Statement::Explain { statement, .. } = statement {
        (statement.to_string(), true)
    } else {
        // The text itself, not the tree written down again.
        (text.to_owned(), false)
    };
    let mut context = SQLContext::new();
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    for table in tables {
        context.register(&table.name, table.frame);
    }
    let failed = |error: polars::error::PolarsError| {
        let mut said = error::of_polars("sql", &error);
        if said.message.contains("not found") && said.message.contains("relation") {
            said.message.push_str(&format!("; the tables are {}", names.join(", ")));
        }
        said
    };
    let mut frame = context.execute(&query).map_err(failed)?;
    frame.collect_schema().map_err(failed)?;
    if !explains {
        return Ok(Planned::Frame(Box::new(frame)));
    }
    let text = frame.describe_optimized_plan().map_err(failed)?;
    Ok(Planned::Explained(without_paths(&text)))
}

/// The plan without the names of our files: `Parquet SCAN [/files/blobs/..]`.
fn without_paths(plan: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in plan.lines() {
        let words = line.split(' ').map(|word| {
            let path = word.trim_start_matches('[').starts_with('/') && word.len() > 2;
            if path { "[file]" } else { word }
        });
        lines.push(words.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}
