//! A plain HTTP client for tests: JSON in and out, server-sent events, and raw bytes for requests
//! that no honest client would send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, or null when it is not JSON.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// `id:`.
    pub id: String,
    /// `event:`.
    pub name: String,
    /// `data:`.
    pub data: String,
}

impl Event {
    /// The data as JSON, null if it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// A client of one server with one key.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    key: Option<String>,
}

impl Client {
    /// A client of `http://ADDRESS`.
    #[must_use]
    pub fn new(address: &str, key: Option<&str>) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        Self { agent, base: format!("http://{address}"), key: key.map(str::to_owned) }
    }

    /// The same server with another key, or none.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self { key: key.map(str::to_owned), ..self.clone() }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let response = self.response(method, path, headers, body);
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        let mut text = String::new();
        let read = response.into_body().into_reader().read_to_string(&mut text);
        assert!(read.is_ok(), "{method} {path}: {read:?}");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, json, text }
    }

    /// `GET path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// `POST path` with a JSON body.
    #[must_use]
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send("POST", path, headers, body.to_string().as_bytes())
    }

    /// Reads server-sent events until the stream ends or `until` says so: of a `POST` with a body,
    /// of a `GET` without one.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn events(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
        mut until: impl FnMut(&Event) -> bool,
    ) -> Vec<Event> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = self.response(method, path, headers, body.as_bytes());
        assert_eq!(response.status().as_u16(), 200, "{method} {path}");
        let mut events = Vec::new();
        let mut event = Event::default();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let Ok(line) = line else { break };
            if line.is_empty() {
                if event != Event::default() {
                    events.push(std::mem::take(&mut event));
                    if events.last().is_some_and(&mut until) {
                        break;
                    }
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut event.id),
                "event" => value.clone_into(&mut event.name),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
        events
    }

    fn response(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> ureq::http::Response<ureq::Body> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if method == "POST" {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match request.body(body.to_vec()) {
            Ok(request) => self.agent.run(request),
            Err(error) => panic!("{method} {path}: {error}"),
        };
        sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

/// Sends bytes as they are over a fresh connection and gives back what came until the server closed
/// it or `patience` ran out.
#[must_use]
pub fn raw(address: &str, pieces: &[&[u8]], pause: Duration, patience: Duration) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let _ = stream.set_read_timeout(Some(patience));
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break;
        }
        std::thread::sleep(pause);
    }
    let mut answer = Vec::new();
    let mut buffer = [0_u8; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
