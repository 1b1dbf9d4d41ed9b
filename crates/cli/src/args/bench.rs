//! Options of the measurements.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `bench`.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// What the orchestrator adds to a call, against calling the llm service directly
    ///
    /// Each round makes the same one-token completion three times: through /v1/completions, as a
    /// job that is waited for, and over the service's own socket. What the model itself took is
    /// subtracted from each.
    Http(BenchHttp),
    /// Prefill and decode tokens a second, beside llama.cpp when it is at hand
    ///
    /// Decode of several streams counts the tokens from the moment that the last stream has its
    /// first until the first stream has its last: what all of them do while all of them decode. The
    /// whole, prompts included, is given apart.
    Llm(BenchLlm),
    /// Load on the job API: jobs a second and pickup time
    Jobs(BenchJobs),
    /// A map over the rows of a table, against calling the service in a loop by hand
    ///
    /// The same rows go in turn through a workflow's map, through a loop over HTTP, and through a
    /// loop over the service's own socket, past the orchestrator; each with as many rows at the
    /// same time.
    Map(BenchMap),
}

/// `bench http`.
#[derive(Debug, Clone, Args)]
pub struct BenchHttp {
    /// Rounds that count
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub rounds: usize,
    /// Rounds before, that do not
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub warmup: usize,
    /// Socket of the llm service [default: that of the local `up`]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// `bench llm`.
#[derive(Debug, Clone, Args)]
pub struct BenchLlm {
    /// Tokens of the prompt, about
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub output_tokens: u32,
    /// Streams at once; several numbers are measured one after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4")]
    pub streams: Vec<usize>,
    /// What to measure
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',', default_value = "streams")]
    pub modes: Vec<BenchLlmMode>,
    /// Repetitions of each; the best counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub repeat: usize,
    /// Program that measures a peer on the same file and prints JSON (see scripts/bench-peer.sh)
    #[arg(long, value_name = "PROGRAM")]
    pub peer: Option<PathBuf>,
    /// Folder of the peer's library, handed to the program as --lib
    #[arg(long, value_name = "DIR", requires = "peer")]
    pub peer_lib: Option<PathBuf>,
    /// Threads of the peer [default: the number of processors]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The model file for the peer [default: the one that the local `up` serves]
    #[arg(long, value_name = "PATH")]
    pub model_file: Option<PathBuf>,
}

/// What `bench llm` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchLlmMode {
    /// Prefill and decode of streams at once
    Streams,
    /// Decode behind a prompt of 4096 tokens
    Context,
    /// Time to the first token of a prompt of 1024 tokens, and of another that begins like it
    Prefix,
    /// Time between two tokens of a stream while a prompt of 2048 tokens is computed
    Latency,
    /// Resident memory of the local llm service
    Memory,
}

/// `bench jobs`.
#[derive(Debug, Clone, Args)]
pub struct BenchJobs {
    /// Jobs to submit
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub jobs: usize,
    /// Submissions at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub concurrency: usize,
    /// Submit this many a second instead of all at once: pickup without a queue
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Tokens that each job generates
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub output_tokens: u32,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout_seconds: u64,
}

/// `bench map`.
#[derive(Debug, Clone, Args)]
pub struct BenchMap {
    /// What is done with each row
    #[arg(long, value_enum, default_value_t = BenchMapWork::Embed)]
    pub work: BenchMapWork,
    /// Rows of the table
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub rows: usize,
    /// Rows at the same time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub concurrency: u32,
    /// Rows of a chunk
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub chunk_rows: u32,
    /// Turns; the best of each way counts
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub rounds: usize,
    /// Take the texts from this file, a text a line, over and over
    #[arg(long, value_name = "PATH")]
    pub texts: Option<PathBuf>,
    /// Socket of the service [default: that of the local `up`]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// What `bench map` does with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchMapWork {
    /// A vector by the nlp service
    Embed,
    /// Two tokens by the llm service
    Llm,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "give a number".to_owned())?;
    if (0.01..=100_000.0).contains(&rate) { Ok(rate) } else { Err("0.01 to 100000".to_owned()) }
}
