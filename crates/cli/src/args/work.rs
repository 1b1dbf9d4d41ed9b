//! Options of the commands on texts, pictures and tables.

use std::path::PathBuf;

use aisemble_protocol::data::TableFormat;
use aisemble_protocol::nlp::{Aggregation, CustomPattern, RedactRule, Replacement};
use aisemble_protocol::vision::Task;
use clap::{Args, Subcommand};

/// Where texts come from.
#[derive(Debug, Clone, Default, Args)]
pub struct Texts {
    /// The texts; `-` reads standard input, one text a line
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// Read texts from this file, one a line
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Take --file or standard input as one text, line ends included
    #[arg(long)]
    pub whole: bool,
}

/// `embed`.
#[derive(Debug, Clone, Args)]
pub struct Embed {
    /// The texts.
    #[command(flatten)]
    pub texts: Texts,
    /// The model [default: the first that embeds]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Weights of terms instead of one vector
    #[arg(long)]
    pub sparse: bool,
    /// The leading values only
    #[arg(long, value_name = "N")]
    pub dimensions: Option<u32>,
}

/// `rerank`.
#[derive(Debug, Clone, Args)]
pub struct Rerank {
    /// What is looked for
    pub query: String,
    /// Where: one document each
    #[command(flatten)]
    pub texts: Texts,
    /// The model [default: the first that reranks]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The best ones only
    #[arg(long, value_name = "N")]
    pub top: Option<u32>,
}

/// `classify`.
#[derive(Debug, Clone, Args)]
pub struct Classify {
    /// The texts.
    #[command(flatten)]
    pub texts: Texts,
    /// The model [default: the first that classifies]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Labels of each text
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub top: u32,
}

/// `entities`.
#[derive(Debug, Clone, Args)]
pub struct Entities {
    /// The texts.
    #[command(flatten)]
    pub texts: Texts,
    /// The model [default: the first that finds entities]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// How tags of word pieces become entities: none, simple, first, average, max
    #[arg(long, value_name = "HOW", default_value = "simple", value_parser = aggregation)]
    pub aggregation: Aggregation,
    /// Leave out what is less sure
    #[arg(long, value_name = "SHARE")]
    pub score_min: Option<f32>,
    /// Only this label; may be given several times
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
}

/// `redact`.
#[derive(Debug, Clone, Args)]
pub struct Redact {
    /// The texts.
    #[command(flatten)]
    pub texts: Texts,
    /// Only this rule: email, phone, iban, credit_card, ip_address, mac_address, url, us_ssn; may
    /// be given several times [default: all]
    #[arg(long, value_name = "RULE", value_parser = rule)]
    pub rule: Vec<RedactRule>,
    /// A pattern of your own, as `CASE=C-[0-9]+`; may be given several times
    #[arg(long, value_name = "LABEL=REGEX", value_parser = pattern)]
    pub pattern: Vec<CustomPattern>,
    /// Hide what a model finds as well
    #[arg(long)]
    pub entities: bool,
    /// The model that finds entities [default: the first that does]
    #[arg(long, value_name = "NAME", requires = "entities")]
    pub model: Option<String>,
    /// What stands where something was hidden: label, numbered, mask, remove
    #[arg(long, value_name = "HOW", default_value = "label", value_parser = replacement)]
    pub replacement: Replacement,
}

/// `see`.
#[derive(Debug, Clone, Args)]
pub struct See {
    /// The pictures
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// What to find out: classify, embed, zero_shot, detect, faces, ocr, caption
    #[arg(long, value_name = "TASK", value_delimiter = ',', default_value = "classify",
        value_parser = task)]
    pub task: Vec<Task>,
    /// The model for every task [default: the first for each]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Labels of classify and zero_shot
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: u32,
    /// Leave out what is less sure
    #[arg(long, value_name = "SHARE")]
    pub score_min: Option<f32>,
    /// A label for zero_shot; may be given several times
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Labels for zero_shot, with commas between them
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Write the picture with what was found drawn into it; with several pictures, a folder
    #[arg(long, value_name = "PATH")]
    pub annotated: Option<PathBuf>,
}

/// `data`.
#[derive(Debug, Clone, Subcommand)]
pub enum DataCommand {
    /// Run SQL over files of this machine: CSV, JSON, NDJSON, Parquet, Arrow
    ///
    /// Small text files go along with the query, others are uploaded and deleted afterwards.
    Query(DataQuery),
}

/// `data query`.
#[derive(Debug, Clone, Args)]
pub struct DataQuery {
    /// One SELECT statement
    pub sql: String,
    /// The tables, as `flights=flights.csv.gz`, or a file alone: then its name is the table's
    #[arg(value_name = "[TABLE=]FILE", required = true)]
    pub tables: Vec<String>,
    /// Write the whole result to this file; its ending says the format
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Rows that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: u32,
    /// Describe each column: nulls, distinct values, mean, quantiles
    #[arg(long)]
    pub profile: bool,
    /// Text that means null in CSV files, as NA; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub null: Vec<String>,
    /// Character between the fields of CSV files [default: , or a tab for .tsv]
    #[arg(long, value_name = "CHAR")]
    pub delimiter: Option<String>,
    /// Format of files whose ending does not say it
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<TableFormat>,
    /// Keep the uploaded files, to be used again by their ids
    #[arg(long)]
    pub keep: bool,
}

fn aggregation(text: &str) -> Result<Aggregation, String> {
    named(text, &["none", "simple", "first", "average", "max"])
}

fn replacement(text: &str) -> Result<Replacement, String> {
    named(text, &["label", "numbered", "mask", "remove"])
}

/// A value of the API by its name there.
fn named<T: serde::de::DeserializeOwned>(text: &str, known: &[&str]) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("known are {}", known.join(", ")))
}

fn rule(text: &str) -> Result<RedactRule, String> {
    RedactRule::parse(text).ok_or_else(|| {
        format!("known rules are {}", RedactRule::ALL.map(RedactRule::as_str).join(", "))
    })
}

fn pattern(text: &str) -> Result<CustomPattern, String> {
    let (label, pattern) = text.split_once('=').ok_or("write LABEL=REGEX")?;
    Ok(CustomPattern { label: label.to_owned(), pattern: pattern.to_owned() })
}

fn task(text: &str) -> Result<Task, String> {
    Task::parse(text).ok_or_else(|| format!("known tasks are {}", Task::names()))
}

fn format(text: &str) -> Result<TableFormat, String> {
    TableFormat::parse(text).ok_or_else(|| {
        format!("known formats are {}", TableFormat::ALL.map(TableFormat::as_str).join(", "))
    })
}
