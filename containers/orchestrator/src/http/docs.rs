//! `GET /docs`: the OpenAPI document as a page to read. One file of HTML without scripts and
//! without anything from elsewhere, made once.
//!
//! It must not know any route: what it shows is what the document says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use serde_json::Value;

use super::openapi;

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem \
auto;padding:0 1rem}h2{margin-top:2.5rem;border-bottom:1px solid #8886}code{font:13px/1.4 \
ui-monospace,monospace;overflow-wrap:anywhere}details{border:1px solid #8884;border-radius:6px;\
margin:.5rem 0;padding:.4rem .8rem}summary{cursor:pointer}table{border-collapse:collapse;width:\
100%;margin:.5rem 0}td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;\
border-top:1px solid #8883}.verb{display:inline-block;min-width:4rem;font-weight:700}\
.scope{float:right;opacity:.7}";

/// What the page may load: nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<String> = LazyLock::new(|| page(&openapi::parsed()));

/// This API's description, as a page. A browser may send the key as the password of HTTP basic
/// authentication.
#[utoipa::path(get, path = "/docs", tag = "operation", security(("key" = [])),
    responses((status = 200, body = String, content_type = "text/html")))]
pub(super) async fn serve() -> impl IntoResponse {
    let policy = HeaderValue::from_static(POLICY);
    let nosniff = HeaderValue::from_static("nosniff");
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = [
        (header::CONTENT_TYPE, html),
        (HeaderName::from_static("content-security-policy"), policy),
        (HeaderName::from_static("x-content-type-options"), nosniff),
    ];
    (headers, PAGE.as_str())
}

fn page(document: &Value) -> String {
    let mut html = String::new();
    let title = escaped(text(&document["info"]["title"]));
    // Writing to a String does not fail.
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <h1>{title} <small>{}</small></h1><p>{}</p>",
        escaped(text(&document["info"]["version"])),
        prose(&document["info"]["description"]),
    );
    let mut groups: BTreeMap<&str, Vec<(&str, &str, &Value)>> = BTreeMap::new();
    for (path, methods) in entries(&document["paths"]) {
        for (method, operation) in entries(methods) {
            groups.entry(text(&operation["tags"][0])).or_default().push((path, method, operation));
        }
    }
    for (tag, operations) in groups {
        let _ = write!(html, "<h2>{}</h2>", escaped(tag));
        for (path, method, operation) in operations {
            write_operation(&mut html, (path, method), operation);
        }
    }
    html.push_str("<h2>types</h2>");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        write_schema(&mut html, name, schema);
    }
    html.push_str("</body></html>\n");
    html
}

fn write_operation(html: &mut String, (path, method): (&str, &str), operation: &Value) {
    let scope = match operation["security"][0]["key"].as_array() {
        None => "no key needed".to_owned(),
        Some(scopes) if scopes.is_empty() => "any key".to_owned(),
        Some(scopes) => {
            format!("scope {}", scopes.iter().map(text).collect::<Vec<_>>().join(", "))
        }
    };
    let _ = write!(
        html,
        "<details><summary><span class=\"verb\">{}</span> <code>{}</code>\
         <span class=\"scope\">{}</span></summary><p>{}</p>",
        escaped(&method.to_uppercase()),
        escaped(path),
        escaped(&scope),
        prose(&operation["summary"]),
    );
    if operation["description"].is_string() {
        let _ = write!(html, "<p>{}</p>", prose(&operation["description"]));
    }
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let place = format!("{} ({})", text(&parameter["name"]), text(&parameter["in"]));
        let kind = type_of(&parameter["schema"]);
        row(&mut rows, &escaped(&place), &kind, &prose(&parameter["description"]));
    }
    for (media_type, body) in entries(&operation["requestBody"]["content"]) {
        row(&mut rows, "body", &type_of(&body["schema"]), &escaped(media_type));
    }
    for (status, response) in entries(&operation["responses"]) {
        let kinds: Vec<_> =
            entries(&response["content"]).map(|(_, content)| type_of(&content["schema"])).collect();
        let name = format!("answer {}", escaped(status));
        row(&mut rows, &name, &kinds.join(", "), &prose(&response["description"]));
    }
    let _ = write!(html, "<table>{rows}</table></details>");
}

fn write_schema(html: &mut String, name: &str, schema: &Value) {
    let (id, about) = (escaped(name), prose(&schema["description"]));
    let _ = write!(
        html,
        "<details id=\"{id}\"><summary><code>{id}</code></summary><p>{about}</p><table>"
    );
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().map(text).collect();
    for (field, kind) in entries(&schema["properties"]) {
        let needed = if required.contains(&field) { " <small>required</small>" } else { "" };
        let own = kind["description"].is_string();
        let about =
            prose(if own { &kind["description"] } else { &kind["oneOf"][0]["description"] });
        row(html, &format!("<code>{}</code>{needed}", escaped(field)), &type_of(kind), &about);
    }
    if !schema["properties"].is_object() {
        row(html, "is", &type_of(schema), "");
    }
    html.push_str("</table></details>");
}

fn row(html: &mut String, name: &str, kind: &str, about: &str) {
    let _ = write!(html, "<tr><td>{name}</td><td>{kind}</td><td>{about}</td></tr>");
}

/// A schema in a few words, as HTML; a named one as a link to where it is described.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        if let Some(kinds) = schema[list].as_array() {
            let kinds: Vec<_> =
                kinds.iter().filter(|kind| kind["type"] != "null").map(type_of).collect();
            return kinds.join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> =
            values.iter().map(|value| format!("<code>{}</code>", escaped(text(value)))).collect();
        return values.join(" ");
    }
    let name = match schema["type"].as_array() {
        Some(names) => names.iter().map(text).find(|name| *name != "null").unwrap_or_default(),
        None => text(&schema["type"]),
    };
    match name {
        "array" => format!("list of {}", type_of(&schema["items"])),
        "" => "anything".to_owned(),
        name => escaped(name),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A description: escaped, with its `code` as code.
fn prose(value: &Value) -> String {
    let escaped = escaped(text(value));
    let mut html = String::with_capacity(escaped.len());
    for (index, part) in escaped.split('`').enumerate() {
        if index > 0 {
            html.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
        }
        html.push_str(part);
    }
    if escaped.matches('`').count() % 2 == 1 {
        html.push_str("</code>");
    }
    html
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_and_type_of_the_document_is_on_the_page() {
        let (document, page) = (openapi::parsed(), PAGE.as_str());
        for (path, _) in entries(&document["paths"]) {
            assert!(page.contains(&format!("<code>{}</code>", escaped(path))), "{path}");
        }
        for (name, _) in entries(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("id=\"{}\"", escaped(name))), "{name}");
        }
        for link in page.split("href=\"#").skip(1) {
            let name = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{name}\"")), "{name} is linked and not there");
        }
        assert!(!page.contains("http://") && !page.contains("<script"), "nothing from elsewhere");
    }

    #[test]
    fn text_of_the_document_is_text() {
        assert_eq!(
            prose(&Value::from("<b> `a<b` `")),
            "&lt;b&gt; <code>a&lt;b</code> <code></code>"
        );
    }
}
