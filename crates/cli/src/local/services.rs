//! The services of local mode: what each is called, which can be started here, and with which
//! models.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::args::Up;
use crate::catalog::{self, CAPABILITIES, Catalog};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::models::Installed;
use crate::terminal::Terminal;

/// Services in the order of starting; they are stopped in the other order.
pub const SERVICES: [&str; 5] = ["llm", "nlp", "vision", "data-processor", "orchestrator"];
/// Instances of the llm on one machine.
pub const LLM_INSTANCES_MAX: usize = 16;

/// One process that is to be started before the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name in messages, and of its log and socket directory: `llm`, `llm-2`, `nlp`.
    pub name: String,
    /// Which service it is.
    pub service: &'static str,
    /// What it serves.
    pub models: Vec<Installed>,
}

/// What others may know of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which service it is.
    pub service: String,
    /// Where it answers.
    pub socket: PathBuf,
    /// Names of its models.
    pub models: Vec<String>,
}

impl Instance {
    /// Where it answers.
    #[must_use]
    pub fn socket(&self, home: &Home) -> PathBuf {
        home.run().join(&self.name).join(format!("{}.sock", self.service))
    }

    /// What the others may know of it.
    #[must_use]
    pub fn running(&self, home: &Home) -> Running {
        Running {
            service: self.service.to_owned(),
            socket: self.socket(home),
            models: self.models.iter().map(|model| model.name.clone()).collect(),
        }
    }
}

/// The capability's name in the orchestrator's configuration.
#[must_use]
pub fn capability(service: &str) -> &str {
    if service == "data-processor" { "data" } else { service }
}

/// Where the binary of a service lies.
///
/// # Errors
/// When it is not there.
pub fn binary(service: &str, bin_dir: Option<&Path>) -> Outcome<PathBuf> {
    let name = format!("ai-semble-{service}");
    let folder = match bin_dir {
        Some(folder) => std::path::absolute(folder),
        None => std::env::current_exe()
            .map(|own| own.parent().map_or_else(PathBuf::new, Path::to_path_buf)),
    };
    let folder = folder.map_err(|error| {
        Failure::new(Exit::Failed, "cannot tell where this program lies").because(error)
    })?;
    let path = folder.join(&name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(Exit::Failed, format!("there is no {name} in {}", folder.display()))
        .hint("`scripts/setup.sh --local` builds and installs all programs; or name --bin-dir"))
}

/// The instances that are to be started, models checked: those that `--services` names, else every
/// one whose binary and models are there.
///
/// # Errors
/// When one that was named cannot be started, no language model is installed, or a digest is wrong.
pub fn choose(home: &Home, options: &Up, terminal: Terminal) -> Outcome<Vec<Instance>> {
    let catalog = Catalog::load(options.catalog.catalog.as_deref())?;
    let mut instances = Vec::new();
    for service in SERVICES.into_iter().filter(|service| *service != "orchestrator") {
        let is_named = match &options.services {
            None => false,
            Some(named) if named.iter().any(|name| name == service) => true,
            Some(_) => continue,
        };
        if let Err(missing) = binary(service, options.bin_dir.as_deref()) {
            if is_named || service == "llm" {
                return Err(missing);
            }
            continue;
        }
        if service == "llm" {
            instances.extend(language_models(home, options, &catalog)?);
            continue;
        }
        let models = models_of(home, &catalog, service)?;
        if models.is_empty() && CAPABILITIES.contains(&service) {
            if is_named {
                let message = format!("no model for {service} is installed");
                return Err(Failure::new(Exit::Failed, message)
                    .hint("ai-semble models pull --default installs one for each service"));
            }
            terminal.note(&format!(
                "Leaving out {service}: no model is installed (ai-semble models pull --default)"
            ));
            continue;
        }
        instances.push(Instance { name: service.to_owned(), service, models });
    }
    if instances.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is nothing to start")
            .hint(format!("--services takes: {}", SERVICES[..4].join(", "))));
    }
    for model in instances.iter().flat_map(|instance| &instance.models) {
        check(home, model, terminal)?;
    }
    Ok(instances)
}

/// One instance for each language model that was named, times `--llm-instances`.
fn language_models(home: &Home, options: &Up, catalog: &Catalog) -> Outcome<Vec<Instance>> {
    let mut names = options.model.clone();
    if names.is_empty() {
        names.push(catalog.pick(None)?.name.clone());
    }
    let mut instances = Vec::new();
    for name in &names {
        catalog::check_name(name).map_err(|why| Failure::new(Exit::Usage, why))?;
        let Some(model) = Installed::find(home, catalog, name)? else {
            return Err(Failure::new(Exit::Failed, format!("the model {name} is not installed"))
                .hint(format!("ai-semble models pull {name}")));
        };
        if model.capability != "llm" {
            let message =
                format!("{name} is a model for {}, not a language model", model.capability);
            return Err(Failure::new(Exit::Usage, message)
                .hint("models of the other services are served without naming them"));
        }
        for _ in 0..options.llm_instances {
            let number = instances.len() + 1;
            let name = if number == 1 { "llm".to_owned() } else { format!("llm-{number}") };
            instances.push(Instance { name, service: "llm", models: vec![model.clone()] });
        }
    }
    if instances.len() > LLM_INSTANCES_MAX {
        let message = format!("{} llm instances; {LLM_INSTANCES_MAX} at most", instances.len());
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(instances)
}

/// The installed models of a service: the catalogue's first, in its order, then the user's own.
fn models_of(home: &Home, catalog: &Catalog, service: &str) -> Outcome<Vec<Installed>> {
    let mut models = Installed::all(home, catalog)?;
    models.retain(|model| model.capability == service);
    let place = |model: &Installed| {
        catalog.models.iter().position(|entry| entry.name == model.name).unwrap_or(usize::MAX)
    };
    models.sort_by_key(place);
    Ok(models)
}

fn check(home: &Home, model: &Installed, terminal: Terminal) -> Outcome<()> {
    let Some(damage) = model.damage(home, terminal)? else { return Ok(()) };
    let message = format!("{} is not the file it should be", damage.path.display());
    Err(Failure::new(Exit::CheckFailed, message)
        .because(format!("expected sha256 {}, found {}", damage.expected, damage.found))
        .hint(format!("ai-semble models pull --force {}", model.name)))
}
