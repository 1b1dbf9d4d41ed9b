//! Options of the commands that use a running Ai-semble.

use aisemble_protocol::JobState;
use aisemble_protocol::job::Priority;
use clap::{Args, Subcommand};

/// How tokens are chosen.
#[derive(Debug, Clone, Default, Args)]
pub struct Sampling {
    /// The model [default: the first one that is served]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// How many tokens at most [default: 256]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// 0 = always the likeliest token, up to 2 [default: 0.7]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample among the likeliest that make up this probability
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Sample among the K likeliest
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// The same seed and input give the same output
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Text that ends the completion; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

/// `chat`.
#[derive(Debug, Clone, Args)]
pub struct Chat {
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: Sampling,
}

/// `complete`.
#[derive(Debug, Clone, Args)]
pub struct Complete {
    /// The prompt; `-` reads it from standard input
    pub prompt: String,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    pub raw: bool,
    /// What the model is told before the prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: Sampling,
}

/// `jobs`.
#[derive(Debug, Clone, Subcommand)]
pub enum JobsCommand {
    /// Submit a completion as a job and print its id
    Submit(JobsSubmit),
    /// List jobs, newest first
    List(JobsList),
    /// Follow a job's events to its end; a broken connection is made again
    Watch(JobsWatch),
    /// Ask for a job's end
    Cancel {
        /// The job
        id: String,
    },
    /// Submit a job that failed again and print the new one's id; a workflow goes on where it was
    Retry {
        /// The job
        id: String,
    },
    /// Print a job's result
    Result {
        /// The job
        id: String,
        /// Wait until the job has ended
        #[arg(long)]
        wait: bool,
    },
}

/// `jobs submit`.
#[derive(Debug, Clone, Args)]
pub struct JobsSubmit {
    /// The prompt; `-` reads it from standard input
    pub prompt: String,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    pub raw: bool,
    /// Who goes first: interactive, normal, batch
    #[arg(long, value_name = "PRIORITY", default_value = "normal", value_parser = priority)]
    pub priority: Priority,
    /// Give the job up after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub deadline_seconds: Option<u64>,
    /// Makes the submission safe to repeat: the same key gives the same job
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Follow the job to its end
    #[arg(long)]
    pub watch: bool,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: Sampling,
}

/// `jobs list`.
#[derive(Debug, Clone, Args)]
pub struct JobsList {
    /// Only jobs in this state
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<JobState>,
    /// Only jobs of this kind, as llm.completion
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
}

/// `jobs watch`.
#[derive(Debug, Clone, Args)]
pub struct JobsWatch {
    /// The job
    pub id: String,
    /// Begin after this event
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub after: u64,
}

fn priority(text: &str) -> Result<Priority, String> {
    match text {
        "interactive" => Ok(Priority::Interactive),
        "normal" => Ok(Priority::Normal),
        "batch" => Ok(Priority::Batch),
        _ => Err("known priorities are interactive, normal, batch".to_owned()),
    }
}

fn state(text: &str) -> Result<JobState, String> {
    JobState::parse(text).ok_or_else(|| {
        let known: Vec<_> = JobState::ALL.iter().map(|state| state.as_str()).collect();
        format!("known states are {}", known.join(", "))
    })
}
