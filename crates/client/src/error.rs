//! Why a call failed: the server's own words when it gave some, the transport's otherwise.

use aisemble_protocol::ErrorCode;
use serde::Deserialize;
use std::time::Duration;

/// A call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not one that this client can call.
    #[error("{url} is not a URL that can be called: {why}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key has characters that no HTTP header takes.
    #[error("the API key has characters that a header cannot carry")]
    Key,
    /// Nobody answers there.
    #[error("cannot connect to {url}")]
    Connect {
        /// Where.
        url: String,
        /// The transport's reason.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke while the answer was read.
    #[error("the connection to {url} broke")]
    Transport {
        /// Where.
        url: String,
        /// The transport's reason.
        #[source]
        source: reqwest::Error,
    },
    /// The caller's deadline passed.
    #[error("{what} took longer than {} ms", deadline.as_millis())]
    Deadline {
        /// The call, `POST /ai/llm/completion`.
        what: String,
        /// What was allowed.
        deadline: Duration,
    },
    /// The server answered with an error.
    #[error("{}", problem.sentence())]
    Api {
        /// What it said.
        problem: Box<Problem>,
    },
    /// The answer is not what the API promises.
    #[error("{what}: the answer is not what the API promises: {why}")]
    Decode {
        /// The call.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The answer is larger than this client takes.
    #[error("{what}: the answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The call.
        what: String,
        /// Bytes that are taken.
        limit_bytes: usize,
    },
    /// The event stream ended in the middle.
    #[error("{what}: the stream of events ended before its last event")]
    StreamEnded {
        /// The call.
        what: String,
    },
}

impl ClientError {
    /// The server's error code, when the server answered with one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Api { problem } => problem.code,
            Self::Url { .. }
            | Self::Key
            | Self::Connect { .. }
            | Self::Transport { .. }
            | Self::Deadline { .. }
            | Self::Decode { .. }
            | Self::TooLarge { .. }
            | Self::StreamEnded { .. } => None,
        }
    }

    /// When the server wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api { problem } => problem.retry_after,
            Self::Url { .. }
            | Self::Key
            | Self::Connect { .. }
            | Self::Transport { .. }
            | Self::Deadline { .. }
            | Self::Decode { .. }
            | Self::TooLarge { .. }
            | Self::StreamEnded { .. } => None,
        }
    }

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Transport { .. } | Self::StreamEnded { .. } => true,
            Self::Api { problem } => matches!(problem.status, 429 | 502 | 503 | 504),
            Self::Url { .. }
            | Self::Key
            | Self::Deadline { .. }
            | Self::Decode { .. }
            | Self::TooLarge { .. } => false,
        }
    }
}

/// An error answer (RFC 9457), or as much of one as the server gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What kind of error, in words.
    pub title: String,
    /// What happened to this request.
    pub detail: String,
    /// What kind of error, for a machine. Absent when the server is not ours.
    #[serde(deserialize_with = "code_or_none")]
    pub code: Option<ErrorCode>,
    /// The field at fault.
    pub param: Option<String>,
    /// What the server's log knows the request by.
    pub request_id: Option<String>,
    /// When to come again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// One sentence for a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        let said = [&self.detail, &self.title].into_iter().find(|text| !text.is_empty());
        match said {
            Some(text) => text.clone(),
            None => format!("the server answered {} and nothing more", self.status),
        }
    }

    /// Reads an error answer: `problem+json`, the OpenAI shape, or anything else as its first line.
    #[must_use]
    pub fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let mut problem = serde_json::from_slice::<Self>(body).unwrap_or_default();
        if problem.detail.is_empty()
            && let Ok(shape) = serde_json::from_slice::<OpenAiShape>(body)
        {
            problem.detail = shape.error.message;
            problem.param = shape.error.param;
            problem.code = shape.error.code;
        }
        if problem.sentence().is_empty() || (problem.detail.is_empty() && problem.title.is_empty())
        {
            let text = String::from_utf8_lossy(&body[..body.len().min(400)]);
            problem.detail = text.lines().next().unwrap_or_default().trim().to_owned();
        }
        problem.status = status;
        problem.retry_after = retry_after;
        problem
    }
}

#[derive(Deserialize)]
struct OpenAiShape {
    error: OpenAiError,
}

#[derive(Deserialize)]
struct OpenAiError {
    message: String,
    #[serde(default)]
    param: Option<String>,
    #[serde(default, deserialize_with = "code_or_none")]
    code: Option<ErrorCode>,
}

/// A code of a newer server is no reason to lose the sentence that came with it.
fn code_or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<ErrorCode>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answer_of_any_shape_gives_a_sentence() {
        let ours = br#"{"type":"about:blank","title":"Too many requests","status":429,
            "detail":"the llm queue is full (32)","code":"overloaded","request_id":"r1"}"#;
        let problem = Problem::read(429, ours, Some(Duration::from_secs(2)));
        assert_eq!(problem.code, Some(ErrorCode::Overloaded));
        assert_eq!(problem.sentence(), "the llm queue is full (32)");
        assert_eq!(problem.retry_after, Some(Duration::from_secs(2)));

        let openai = br#"{"error":{"message":"no such model","type":"x","param":"model",
            "code":"not_found"}}"#;
        let problem = Problem::read(404, openai, None);
        assert_eq!(problem.sentence(), "no such model");
        assert_eq!(problem.code, Some(ErrorCode::NotFound));

        let newer = br#"{"detail":"it rains","code":"rain"}"#;
        let problem = Problem::read(500, newer, None);
        assert_eq!((problem.code, problem.sentence().as_str()), (None, "it rains"));

        assert_eq!(Problem::read(502, b"<html>bad\ngateway", None).sentence(), "<html>bad");
        assert!(Problem::read(500, b"", None).sentence().contains("500"));
    }
}
