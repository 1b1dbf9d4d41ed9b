//! The command line: every command and option, and nothing of what they do. `docs/cli.md` is made
//! from here.

mod bench;
mod kept;
mod local;
mod remote;
mod work;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bench::{
    BenchCommand, BenchHttp, BenchJobs, BenchLlm, BenchLlmMode, BenchMap, BenchMapWork,
};
pub use kept::{BatchCommand, FilesCommand, WorkflowCommand, WorkflowInputs, WorkflowRun};
pub use local::{
    CatalogOption, Doctor, Down, KeysCommand, KeysCreate, ModelsCommand, ModelsImport, ModelsPull,
    Up,
};
pub use remote::{Chat, Complete, JobsCommand, JobsList, JobsSubmit, JobsWatch, Sampling};
pub use work::{Classify, DataCommand, DataQuery, Embed, Entities, Redact, Rerank, See, Texts};

/// Run Ai-semble on this machine, and use it.
#[derive(Debug, Clone, Parser)]
#[command(name = "ai-semble", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where models, keys, jobs and logs lie [default: ~/.local/share/ai-semble]
    #[arg(long, global = true, env = "AISEMBLE_HOME", hide_env_values = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Address of the orchestrator [default: that of the local `up`, else http://127.0.0.1:8080]
    #[arg(long, global = true, env = "AISEMBLE_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<String>,
    /// File that holds the API key [default: client-key in the home]
    #[arg(
        long,
        global = true,
        env = "AISEMBLE_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub key_file: Option<PathBuf>,
    /// Print data as JSON, one value a line; errors too (on stderr)
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no remarks on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Start the orchestrator and the services on this machine, without containers
    ///
    /// Makes the home directory and a first API key when they are missing, checks the model's
    /// digest, starts every process in its sandbox, and starts again one that dies. Ends, in order,
    /// on Ctrl-C or `ai-semble down`.
    Up(Up),
    /// Stop what `up` started
    Down(Down),
    /// Show what runs: processes, model, tokens, queue
    Status,
    /// Check this machine and what runs on it, with a repair for each finding
    Doctor(Doctor),
    /// The models on this machine
    #[command(subcommand)]
    Models(ModelsCommand),
    /// The API keys of this machine's orchestrator
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Talk with a model
    ///
    /// On a terminal: a prompt with line editing. With piped input: one message a line.
    Chat(Chat),
    /// Complete a prompt
    Complete(Complete),
    /// Turn texts into vectors
    Embed(Embed),
    /// Order documents by how well they answer a query
    Rerank(Rerank),
    /// Put labels on texts
    Classify(Classify),
    /// Find entities in texts
    Entities(Entities),
    /// Hide personal data in texts
    ///
    /// What may be shown goes to standard output, line for line.
    Redact(Redact),
    /// Look at pictures: classes, people, faces, printed text
    See(See),
    /// Work on tables
    #[command(subcommand)]
    Data(DataCommand),
    /// Files that the server keeps for you
    #[command(subcommand)]
    Files(FilesCommand),
    /// Workflows: steps over all capabilities
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Batches: a file with a request a line
    #[command(subcommand)]
    Batch(BatchCommand),
    /// Jobs: work that is kept until it is done
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Measure what runs
    #[command(subcommand)]
    Bench(BenchCommand),
}
