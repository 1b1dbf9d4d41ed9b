//! `POST /v1/rerank`, as Jina and Cohere have it.

use std::sync::Arc;

use aisemble_protocol::nlp::{RerankRequest, RerankResult};
use axum::Json as Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::error::{Failure, OpenAiError};
use super::super::extract::{From, Json};
use super::{embeddings, params};
use crate::app::App;

const OWN_FIELDS: [&str; 5] = ["model", "query", "documents", "top_n", "return_documents"];

/// Documents to order by how well they answer a query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RankingRequest {
    /// The model; empty or absent = the first one that reranks.
    #[serde(default)]
    model: String,
    /// What is looked for.
    query: String,
    /// Where: texts, or objects with a `text`.
    #[schema(value_type = Vec<String>)]
    documents: Vec<Document>,
    /// The best ones only; absent = all.
    top_n: Option<u32>,
    /// Give the documents back; default false.
    #[serde(default)]
    return_documents: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Text(String),
    Object { text: String },
}

/// The documents, best first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Ranking {
    /// `rerank-...`
    id: String,
    /// Always `list`.
    object: &'static str,
    /// The model that answered.
    model: String,
    /// Best first.
    results: Vec<Ranked>,
    /// Tokens.
    usage: RankingUsage,
}

/// One document.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Ranked {
    /// Place in the request's documents.
    index: u32,
    /// Higher is better; the scale is the model's.
    relevance_score: f32,
    /// The document, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextOf>,
}

/// A document's text.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TextOf {
    text: String,
}

/// Tokens in.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::http) struct RankingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// Orders documents by how well they answer a query.
#[utoipa::path(post, path = "/v1/rerank", tag = "openai", security(("key" = ["nlp"])),
    request_body = RankingRequest,
    responses((status = 200, body = Ranking), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(body): Json<Map<String, Value>>,
) -> Result<Body<Ranking>, Failure> {
    let request = rerank_request(params::read_own(body, &OWN_FIELDS)?);
    let result = app.nlp(&origin, &request).await.map_err(embeddings::renamed)?;
    Ok(Body(answer(result)))
}

fn rerank_request(request: RankingRequest) -> RerankRequest {
    let RankingRequest { model, query, documents, top_n, return_documents } = request;
    let text = |document| match document {
        Document::Text(text) | Document::Object { text } => text,
    };
    RerankRequest {
        model: Some(model).filter(|model| !model.is_empty()),
        query,
        documents: documents.into_iter().map(text).collect(),
        top_n,
        return_documents,
        ..RerankRequest::default()
    }
}

fn answer(result: RerankResult) -> Ranking {
    let tokens = result.usage.tokens;
    let results = result.results.into_iter().map(|one| Ranked {
        index: one.index,
        relevance_score: one.score,
        document: one.document.map(|text| TextOf { text }),
    });
    Ranking {
        id: format!("rerank-{}", uuid::Uuid::now_v7().simple()),
        object: "list",
        model: result.model,
        results: results.collect(),
        usage: RankingUsage { prompt_tokens: tokens, total_tokens: tokens },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_texts_or_objects_with_a_text() {
        let Value::Object(body) = json!({"query": "q", "documents": ["a", {"text": "b"}]}) else {
            panic!("an object")
        };
        let request = rerank_request(params::read_own(body, &OWN_FIELDS).unwrap());
        assert_eq!(request.documents, ["a", "b"]);
        assert_eq!((request.model, request.return_documents), (None, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |body: Value, param: Option<&str>, sentence: &str| {
            let Value::Object(map) = body.clone() else { panic!("an object") };
            let error = params::read_own::<RankingRequest>(map, &OWN_FIELDS).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}: {}", error.message);
            assert!(error.message.contains(sentence), "{body}: {}", error.message);
        };
        check(json!({"documents": ["a"]}), None, "missing field `query`");
        check(json!({"query": "q"}), None, "missing field `documents`");
        check(json!({"query": "q", "documents": [1]}), Some("documents[0]"), "documents[0]");
        check(json!({"query": "q", "documents": [], "k": 1}), Some("k"), "Unrecognized");
    }
}
