//! `ai-semble embed`, `rerank`, `classify`, `entities` and `redact`: the commands on texts.

use aisemble_protocol::nlp::{
    ClassifyRequest, EmbedRequest, EmbedResult, EntitiesRequest, RedactRequest, Representation,
    RerankRequest, Texts as RequestTexts,
};

use super::texts::{gather, short};
use super::{connect, work};
use crate::args::{Classify, Embed, Entities, Global, Redact, Rerank};
use crate::failure::Outcome;
use crate::terminal::Terminal;

/// Characters of a text in a table.
const SHOWN_CHARS: usize = 60;
/// Values of a vector that are shown.
const SHOWN_VALUES: usize = 6;

/// Runs `embed`.
///
/// # Errors
/// As the call.
pub async fn embed(global: &Global, options: Embed, terminal: Terminal) -> Outcome<()> {
    let texts = gather(&options.texts)?;
    let request = EmbedRequest {
        model: options.model,
        texts: Some(RequestTexts::Many(texts.clone())),
        dimensions: options.dimensions,
        representation: match options.sparse {
            true => Representation::Sparse,
            false => Representation::Dense,
        },
        ..EmbedRequest::default()
    };
    let result = work::run(&connect(global)?, &request, terminal).await?;
    if terminal.json {
        return terminal.data(&result);
    }
    let rows: Vec<_> = result
        .results
        .iter()
        .map(|one| {
            let text = texts.get(one.index as usize).map(|text| short(text, SHOWN_CHARS));
            vec![text.unwrap_or_default(), one.tokens.to_string(), values(one)]
        })
        .collect();
    terminal.table(&["TEXT", "TOKENS", "EMBEDDING (--json has all of it)"], &rows)?;
    similarities(&result, terminal);
    Ok(())
}

fn values(one: &aisemble_protocol::nlp::EmbeddedText) -> String {
    let (shown, all): (Vec<String>, usize) = match (&one.embedding, &one.sparse) {
        (Some(dense), _) => {
            let shown = dense.iter().take(SHOWN_VALUES).map(|value| format!("{value:.3}"));
            (shown.collect(), dense.len())
        }
        (None, Some(sparse)) => {
            let shown = sparse.iter().take(SHOWN_VALUES);
            let shown = shown.map(|term| format!("{}:{:.2}", term.index, term.value));
            (shown.collect(), sparse.len())
        }
        (None, None) => (Vec::new(), 0),
    };
    format!("[{}, …] {all} values", shown.join(", "))
}

/// How near each text is to the first.
fn similarities(result: &EmbedResult, terminal: Terminal) {
    let vectors: Vec<_> = result.results.iter().filter_map(|one| one.embedding.as_ref()).collect();
    let [first, others @ ..] = vectors.as_slice() else { return };
    if others.is_empty() {
        return;
    }
    let cosine = |other: &Vec<f32>| -> f32 { first.iter().zip(other).map(|(a, b)| a * b).sum() };
    let near: Vec<_> = others.iter().map(|other| format!("{:.3}", cosine(other))).collect();
    terminal.note(&format!("Cosine with the first text: {}", near.join(", ")));
}

/// Runs `rerank`.
///
/// # Errors
/// As the call.
pub async fn rerank(global: &Global, options: Rerank, terminal: Terminal) -> Outcome<()> {
    let documents = gather(&options.texts)?;
    let request = RerankRequest {
        model: options.model,
        query: options.query,
        documents: documents.clone(),
        top_n: options.top,
        ..RerankRequest::default()
    };
    let result = work::run(&connect(global)?, &request, terminal).await?;
    if terminal.json {
        return terminal.data(&result);
    }
    let rows: Vec<_> = result
        .results
        .iter()
        .map(|ranked| {
            let text = documents.get(ranked.index as usize).map(|text| short(text, SHOWN_CHARS));
            let number = (ranked.index + 1).to_string();
            vec![format!("{:.3}", ranked.score), number, text.unwrap_or_default()]
        })
        .collect();
    terminal.table(&["SCORE", "NO", "DOCUMENT"], &rows)
}

/// Runs `classify`.
///
/// # Errors
/// As the call.
pub async fn classify(global: &Global, options: Classify, terminal: Terminal) -> Outcome<()> {
    let texts = gather(&options.texts)?;
    let request = ClassifyRequest {
        model: options.model,
        texts: RequestTexts::Many(texts.clone()),
        top_k: Some(options.top),
        ..ClassifyRequest::default()
    };
    let result = work::run(&connect(global)?, &request, terminal).await?;
    if terminal.json {
        return terminal.data(&result);
    }
    let rows: Vec<_> = result
        .results
        .iter()
        .map(|one| {
            let labels: Vec<_> =
                one.labels.iter().map(|of| format!("{} {:.3}", of.label, of.score)).collect();
            let text = texts.get(one.index as usize).map(|text| short(text, SHOWN_CHARS));
            vec![text.unwrap_or_default(), labels.join(", ")]
        })
        .collect();
    terminal.table(&["TEXT", "LABELS"], &rows)
}

/// Runs `entities`.
///
/// # Errors
/// As the call.
pub async fn entities(global: &Global, options: Entities, terminal: Terminal) -> Outcome<()> {
    let texts = gather(&options.texts)?;
    let request = EntitiesRequest {
        model: options.model,
        texts: RequestTexts::Many(texts),
        aggregation: options.aggregation,
        score_min: options.score_min,
        labels: Some(options.label).filter(|labels| !labels.is_empty()),
        ..EntitiesRequest::default()
    };
    let result = work::run(&connect(global)?, &request, terminal).await?;
    if terminal.json {
        return terminal.data(&result);
    }
    let mut rows = Vec::new();
    for one in &result.results {
        for entity in &one.entities {
            rows.push(vec![
                (one.index + 1).to_string(),
                format!("{}-{}", entity.start, entity.end),
                entity.label.clone(),
                format!("{:.3}", entity.score),
                short(&entity.text, SHOWN_CHARS),
            ]);
        }
    }
    if rows.is_empty() {
        terminal.note("Nothing was found");
    }
    terminal.table(&["NO", "PLACE", "LABEL", "SCORE", "TEXT"], &rows)
}

/// Runs `redact`: the texts go to standard output as they may be shown, the rest to stderr.
///
/// # Errors
/// As the call.
pub async fn redact(global: &Global, options: Redact, terminal: Terminal) -> Outcome<()> {
    let texts = gather(&options.texts)?;
    let whole = options.texts.whole;
    let request = RedactRequest {
        model: options.model,
        texts: RequestTexts::Many(texts),
        rules: Some(options.rule).filter(|rules| !rules.is_empty()),
        patterns: options.pattern,
        entities: options.entities,
        replacement: options.replacement,
        ..RedactRequest::default()
    };
    let result = work::run(&connect(global)?, &request, terminal).await?;
    if terminal.json {
        return terminal.data(&result);
    }
    let hidden: usize = result.results.iter().map(|one| one.spans.len()).sum();
    for one in &result.results {
        if whole { terminal.write(&one.text)? } else { terminal.line(&one.text)? }
    }
    terminal.note(&format!("[{hidden} hidden]"));
    Ok(())
}
