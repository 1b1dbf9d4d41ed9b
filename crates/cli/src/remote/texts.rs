//! Texts from the command line, a file or standard input.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use aisemble_protocol::limits;

use crate::args::Texts;
use crate::failure::{Exit, Failure, Outcome};

/// The texts that the options name.
///
/// # Errors
/// When there are none, too many bytes, or a file cannot be read.
pub(super) fn gather(options: &Texts) -> Outcome<Vec<String>> {
    let mut texts = Vec::new();
    for text in &options.texts {
        if text == "-" {
            let content = read(std::io::stdin().lock(), Path::new("standard input"))?;
            add(&mut texts, content, options.whole);
        } else {
            texts.push(text.clone());
        }
    }
    if let Some(path) = &options.file {
        let file = File::open(path).map_err(|error| Failure::file("open", path, error))?;
        add(&mut texts, read(file, path)?, options.whole);
    }
    if texts.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no text")
            .hint("give texts, `-` for standard input, or --file PATH"));
    }
    Ok(texts)
}

fn read(source: impl Read, path: &Path) -> Outcome<String> {
    let limit = limits::NLP_TEXTS_BYTES_MAX as u64;
    let mut bytes = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::file("read", path, error))?;
    if bytes.len() as u64 > limit {
        let message = format!("{} has more than {limit} bytes", path.display());
        return Err(Failure::new(Exit::Usage, message).hint("split it into several calls"));
    }
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("{} is not UTF-8 text", path.display());
        Failure::new(Exit::Usage, message).hint("as in: iconv -f latin1 -t utf8 FILE")
    })
}

fn add(texts: &mut Vec<String>, content: String, whole: bool) {
    if whole {
        texts.push(content);
    } else {
        let lines = content.lines().filter(|line| !line.trim().is_empty());
        texts.extend(lines.map(str::to_owned));
    }
}

/// The beginning of a text, on one line and without what steers a terminal.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    let mut line = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == chars_max {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_lines_or_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.txt");
        std::fs::write(&path, "one\n\n two\n").unwrap();
        let options = |whole| Texts { texts: vec!["zero".into()], file: Some(path.clone()), whole };
        assert_eq!(gather(&options(false)).unwrap(), ["zero", "one", " two"]);
        assert_eq!(gather(&options(true)).unwrap(), ["zero", "one\n\n two\n"]);
        assert!(gather(&Texts::default()).unwrap_err().hint.is_some());
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(gather(&options(false)).unwrap_err().message.contains("UTF-8"));
        assert_eq!(short("a\u{1b}[31mé", 3), "a […");
    }
}
