//! A listener that answers each request with the next part of a script, byte for byte, and
//! remembers what was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /jobs HTTP/1.1`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Status line without the version, headers, body.
    Answer(&'static str, Vec<(&'static str, &'static str)>, String),
    /// These bytes, then the end of the connection.
    Raw(String),
    /// The connection is closed without a byte.
    Silence,
    /// Never.
    Hang,
}

impl Reply {
    pub(crate) fn json(status: &'static str, body: &serde_json::Value) -> Self {
        Self::Answer(status, vec![("content-type", "application/json")], body.to_string())
    }

    /// An event stream that ends where the text ends.
    pub(crate) fn events(text: &str) -> Self {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        Self::Raw(format!("{head}{text}"))
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for reply in script {
                let Ok((stream, _)) = listener.accept() else { return };
                if let Some(stream) = answer(stream, &reply, &log) {
                    hanging.push(stream);
                }
            }
            // What hangs stays open for as long as anybody may still ask.
            let _ = listener.accept();
        });
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, reply: &Reply, log: &Mutex<Vec<Asked>>) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut asked =
        Asked { line: line.trim().to_owned(), headers: Vec::new(), body: String::new() };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        asked.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).unwrap();
    log.lock().unwrap().push(asked);
    let mut stream = reader.into_inner();
    match reply {
        Reply::Silence => None,
        Reply::Hang => Some(stream),
        Reply::Raw(text) => {
            let _ = stream.write_all(text.as_bytes());
            None
        }
        Reply::Answer(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
            let _ = stream.write_all(text.as_bytes());
            None
        }
    }
}
