//! Requests as JSON and as gRPC messages: parsed, checked, turned into what the services take.

use std::collections::BTreeMap;

use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::data::ProcessRequest;
use aisemble_protocol::nlp::{
    ClassifyRequest, EmbedRequest, EntitiesRequest, NlpTask, RedactRequest, RerankRequest,
};
use aisemble_protocol::vision::AnalyzeRequest;
use aisemble_protocol::workflow::{WorkflowRequest, mermaid};
use aisemble_protocol::{ApiError, v1};
use prost::Message as _;
use serde::de::DeserializeOwned;

use super::{Answer, Target};
use crate::seeds;

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "null",
    "true",
    "-1",
    "1e309",
    "0.5",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\"texts\":",
    "\"images\":",
    "\"tasks\":",
    "\"model\":",
    "\"job\":",
    "\"stream\":true",
    "\"needs\":",
    "\"metadata\":",
    "\"deadline_ms\":",
];
const STEPS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"from\":",
    "inputs.",
    ".output.",
    "{{",
    "}}",
    "\"map\"",
    "\"merge\"",
    "\"reduce\"",
    "\"report\"",
    "\"when\":",
    "\"needs\":",
    "\"kind\":",
    "\"id\":",
    "\"data.process\"",
    "\"nlp.classify\"",
    "\"take\":\"results.0\"",
    "\"chunk_rows\":",
];

pub(super) static TARGETS: [Target; 6] = [
    Target { name: "nlp-request", seeds: seeds::nlp_requests, words: JSON, run: nlp },
    Target { name: "vision-request", seeds: seeds::vision_requests, words: JSON, run: vision },
    Target { name: "llm-request", seeds: seeds::llm_requests, words: JSON, run: llm },
    Target { name: "data-request", seeds: seeds::data_requests, words: JSON, run: data },
    Target { name: "workflow", seeds: seeds::workflows, words: STEPS, run: workflow },
    Target { name: "grpc", seeds: seeds::messages, words: &[], run: grpc },
];

/// Parses, checks, and must give the same when it is written and read again.
fn checked<T: DeserializeOwned + serde::Serialize>(
    input: &[u8],
    check: impl Fn(&T) -> Result<(), ApiError>,
) -> Answer {
    let request: T = match serde_json::from_slice(input) {
        Ok(request) => request,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let answer = check(&request);
    let written = serde_json::to_vec(&request).unwrap_or_default();
    let again: Result<T, _> = serde_json::from_slice(&written);
    assert!(again.is_ok(), "what was read cannot be written: {:?}", again.err());
    Answer::of(answer)
}

fn nlp_task<T: NlpTask>(input: &[u8]) -> Answer {
    checked::<T>(input, |request| request.to_run().map(drop))
}

/// The first byte says which task.
fn nlp(input: &[u8]) -> Answer {
    let Some((task, rest)) = input.split_first() else { return Answer::Refused(String::new()) };
    match task % 5 {
        0 => nlp_task::<EmbedRequest>(rest),
        1 => nlp_task::<RerankRequest>(rest),
        2 => nlp_task::<ClassifyRequest>(rest),
        3 => nlp_task::<EntitiesRequest>(rest),
        _ => nlp_task::<RedactRequest>(rest),
    }
}

fn vision(input: &[u8]) -> Answer {
    checked::<AnalyzeRequest>(input, |request| {
        request.validate()?;
        let bytes = request.sources()?.into_iter().map(|source| match source {
            aisemble_protocol::vision::ImageSource::Bytes(bytes) => bytes,
            aisemble_protocol::vision::ImageSource::File(id) => id.into_bytes(),
        });
        request.to_grpc(bytes.collect()).map(drop)
    })
}

fn llm(input: &[u8]) -> Answer {
    checked::<CompletionRequest>(input, |request| request.to_generate().map(drop))
}

fn data(input: &[u8]) -> Answer {
    checked::<ProcessRequest>(input, |request| request.to_process(&BTreeMap::new()).map(drop))
}

fn workflow(input: &[u8]) -> Answer {
    let request: WorkflowRequest = match serde_json::from_slice(input) {
        Ok(request) => request,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    match request.validate() {
        Ok(plan) => {
            assert_eq!(plan.order.len(), request.steps.len(), "every step has its place");
            let _drawn = mermaid(&request, &plan, &[]);
            Answer::Taken
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal says why");
            Answer::Refused(faults.iter().map(|fault| fault.message.clone()).collect())
        }
    }
}

/// Messages between processes; the first byte says which.
fn grpc(input: &[u8]) -> Answer {
    let Some((kind, rest)) = input.split_first() else { return Answer::Refused(String::new()) };
    match kind % 5 {
        0 => Answer::of(v1::NlpRequest::decode(rest)),
        1 => Answer::of(v1::AnalyzeRequest::decode(rest)),
        2 => Answer::of(v1::GenerateRequest::decode(rest)),
        3 => Answer::of(v1::ProcessRequest::decode(rest)),
        _ => match v1::RedactTask::decode(rest) {
            Ok(task) => Answer::of(aisemble_nlp::tasks::redact::Redaction::checked(&task)),
            Err(error) => Answer::Refused(error.to_string()),
        },
    }
}
