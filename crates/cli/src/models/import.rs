//! `ai-semble models import`: a weight file of another program's becomes a model of this home. The
//! file is read as data and converted to safetensors; nothing in it is run.

use std::fmt::Write as _;
use std::path::Path;

use aisemble_convert::Format;

use super::place::{Place, anything, format_of, precision, read_source};
use super::pull::{plain_name, tell};
use super::{Installed, InstalledFile};
use crate::args::ModelsImport;
use crate::catalog::{self, CAPABILITIES, Catalog, Conversion};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::Terminal;

/// Endings of files that services load as they are.
const LOADED_AS_THEY_ARE: [&str; 2] = ["safetensors", "gguf"];

/// Runs the command.
///
/// # Errors
/// When the file is none of the known kinds, holds what no weight file needs, or its result does
/// not have the digest that was asked for.
pub fn run(home: &Home, options: &ModelsImport, terminal: Terminal) -> Outcome<()> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    catalog::check_name(&options.name).map_err(usage)?;
    if !CAPABILITIES.contains(&options.capability.as_str()) {
        return Err(usage(format!("--for takes one of: {}", CAPABILITIES.join(", "))));
    }
    if let Some(text) = &options.sha256 {
        catalog::check_sha256(text).map_err(|why| usage(format!("--sha256 {why}")))?;
    }
    if Catalog::load(None)?.get(&options.name).is_some() {
        let message = format!("{} is a model of the catalogue", options.name);
        return Err(usage(message).hint("choose another --name"));
    }
    home.ensure()?;
    let _lock = home.try_lock("models")?.ok_or_else(|| {
        Failure::new(Exit::TryLater, "another command is installing a model").hint("try again")
    })?;
    let place = Place::of(home, &options.name, terminal)?;
    let installed = fill(home, options, &place, terminal).inspect_err(|_| place.give_up())?;
    installed.record(home)?;
    tell(&installed, home, terminal);
    if terminal.json {
        return terminal.data(&installed);
    }
    terminal.write(&entry(home, &installed))
}

fn fill(
    home: &Home,
    options: &ModelsImport,
    place: &Place,
    terminal: Terminal,
) -> Outcome<Installed> {
    let folder = home.models().join(&options.name);
    let bytes = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |data| data.len());
    let expected = anything(options.sha256.clone());
    let ending = options.file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let (to, sha256) = if options.kind.is_none() && LOADED_AS_THEY_ARE.contains(&ending) {
        let to = format!("model.{ending}");
        (to.clone(), place.copied(&options.file, &to, &expected)?)
    } else {
        let source = read_source(&options.file)?;
        let format = options.kind.map_or_else(|| format_of(&options.file, &source), Ok)?;
        let conversion = Conversion { format, precision: precision(options.f16) };
        let to = "model.safetensors".to_owned();
        let sha256 = place.converted(&source, conversion, &folder.join(&to), &expected)?;
        (to, sha256)
    };
    let mut files = vec![InstalledFile { bytes: bytes(&to), file: to, sha256 }];
    for path in &options.with {
        let file = plain_name(path)?;
        if files.iter().any(|other| other.file == file) {
            return Err(Failure::new(Exit::Usage, format!("two files are called {file}")));
        }
        let sha256 = place.copied(path, &file, &anything(None))?;
        files.push(InstalledFile { bytes: bytes(&file), file, sha256 });
    }
    terminal
        .note("The digests below are of what was made just now: pin them if you trust the file");
    Ok(Installed {
        name: options.name.clone(),
        capability: options.capability.clone(),
        architecture: options.architecture.clone(),
        tasks: options.task.clone(),
        files,
        license: options.license.clone(),
        pinned: options.sha256.is_some(),
    })
}

/// What a service's configuration says of the model.
fn entry(home: &Home, installed: &Installed) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = quoted(&installed.folder(home).to_string_lossy());
    let mut text = format!(
        "[[model]]\nname = {}\narchitecture = {}\npath = {path}\nlicense = {}\n[model.sha256]\n",
        quoted(&installed.name),
        quoted(&installed.architecture),
        quoted(&installed.license),
    );
    for file in &installed.files {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} = {}", quoted(&file.file), quoted(&file.sha256));
    }
    text
}

/// Reads `--kind`.
///
/// # Errors
/// A sentence with the known kinds.
pub fn kind(text: &str) -> Result<Format, String> {
    Format::parse(text).ok_or_else(|| {
        let known: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
        format!("known kinds are {}", known.join(", "))
    })
}

/// Removes a model's directory.
///
/// # Errors
/// When it is not installed, or is being served.
pub fn remove(home: &Home, name: &str, served: &[String], terminal: Terminal) -> Outcome<()> {
    catalog::check_name(name).map_err(|why| Failure::new(Exit::Usage, why))?;
    let folder = home.models().join(name);
    if !folder.is_dir() {
        return Err(Failure::new(Exit::Failed, format!("{name} is not installed"))
            .hint("`ai-semble models list` shows what is"));
    }
    if served.iter().any(|served| served == name) {
        return Err(Failure::new(Exit::TryLater, format!("{name} is being served"))
            .hint("stop it first: ai-semble down"));
    }
    let _lock = home.try_lock("models")?.ok_or_else(|| {
        Failure::new(Exit::TryLater, "another command is installing a model").hint("try again")
    })?;
    remove_folder(&folder)?;
    terminal.note(&format!("Removed {name}"));
    if terminal.json { terminal.data(&serde_json::json!({ "removed": name })) } else { Ok(()) }
}

fn remove_folder(folder: &Path) -> Outcome<()> {
    std::fs::remove_dir_all(folder).map_err(|error| Failure::file("remove", folder, error))
}
