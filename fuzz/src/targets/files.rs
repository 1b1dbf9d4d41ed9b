//! Files: pictures, weights, foreign weights, tables, settings.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use aisemble_convert::{Format, Precision, convert};
use aisemble_data_processor::engine::{self, Counters, Plan, Source, Table, Task};
use aisemble_nlp::tensors::TensorFile;
use aisemble_protocol::data::TableFormat;
use aisemble_service::{InvalidConfig, ServiceConfig};
use aisemble_vision::picture::{ImageLimits, decode, inspect};
use aisemble_weights::{GgufFile, ModelConfig, Tokenizer};

use super::{Answer, Target, contained};
use crate::seeds;

const TOML: &[&str] = &[
    "[model]\n",
    "[[model]]\n",
    "[engine]\n",
    "[socket]\n",
    "[model.sha256]\n",
    "= ",
    "\"\"\"",
    "[",
    "]",
    "{",
    "}",
    "threads = -1\n",
    "path = \"",
    "true",
    "0x7fffffffffffffff",
    "nan",
    "\n",
];
const CSV: &[&str] = &[",", "\"", "\n", "\r\n", "\"\"", ";", "NA", "1e400", "-0", "2024-01-15"];

pub(super) static TARGETS: [Target; 7] = [
    Target {
        name: "picture",
        seeds: seeds::pictures,
        words: &["IHDR", "IDAT", "IEND"],
        run: picture,
    },
    Target { name: "gguf", seeds: seeds::gguf, words: &["GGUF", "tokenizer.ggml."], run: gguf },
    Target {
        name: "safetensors",
        seeds: seeds::safetensors,
        words: &["F32", "shape"],
        run: safetensors,
    },
    Target { name: "foreign-weights", seeds: seeds::foreign, words: &["ctorch\n"], run: foreign },
    Target { name: "config", seeds: seeds::configs, words: TOML, run: config },
    Target { name: "csv", seeds: seeds::csv, words: CSV, run: csv },
    Target { name: "parquet", seeds: seeds::parquet, words: &["PAR1"], run: parquet },
];

const PICTURE: ImageLimits = ImageLimits {
    side_max: 4096,
    pixels_max: 4 << 20,
    decoded_bytes_max: 32 << 20,
    ratio_max: 2000,
};

fn picture(input: &[u8]) -> Answer {
    let inspected = inspect(input, &PICTURE);
    match decode(input, &PICTURE) {
        Ok((header, picture, _)) => {
            assert!(inspected.is_ok(), "decoded, but not inspected");
            let pixels = u64::from(header.width) * u64::from(header.height);
            assert!(pixels <= PICTURE.pixels_max, "{header:?}");
            assert_eq!((picture.width * picture.height) as u64, pixels, "{header:?}");
            Answer::Taken
        }
        Err(error) => Answer::Refused(error.to_string()),
    }
}

thread_local! {
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// An open file with this content, for readers that map files.
fn with_file(input: &[u8], read: impl FnOnce(&File) -> Answer) -> Answer {
    FILE.with_borrow_mut(|slot| {
        let file = slot.get_or_insert_with(|| match tempfile::tempfile() {
            Ok(file) => file,
            Err(error) => panic!("no temporary file: {error}"),
        });
        let written = file.set_len(0).and_then(|()| file.write_all_at(input, 0));
        assert!(written.is_ok(), "{written:?}");
        read(file)
    })
}

fn gguf(input: &[u8]) -> Answer {
    with_file(input, |file| {
        let gguf = match GgufFile::from_file(file, Path::new("input.gguf")) {
            Ok(gguf) => gguf,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        for name in gguf.tensor_names() {
            let _tensor = gguf.tensor(name);
        }
        let config = ModelConfig::from_gguf(&gguf).map_err(|error| error.to_string());
        let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|error| error.to_string());
        if let Ok(tokenizer) = &tokenizer {
            let _ids = tokenizer.encode("Hello, 12 wörld!\n<|im_start|>", true);
        }
        Answer::of(config.and(tokenizer))
    })
}

fn safetensors(input: &[u8]) -> Answer {
    with_file(input, |file| {
        let file = match TensorFile::open(file) {
            Ok(file) => file,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        for name in &names {
            let Ok(shape) = file.shape(name) else { continue };
            let shape = shape.to_vec();
            if let Ok(values) = file.floats(name, &shape) {
                assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
            }
        }
        Answer::Taken
    })
}

/// The first byte says which format.
fn foreign(input: &[u8]) -> Answer {
    let Some((format, rest)) = input.split_first() else { return Answer::Refused(String::new()) };
    let format = Format::ALL[usize::from(*format) % Format::ALL.len()];
    let _detected = Format::detect(rest);
    Answer::of(convert(rest, format, Precision::F16))
}

fn settings<T: ServiceConfig + serde::de::DeserializeOwned>(text: &str) -> Result<(), String> {
    let config: T = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    config.validate().map_err(|error: InvalidConfig| error.to_string())
}

/// The first byte says whose.
fn config(input: &[u8]) -> Answer {
    let Some((whose, rest)) = input.split_first() else { return Answer::Refused(String::new()) };
    let Ok(text) = std::str::from_utf8(rest) else { return Answer::Refused("no text".to_owned()) };
    Answer::of(match whose % 4 {
        0 => settings::<aisemble_llm::config::LlmConfig>(text),
        1 => settings::<aisemble_nlp::config::NlpConfig>(text),
        2 => settings::<aisemble_vision::config::VisionConfig>(text),
        _ => settings::<aisemble_data_processor::config::DataConfig>(text),
    })
}

fn table(format: TableFormat, source: Source) -> Answer {
    let options = aisemble_protocol::data::ReadOptions::default();
    let table = Table { name: "t".to_owned(), format, options, source };
    let task = Task {
        tables: vec![table],
        plan: Plan::AsItIs,
        output: None,
        output_bytes_max: 1 << 20,
        preview_rows: 5,
        profile: true,
    };
    contained(|| Answer::of(engine::run(&task, &Counters::default()).map_err(|e| e.message)))
}

fn csv(input: &[u8]) -> Answer {
    table(TableFormat::Csv, Source::Bytes(input.to_vec()))
}

/// Parquet comes as a file always: polars reads no such table from memory.
fn parquet(input: &[u8]) -> Answer {
    let file = tempfile::NamedTempFile::with_suffix(".parquet").and_then(|file| {
        file.as_file().write_all_at(input, 0)?;
        Ok(file)
    });
    let file = file.unwrap_or_else(|error| panic!("no temporary file: {error}"));
    table(TableFormat::Parquet, Source::File(file.path().to_owned()))
}
