//! JSON as templates write it. They are written for Python's `json.dumps` without escapes for HTML,
//! which is what `transformers` gives them; minijinja's own filter escapes `<` and `'`.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Spaces of one level that a template may ask for.
const INDENT_MAX: usize = 16;

/// The filter `tojson`, with the arguments that `transformers` gives it.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    // What changes nothing here: characters are never escaped, keys stay as they are.
    for name in ["ensure_ascii", "separators", "sort_keys"] {
        let _unused: Option<Value> = kwargs.get(name)?;
    }
    let indent: Option<usize> = kwargs.get("indent")?;
    kwargs.assert_all_used()?;
    let spaces = " ".repeat(indent.unwrap_or(0).min(INDENT_MAX));
    let mut bytes = Vec::new();
    let written = match indent {
        Some(_) => {
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced)),
    };
    let failed = |what: &str| Error::new(ErrorKind::InvalidOperation, what.to_owned());
    written.map_err(|error| failed("the value is no JSON").with_source(error))?;
    String::from_utf8(bytes).map_err(|_not_text| failed("the value is no text"))
}

/// `{"a": 1, "b": [2, 3]}`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;
    use minijinja::{Environment, context};
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_python_s() {
        let check = |template: &str, expect: &str| {
            let mut environment = Environment::new();
            environment.add_filter("tojson", tojson);
            let value = json!({"z": ["<a & 'b'>", 1.5, null], "a": {"é\n": []}});
            let context = context! { value => Value::from(Serde(value)) };
            assert_eq!(environment.render_str(template, context).unwrap(), expect);
        };
        let line = "{\"z\": [\"<a & 'b'>\", 1.5, null], \"a\": {\"é\\n\": []}}";
        check("{{ value | tojson }}", line);
        check("{{ value | tojson(ensure_ascii=False, sort_keys=false) }}", line);
        check("{{ value.a | tojson(indent=2) }}", "{\n  \"é\\n\": []\n}");
    }
}
