//! Whether a text is a table at all, and which line is to blame when polars says that it is not.
//! It knows records, quotes and fields; it makes no columns.

use aisemble_protocol::data::ReadOptions;

use super::COLUMNS_MAX;

/// How far a plain file is looked through before polars gets it, bytes.
pub(super) const LOOK_BYTES_MAX: usize = 64 << 20;
/// How far a file is gone through for the line to blame, bytes.
pub(super) const BLAME_BYTES_MAX: usize = 1 << 30;

/// What splits a text into fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    delimiter: u8,
    quote: Option<u8>,
}

/// One record of a text: a line, unless a quoted field goes over several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    /// The line that it begins in, from 1.
    line: usize,
    /// Where it lies in the text, without the end of its line.
    begin: usize,
    end: usize,
    fields: usize,
}

impl Form {
    pub(super) fn of(options: &ReadOptions) -> Self {
        let first = |text: &Option<String>| text.as_ref().map(|text| text.bytes().next());
        Self {
            delimiter: first(&options.delimiter).flatten().unwrap_or(b','),
            quote: first(&options.quote).unwrap_or(Some(b'"')),
        }
    }

    fn records<'a>(self, text: &'a [u8]) -> impl Iterator<Item = Record> + 'a {
        let (mut at, mut line) = (0, 1);
        std::iter::from_fn(move || {
            if at >= text.len() {
                return None;
            }
            let mut record = Record { line, begin: at, end: text.len(), fields: 1 };
            let mut quoted = false;
            while at < text.len() {
                let byte = text[at];
                at += 1;
                if Some(byte) == self.quote {
                    quoted = !quoted;
                } else if byte == b'\n' {
                    line += 1;
                    if !quoted {
                        record.end = at - 1;
                        break;
                    }
                } else if byte == self.delimiter && !quoted {
                    record.fields += 1;
                }
            }
            Some(record)
        })
    }
}

/// Looks at the beginning of a text, before polars does.
///
/// # Errors
/// A sentence: it is no text, or no table that can be read.
pub(super) fn look(text: &[u8], options: &ReadOptions) -> Result<(), String> {
    if text.starts_with(&[0xFF, 0xFE]) || text.starts_with(&[0xFE, 0xFF]) {
        return Err("it is UTF-16: convert it to UTF-8".to_owned());
    }
    if let Some(at) = text.iter().position(|byte| *byte == 0) {
        let line = 1 + text[..at].iter().filter(|byte| **byte == b'\n').count();
        return Err(format!("line {line} holds a NUL byte: it is not a text in UTF-8"));
    }
    let first = Form::of(options).records(text).nth(options.skip_lines as usize);
    if let Some(record) = first.filter(|record| record.fields > COLUMNS_MAX) {
        let (line, fields) = (record.line, record.fields);
        return Err(format!("line {line} has {fields} columns; the limit is {COLUMNS_MAX}"));
    }
    Ok(())
}

/// The first line of `text` that is not UTF-8 or has more fields than the header.
pub(super) fn blame(text: &[u8], options: &ReadOptions) -> Option<String> {
    let mut wide = None;
    for record in Form::of(options).records(text).skip(options.skip_lines as usize) {
        let (line, bytes) = (record.line, &text[record.begin..record.end]);
        let is_comment =
            options.comment.as_ref().is_some_and(|prefix| bytes.starts_with(prefix.as_bytes()));
        if is_comment {
            continue;
        }
        if !options.lossy
            && let Err(error) = std::str::from_utf8(bytes)
        {
            let at = error.valid_up_to() + 1;
            return Some(format!(
                "line {line} is not UTF-8 (byte {at} of the line): convert the file, or read it \
                 with \"lossy\": true"
            ));
        }
        let columns = *wide.get_or_insert(record.fields);
        if record.fields > columns && !options.truncate_ragged_lines {
            return Some(format!(
                "line {line} has {} fields, the first has {columns}: quote fields that hold the \
                 delimiter, or read it with \"truncate_ragged_lines\": true",
                record.fields
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blamed(text: &[u8]) -> String {
        blame(text, &ReadOptions::default()).unwrap_or_default()
    }

    #[test]
    fn the_line_to_blame_is_named() {
        assert_eq!(blamed(b"a,b\n1,2\n3\n"), "", "a short line is filled with nulls");
        assert!(blamed(b"a,b\n1,2\n1,2,3\n").starts_with("line 3 has 3 fields, the first has 2"));
        let quoted = b"a,b\n\"x\ny\",2\n1,2,3\n";
        assert!(blamed(quoted).starts_with("line 4 "), "a quoted field may hold lines");
        assert!(blamed(b"a,b\n1,2\ncaf\xE9,2\n").starts_with("line 3 is not UTF-8 (byte 4"));
        let lossy = ReadOptions { lossy: true, ..ReadOptions::default() };
        assert_eq!(blame(b"a\ncaf\xE9\n", &lossy), None);
    }

    #[test]
    fn what_is_no_table_is_refused_at_the_first_look() {
        let look = |text: &[u8]| look(text, &ReadOptions::default());
        assert!(look(b"a,b\n1,\0\n").unwrap_err().contains("line 2 holds a NUL byte"));
        assert!(look(b"\xFF\xFEa\0").unwrap_err().contains("UTF-16"));
        let wide = "a,".repeat(999_999) + "a\n";
        assert!(look(wide.as_bytes()).unwrap_err().contains("1000000 columns; the limit is 10000"));
        assert_eq!(look(b""), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_and_blamed(
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
            quote in proptest::option::of(Just(String::new())),
        ) {
            let options = ReadOptions { quote, ..ReadOptions::default() };
            let _ = look(&bytes, &options);
            let _ = blame(&bytes, &options);
            let form = Form::of(&options);
            let covered: usize = form.records(&bytes).map(|r| r.end - r.begin).sum();
            prop_assert!(covered <= bytes.len());
        }
    }
}
