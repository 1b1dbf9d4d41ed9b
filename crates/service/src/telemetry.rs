//! Logs: one JSON object a line on stderr, a sentence and dotted fields, the fields of the spans
//! around it (`request.id`, `job.id`), the service's name and version.
//!
//! It must not be given prompts, outputs, bodies or keys; third-party crates, which might log such
//! things, are held to warnings.

use std::fmt;
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogConfig, LogLevel};

/// Bytes of one value; what is longer is cut.
const VALUE_BYTES_MAX: usize = 2048;
/// Bytes of a `request.id` or `job.id` that comes from outside.
pub const ID_BYTES_MAX: usize = 128;

/// Starts the logs of the process. A second call changes nothing.
pub fn install(name: &'static str, version: &'static str, config: &LogConfig) {
    let level = filter_of(config.level);
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("aisemble", level)
        .with_target("ai_semble", level);
    let layer = JsonLines { name, version }.with_filter(targets);
    // Refused only when there is a subscriber already.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
}

/// The span of a call or a job: every line within says which. Ids from outside that are over
/// [`ID_BYTES_MAX`] or not visible ASCII are left out.
#[must_use]
pub fn request_span(request_id: Option<&str>, job_id: Option<&str>) -> tracing::Span {
    let request_id = request_id.filter(|id| is_loggable(id));
    let job_id = job_id.filter(|id| is_loggable(id));
    // Of the highest level, so that a warning still carries its request at `log.level = "error"`.
    tracing::error_span!("request", request.id = request_id, job.id = job_id)
}

fn is_loggable(id: &str) -> bool {
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

struct JsonLines {
    name: &'static str,
    version: &'static str,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut late = Fields::default();
        values.record(&mut late);
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.0.append(&mut late.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut spans = Vec::new();
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(of_span) = span.extensions().get::<Fields>() {
                    spans.extend(of_span.0.iter().cloned());
                }
            }
        }
        // The innermost word on a name is the one that counts.
        for (name, value) in spans {
            if !fields.0.iter().any(|(known, _)| *known == name) {
                fields.0.push((name, value));
            }
        }
        let line = self.line(event.metadata(), &fields);
        // One write a line, so that lines of several threads do not mix. Nobody to tell if it
        // fails.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

impl JsonLines {
    fn line(&self, metadata: &tracing::Metadata<'_>, fields: &Fields) -> String {
        let mut line = String::with_capacity(256);
        line.push_str("{\"ts\":\"");
        if SystemTime.format_time(&mut Writer::new(&mut line)).is_err() {
            line.push('?');
        }
        line.push_str("\",\"level\":\"");
        line.push_str(level_text(*metadata.level()));
        line.push('"');
        let message = fields.0.iter().find(|(name, _)| *name == "message");
        push_member(&mut line, "message", message.map_or("\"\"", |(_, value)| value));
        push_member(&mut line, "service.name", &json_text(self.name));
        push_member(&mut line, "service.version", &json_text(self.version));
        push_member(&mut line, "target", &json_text(metadata.target()));
        for (name, value) in fields.0.iter().filter(|(name, _)| *name != "message") {
            push_member(&mut line, name, value);
        }
        line.push_str("}\n");
        line
    }
}

fn level_text(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn push_member(line: &mut String, name: &str, value: &str) {
    line.push(',');
    line.push_str(&json_text(name));
    line.push(':');
    line.push_str(value);
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Fields with their values as JSON.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn push(&mut self, field: &Field, value: String) {
        self.0.push((field.name(), value));
    }

    fn push_text(&mut self, field: &Field, text: &str) {
        let mut end = text.len().min(VALUE_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.push(field, json_text(&text[..end]));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities: they become null.
        self.push(field, serde_json::Value::from(value).to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps the lines instead of writing them.
    struct Kept(JsonLines, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.1.lock().unwrap().push(self.0.line(event.metadata(), &fields));
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_is_in_it() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let layer = Kept(JsonLines { name: "llm", version: "0.1.0" }, Arc::clone(&lines));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let long = "ä".repeat(VALUE_BYTES_MAX);
            tracing::warn!(
                duration_ms = 12_u64,
                ratio = f64::NAN,
                met = true,
                delta = -3_i64,
                path = "a\n\"b\"\u{7}",
                long,
                "it is {}",
                "so\n"
            );
        });
        let lines = lines.lock().unwrap();
        assert_eq!(lines[0].matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["message"], "it is so\n");
        assert_eq!((&line["duration_ms"], &line["met"]), (&12.into(), &true.into()));
        assert_eq!((&line["delta"], &line["ratio"]), (&(-3).into(), &serde_json::Value::Null));
        assert_eq!(line["path"], "a\n\"b\"\u{7}");
        assert_eq!(
            (&line["service.name"], &line["service.version"]),
            (&"llm".into(), &"0.1.0".into())
        );
        assert_eq!(line["long"].as_str().unwrap().len(), VALUE_BYTES_MAX);
        assert_eq!(line["level"], "warn");
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{}", line["ts"]);
    }

    #[test]
    fn only_ids_that_cannot_hurt_a_log_are_taken() {
        for (id, taken) in [("req_1", true), ("", false), ("a b", false), ("a\nb", false)] {
            assert_eq!(is_loggable(id), taken, "{id:?}");
        }
        assert!(
            is_loggable(&"x".repeat(ID_BYTES_MAX)) && !is_loggable(&"x".repeat(ID_BYTES_MAX + 1))
        );
    }
}
