//! Checks of what a caller sends, before anything is done with it.
//!
//! The orchestrator checks its callers too; a service does not rely on who talks to its socket.

use aisemble_protocol::v1::nlp_request::Task as Asked;
use aisemble_protocol::{ApiError, ErrorCode, limits, v1};

use crate::model::Task;
use crate::tasks::assemble::{EntityGoal, Goal};
use crate::tasks::redact::Redaction;

/// What the model is to look at.
#[derive(Debug)]
pub(super) enum Subjects {
    /// Texts.
    Texts(Vec<String>),
    /// Token ids.
    Tokens(Vec<Vec<u32>>),
    /// Documents against a query.
    Documents {
        /// What is looked for.
        query: String,
        /// Where.
        documents: Vec<String>,
    },
}

/// A task whose fields are all in order.
#[derive(Debug)]
pub(super) enum Checked {
    /// For a model that has the task.
    Model {
        /// The task.
        task: Task,
        /// What is made of it.
        goal: Goal,
        /// Of what.
        subjects: Subjects,
    },
    /// Rules and patterns need no model.
    Rules {
        /// What to look for.
        redaction: Redaction,
        /// Where.
        texts: Vec<String>,
    },
}

pub(super) fn check(asked: Option<Asked>) -> Result<Checked, ApiError> {
    match asked.ok_or_else(|| ApiError::invalid("task", "the request has no task"))? {
        Asked::Embed(task) => embed(task),
        Asked::Rerank(v1::RerankTask { query, documents }) => {
            check_texts("documents", &documents)?;
            if query.is_empty() {
                return Err(ApiError::invalid("query", "query is empty"));
            }
            check_bytes("query", query.len())?;
            let subjects = Subjects::Documents { query, documents };
            Ok(Checked::Model { task: Task::Rerank, goal: Goal::Rank, subjects })
        }
        Asked::Classify(v1::ClassifyTask { texts, top_k }) => {
            check_texts("texts", &texts)?;
            let goal = Goal::Labels { top_k: top_k as usize };
            Ok(Checked::Model { task: Task::Classify, goal, subjects: Subjects::Texts(texts) })
        }
        Asked::Entities(task) => {
            check_texts("texts", &task.texts)?;
            let aggregation = task.aggregation();
            let goal = entity_goal(aggregation, task.score_min, task.labels, "labels")?;
            let (goal, subjects) = (Goal::Entities(goal), Subjects::Texts(task.texts));
            Ok(Checked::Model { task: Task::Entities, goal, subjects })
        }
        Asked::Redact(mut task) => {
            check_texts("texts", &task.texts)?;
            let redaction = Redaction::checked(&task)?;
            let texts = std::mem::take(&mut task.texts);
            if !task.entities {
                return Ok(Checked::Rules { redaction, texts });
            }
            // Whole words: half a name is not hidden.
            let aggregation = v1::Aggregation::First;
            let labels = std::mem::take(&mut task.entity_labels);
            let goal = entity_goal(aggregation, task.score_min, labels, "entity_labels")?;
            let goal = Goal::Redact(goal, Box::new(redaction));
            Ok(Checked::Model { task: Task::Entities, goal, subjects: Subjects::Texts(texts) })
        }
    }
}

fn embed(task: v1::EmbedTask) -> Result<Checked, ApiError> {
    let subjects = match (task.texts.is_empty(), task.tokens.is_empty()) {
        (false, false) => {
            return Err(ApiError::invalid("tokens", "give texts or tokens, not both"));
        }
        (true, false) => {
            let lists: Vec<Vec<u32>> = task.tokens.into_iter().map(|list| list.ids).collect();
            check_count("tokens", lists.len())?;
            if let Some(index) = lists.iter().position(Vec::is_empty) {
                return Err(ApiError::invalid("tokens", format!("tokens[{index}] is empty")));
            }
            Subjects::Tokens(lists)
        }
        (_, true) => {
            check_texts("texts", &task.texts)?;
            Subjects::Texts(task.texts)
        }
    };
    let (task, goal) = if task.sparse {
        (Task::EmbedSparse, Goal::Sparse { terms_max: task.terms_max as usize })
    } else {
        let dimensions = task.dimensions as usize;
        (Task::Embed, Goal::Dense { dimensions, unit: task.normalize })
    };
    Ok(Checked::Model { task, goal, subjects })
}

fn entity_goal(
    aggregation: v1::Aggregation,
    score_min: f32,
    only: Vec<String>,
    param: &str,
) -> Result<EntityGoal, ApiError> {
    if !(0.0..=1.0).contains(&score_min) {
        let message = format!("score_min is {score_min}; it must be between 0 and 1");
        return Err(ApiError::invalid("score_min", message));
    }
    let limit = limits::NLP_LABELS_MAX;
    if only.len() > limit {
        let message = format!("{} {param} are given; at most {limit} are taken", only.len());
        return Err(ApiError::invalid(param, message));
    }
    Ok(EntityGoal { aggregation, score_min, only })
}

fn check_texts(param: &str, texts: &[String]) -> Result<(), ApiError> {
    check_count(param, texts.len())?;
    if let Some(index) = texts.iter().position(String::is_empty) {
        return Err(ApiError::invalid(param, format!("{param}[{index}] is empty")));
    }
    check_bytes(param, texts.iter().map(String::len).sum())
}

fn check_count(param: &str, given: usize) -> Result<(), ApiError> {
    let limit = limits::NLP_TEXTS_MAX;
    if given == 0 || given > limit {
        let message = format!("{given} {param} are given; between 1 and {limit} are taken");
        return Err(ApiError::invalid(param, message));
    }
    Ok(())
}

fn check_bytes(param: &str, bytes: usize) -> Result<(), ApiError> {
    let limit = limits::NLP_TEXTS_BYTES_MAX;
    if bytes > limit {
        let message = format!("{param} has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(param));
    }
    Ok(())
}
