//! Options of the commands on what is kept: files, workflows, batches.

use std::path::PathBuf;

use aisemble_protocol::file::Purpose;
use clap::{Args, Subcommand};

/// `files`.
#[derive(Debug, Clone, Subcommand)]
pub enum FilesCommand {
    /// Upload files and print their ids
    Put {
        /// The files
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// What they are for: data, vision, batch, user_data
        #[arg(long, value_name = "PURPOSE", default_value = "user_data", value_parser = purpose)]
        purpose: Purpose,
    },
    /// Download a file
    Get {
        /// The file's id
        id: String,
        /// Where to write it [default: under its own name, here; `-` = standard output]
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// List your files, newest first
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Delete files
    Rm {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// `workflow`.
#[derive(Debug, Clone, Subcommand)]
pub enum WorkflowCommand {
    /// Submit a workflow, show each step as it goes, and print what the steps gave
    Run(WorkflowRun),
    /// Check a workflow and run nothing: every fault, each with its step
    Validate {
        /// The workflow, JSON; `-` = standard input
        file: PathBuf,
        /// Its inputs; a file is named and not uploaded
        #[command(flatten)]
        inputs: WorkflowInputs,
    },
    /// Run a workflow that failed again: what it had finished is taken over
    Retry {
        /// The workflow's id
        id: String,
        /// Print the id and return
        #[arg(long)]
        detach: bool,
    },
    /// Show each step of a workflow as it goes, until its end
    Watch {
        /// The workflow's id
        id: String,
    },
    /// Cancel a workflow with all its steps
    Cancel {
        /// The workflow's id
        id: String,
    },
    /// Draw a workflow, its steps with their states
    Graph {
        /// The workflow's id
        id: String,
        /// For Graphviz instead of Mermaid
        #[arg(long)]
        dot: bool,
    },
}

/// `workflow run`.
#[derive(Debug, Clone, Args)]
pub struct WorkflowRun {
    /// The workflow, JSON; `-` = standard input
    pub file: PathBuf,
    /// Its inputs.
    #[command(flatten)]
    pub inputs: WorkflowInputs,
    /// An earlier run: what it finished and this one asks again is taken over
    #[arg(long, value_name = "ID")]
    pub continue_from: Option<String>,
    /// Print the id and return
    #[arg(long)]
    pub detach: bool,
    /// The same key and workflow give the same run
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Inputs of a workflow.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkflowInputs {
    /// An input, as `limit=5` or `name=Eva`; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub input: Vec<String>,
    /// Upload this file and give it as an input, as `table=orders.csv`: its id, and its format if
    /// it is a table
    #[arg(long, value_name = "NAME=PATH")]
    pub file_input: Vec<String>,
}

/// `batch`.
#[derive(Debug, Clone, Subcommand)]
pub enum BatchCommand {
    /// Upload a file with a request a line and work through it
    Run {
        /// NDJSON as OpenAI's batches have it: custom_id, method, url, body
        file: PathBuf,
        /// What the lines call
        #[arg(long, value_name = "PATH", default_value = "/v1/chat/completions")]
        endpoint: String,
        /// Write the answers here [default: standard output]
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Print the id and return
        #[arg(long)]
        detach: bool,
    },
    /// List your batches, newest first
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
    },
    /// Show a batch
    Show {
        /// The batch's id
        id: String,
    },
    /// Cancel a batch; what is done stays
    Cancel {
        /// The batch's id
        id: String,
    },
}

fn purpose(text: &str) -> Result<Purpose, String> {
    let found = Purpose::parse(text).filter(|purpose| purpose.is_for_upload());
    found.ok_or_else(|| {
        let known = Purpose::ALL.iter().filter(|purpose| purpose.is_for_upload());
        let known: Vec<_> = known.map(|purpose| purpose.as_str()).collect();
        format!("known purposes are {}", known.join(", "))
    })
}
