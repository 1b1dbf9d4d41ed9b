//! `ai-semble models`: which models are installed, from where, and whether they are still what they
//! were. Loading them is the services' work.

mod fetch;
pub mod import;
mod installed;
mod packages;
mod place;
mod pull;
mod wheel;

use serde_json::json;

use crate::args::{Global, ModelsCommand};
use crate::catalog::Catalog;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::local::state::UpState;
use crate::terminal::{Terminal, size};

pub use installed::{Damage, Installed, InstalledFile};
pub(crate) use pull::plain_name;

/// Runs the command.
///
/// # Errors
/// When a model cannot be fetched, or its digest is wrong.
pub fn run(global: &Global, command: ModelsCommand, terminal: Terminal) -> Outcome<()> {
    let home = Home::named(global)?;
    match command {
        ModelsCommand::List { catalog } => {
            list(&home, &Catalog::load(catalog.catalog.as_deref())?, terminal)
        }
        ModelsCommand::Pull(pull) => {
            let catalog = Catalog::load(pull.catalog.catalog.as_deref())?;
            let installed = pull::run(&home, &catalog, &pull, terminal)?;
            if terminal.json {
                return installed.iter().try_for_each(|model| terminal.data(model));
            }
            Ok(())
        }
        ModelsCommand::Import(options) => import::run(&home, &options, terminal),
        ModelsCommand::Remove { name } => {
            let served = UpState::alive(&home)?.map(|state| state.models()).unwrap_or_default();
            import::remove(&home, &name, &served, terminal)
        }
        ModelsCommand::Verify { name, catalog } => {
            let catalog = Catalog::load(catalog.catalog.as_deref())?;
            verify(&home, &catalog, name.as_deref(), terminal)
        }
    }
}

fn list(home: &Home, catalog: &Catalog, terminal: Terminal) -> Outcome<()> {
    let installed = Installed::all(home, catalog)?;
    let is_there = |name: &str| installed.iter().any(|model| model.name == name);
    if terminal.json {
        return terminal.data(&json!({
            "installed": installed,
            "catalog": catalog.models,
        }));
    }
    let mut rows = Vec::new();
    for entry in &catalog.models {
        let state = if is_there(&entry.name) { "installed" } else { "to pull" };
        rows.push(vec![
            entry.name.clone(),
            entry.capability.clone(),
            entry.tasks.join(","),
            size(entry.bytes()),
            entry.license.clone(),
            if entry.default { "yes" } else { "" }.to_owned(),
            state.to_owned(),
        ]);
    }
    for model in installed.iter().filter(|model| catalog.get(&model.name).is_none()) {
        let state = if model.pinned { "installed" } else { "installed (digest not pinned)" };
        rows.push(vec![
            model.name.clone(),
            model.capability.clone(),
            model.tasks.join(","),
            size(model.bytes()),
            model.license.clone(),
            String::new(),
            state.to_owned(),
        ]);
    }
    terminal.table(&["NAME", "FOR", "TASKS", "SIZE", "LICENCE", "DEFAULT", "STATE"], &rows)
}

fn verify(home: &Home, catalog: &Catalog, name: Option<&str>, terminal: Terminal) -> Outcome<()> {
    let mut models = Installed::all(home, catalog)?;
    if let Some(name) = name {
        models.retain(|model| model.name == name);
        if models.is_empty() {
            return Err(Failure::new(Exit::Failed, format!("{name} is not installed"))
                .hint(format!("ai-semble models pull {name}")));
        }
    }
    let mut wrong = Vec::new();
    for model in &models {
        let damage = model.damage(home, terminal);
        let is_right = matches!(damage, Ok(None));
        if !is_right {
            wrong.push(model.name.clone());
        }
        if terminal.json {
            let (damage, unreadable) = match damage {
                Ok(damage) => (damage, None),
                Err(failure) => (None, Some(failure.to_string())),
            };
            terminal.data(&json!({
                "name": model.name, "passed": is_right, "damage": damage,
                "unreadable": unreadable,
            }))?;
        } else {
            terminal.line(&format!(
                "{} {}",
                if is_right { "ok   " } else { "WRONG" },
                model.name
            ))?;
        }
    }
    match wrong.first() {
        None => Ok(()),
        Some(first) => {
            Err(Failure::new(Exit::CheckFailed, format!("not as installed: {}", wrong.join(", ")))
                .hint(format!("ai-semble models pull --force {first}")))
        }
    }
}
