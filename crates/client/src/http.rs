//! One call over HTTP: key, deadline, retries, bounded answer. It knows no route.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use tokio::time::Instant;

use crate::backoff::{RetryPolicy, parse_retry_after};
use crate::error::{ClientError, Problem};

/// Bytes of one answer that is not a stream.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A stream that says nothing for this long, not even a keep-alive comment, is dead.
pub const IDLE_MAX: Duration = Duration::from_secs(90);
/// Bytes of an error answer that are read.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Where to call and how patiently.
#[derive(Clone)]
pub struct ClientConfig {
    /// `http://127.0.0.1:8080`, without a path.
    pub url: String,
    /// The API key, `ais_...`; health and readiness need none.
    pub key: Option<String>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// What a call may take in all, tries and pauses included; a stream only until it begins.
    pub deadline: Duration,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("url", &self.url)
            .field("key", &self.key.as_ref().map(|_| "…"))
            .field("retry", &self.retry)
            .field("deadline", &self.deadline)
            .finish()
    }
}

impl ClientConfig {
    /// A configuration for `url` with the usual patience: 4 tries, 30 s in all.
    pub fn new(url: impl Into<String>, key: Option<String>) -> Self {
        Self {
            url: url.into(),
            key,
            retry: RetryPolicy::default(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// A client of one Ai-semble. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    config: Arc<ClientConfig>,
}

/// A request as it can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: reqwest::Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) body: Option<Bytes>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// What this call adds to the deadline: the server was asked to wait.
    pub(crate) patience: Duration,
    /// An error status that is an answer all the same.
    pub(crate) also_fine: Option<u16>,
}

impl Call {
    pub(crate) fn new(method: reqwest::Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Self {
            method,
            path,
            body: None,
            headers: Vec::new(),
            patience: Duration::ZERO,
            also_fine: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(reqwest::Method::GET, path)
    }

    pub(crate) fn json<T: serde::Serialize>(mut self, body: &T) -> Result<Self, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(|error| ClientError::Decode {
            what: self.what(),
            why: format!("the request does not become JSON: {error}"),
        })?;
        self.body = Some(bytes.into());
        Ok(self.header("content-type", "application/json"))
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The call's name in messages: method and path without the query.
    pub(crate) fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

/// A whole answer that is not an error.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) what: String,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn decode<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Decode {
            what: self.what.clone(),
            why: error.to_string(),
        })
    }
}

impl Client {
    /// A client for the configuration.
    ///
    /// # Errors
    /// When the URL is not `http://HOST[:PORT]`, or the key cannot be a header.
    pub fn new(mut config: ClientConfig) -> Result<Self, ClientError> {
        let url_error =
            |why: &str| ClientError::Url { url: config.url.clone(), why: why.to_owned() };
        let parsed =
            reqwest::Url::parse(&config.url).map_err(|error| url_error(&error.to_string()))?;
        if parsed.scheme() != "http" {
            return Err(url_error("it must begin with http:// (TLS ends at your own proxy)"));
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
            return Err(url_error("it must be http://HOST:PORT without a path"));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.key {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| ClientError::Key)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|source| ClientError::Connect { url: config.url.clone(), source })?;
        config.url.truncate(config.url.trim_end_matches('/').len());
        Ok(Self { http, config: Arc::new(config) })
    }

    /// Where this client calls.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.config.url
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.config.retry
    }

    /// Sends, again if need be, until an answer that is no error begins.
    pub(crate) async fn open(&self, call: &Call) -> Result<reqwest::Response, ClientError> {
        let deadline = self.config.deadline + call.patience;
        let until = Instant::now() + deadline;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = tokio::time::timeout_at(until, self.open_once(call)).await;
            let error = match sent {
                Err(_) => return Err(ClientError::Deadline { what: call.what(), deadline }),
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => error,
            };
            let pause = self.config.retry.pause(attempt, error.retry_after());
            let is_last = attempt >= self.config.retry.attempts_max;
            if is_last || !error.is_transient() || Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn open_once(&self, call: &Call) -> Result<reqwest::Response, ClientError> {
        let url = format!("{}{}", self.config.url, call.path);
        let mut request = self.http.request(call.method.clone(), url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        self.answered(call, request).await
    }

    /// Sends it; an answer that is an error becomes one.
    async fn answered(
        &self,
        call: &Call,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|source| self.broke(source))?;
        let status = response.status();
        if status.is_success() || call.also_fine == Some(status.as_u16()) {
            return Ok(response);
        }
        let wish = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wish.and_then(parse_retry_after);
        let body = self.read(response, &call.what(), PROBLEM_BYTES_MAX).await.unwrap_or_default();
        let problem = Problem::read(status.as_u16(), &body, retry_after);
        Err(ClientError::Api { problem: Box::new(problem) })
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn fetch(&self, call: &Call) -> Result<Answer, ClientError> {
        let deadline = self.config.deadline + call.patience;
        let work = async {
            let response = self.open(call).await?;
            let status = response.status().as_u16();
            let body = self.read(response, &call.what(), RESPONSE_BYTES_MAX).await?;
            Ok(Answer { what: call.what(), status, body })
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Deadline { what: call.what(), deadline }),
        }
    }

    /// Sends a body that is made while it is sent, once, and reads the whole answer.
    pub(crate) async fn send_stream(
        &self,
        call: &Call,
        body: reqwest::Body,
    ) -> Result<Answer, ClientError> {
        let deadline = self.config.deadline + call.patience;
        let work = async {
            let url = format!("{}{}", self.config.url, call.path);
            let mut request = self.http.request(call.method.clone(), url).body(body);
            for (name, value) in &call.headers {
                request = request.header(*name, value);
            }
            let response = self.answered(call, request).await?;
            let status = response.status().as_u16();
            let body = self.read(response, &call.what(), RESPONSE_BYTES_MAX).await?;
            Ok(Answer { what: call.what(), status, body })
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Deadline { what: call.what(), deadline }),
        }
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        what: &str,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|source| self.broke(source))? {
            if body.len() + piece.len() > limit_bytes {
                return Err(ClientError::TooLarge { what: what.to_owned(), limit_bytes });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    pub(crate) fn broke(&self, source: reqwest::Error) -> ClientError {
        let url = self.config.url.clone();
        // The URL is in our own message.
        let source = source.without_url();
        if source.is_connect() {
            ClientError::Connect { url, source }
        } else {
            ClientError::Transport { url, source }
        }
    }
}
