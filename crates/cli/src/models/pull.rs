//! `ai-semble models pull`: the models that were asked for, one after the other. What is there and
//! right is not fetched again, so the command can be broken off and repeated.

use std::path::Path;

use super::fetch::{self, Workspace};
use super::packages::Packages;
use super::place::{Place, anything};
use super::{Installed, InstalledFile};
use crate::args::ModelsPull;
use crate::catalog::{self, Catalog, Entry, check_file_name};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::{Terminal, size};

/// Installs what the options ask for and gives what is installed.
///
/// # Errors
/// When a model cannot be had, or a digest is wrong; nothing of that model's file is left then.
pub(super) fn run(
    home: &Home,
    catalog: &Catalog,
    options: &ModelsPull,
    terminal: Terminal,
) -> Outcome<Vec<Installed>> {
    home.ensure()?;
    let is_wheel = |path: &&Path| path.extension().is_some_and(|ending| ending == "whl");
    let offered = options.file.as_deref().filter(is_wheel);
    let lock = || {
        home.try_lock("models")?.ok_or_else(|| {
            Failure::new(Exit::TryLater, "another command is installing a model")
                .hint("wait for it to end, then try again")
        })
    };
    if options.hub.is_some() || (options.file.is_some() && offered.is_none()) {
        let foreign = Foreign::of(catalog, options)?;
        let _lock = lock()?;
        return foreign.install(home, options, terminal).map(|installed| vec![installed]);
    }
    let entries = wanted(catalog, options)?;
    for entry in &entries {
        accepted(entry, options)?;
    }
    let mut packages = Packages::new(home, offered, terminal);
    let mut done = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if entries.len() > 1 {
            let bytes = size(entry.bytes());
            let count = entries.len();
            terminal.note(&format!("[{}/{count}] {} ({bytes})", index + 1, entry.name));
        }
        if !options.force
            && let Some(there) = already(home, catalog, entry, terminal)?
        {
            terminal.note(&format!("{} is installed: {}", there.name, there.path(home).display()));
            done.push(there);
            continue;
        }
        let _lock = lock()?;
        let job = Job { home, catalog, force: options.force, terminal };
        done.push(job.install(entry, &mut packages)?);
    }
    if !options.keep_packages {
        packages.forget();
    }
    Ok(done)
}

/// The entries that the options name, in the catalogue's order.
fn wanted<'a>(catalog: &'a Catalog, options: &ModelsPull) -> Outcome<Vec<&'a Entry>> {
    if options.all || options.default {
        let is_wanted = |entry: &&Entry| options.all || entry.default;
        return Ok(catalog.models.iter().filter(is_wanted).collect());
    }
    let name = options.name.as_deref();
    let named: Vec<_> = options.models.iter().map(String::as_str).chain(name).collect();
    if named.is_empty() {
        return Ok(vec![catalog.pick(None)?]);
    }
    for name in &named {
        catalog::check_name(name).map_err(|why| Failure::new(Exit::Usage, why))?;
    }
    named.into_iter().map(|name| catalog.pick(Some(name))).collect()
}

fn accepted(entry: &Entry, options: &ModelsPull) -> Outcome<()> {
    if entry.terms.is_empty() || options.accept_terms {
        return Ok(());
    }
    let message = format!("{} may only be used under its own terms: {}", entry.name, entry.terms);
    let hint = "read them; if you accept them, add --accept-terms";
    Err(Failure::new(Exit::Usage, message).hint(hint))
}

/// The model, when it lies there and is whole.
fn already(
    home: &Home,
    catalog: &Catalog,
    entry: &Entry,
    terminal: Terminal,
) -> Outcome<Option<Installed>> {
    let Some(there) = Installed::find(home, catalog, &entry.name)? else { return Ok(None) };
    if there.damage(home, terminal)?.is_none() {
        there.record(home)?;
        return Ok(Some(there));
    }
    terminal.warn(&format!("{} is damaged and is installed again", entry.name));
    Ok(None)
}

/// How entries are installed.
struct Job<'a> {
    home: &'a Home,
    catalog: &'a Catalog,
    force: bool,
    terminal: Terminal,
}

impl Job<'_> {
    fn install(&self, entry: &Entry, packages: &mut Packages<'_>) -> Outcome<Installed> {
        let place = Place::of(self.home, &entry.name, self.terminal)?;
        for file in &entry.files {
            if !self.force && place.has(file) {
                continue;
            }
            if let Err(failure) = place.put(self.catalog, file, packages) {
                place.give_up();
                return Err(failure);
            }
        }
        let installed = Installed::of_entry(entry);
        installed.record(self.home)?;
        tell(&installed, self.home, self.terminal);
        Ok(installed)
    }
}

pub(super) fn tell(installed: &Installed, home: &Home, terminal: Terminal) {
    terminal.note(&format!(
        "Installed {} ({}, {}): {}",
        installed.name,
        size(installed.bytes()),
        installed.license,
        installed.path(home).display()
    ));
}

/// A model from a file of the user's own or from a hub, taken as it is.
struct Foreign<'a> {
    entry: Option<&'a Entry>,
    name: String,
    /// The file's name, where the catalogue gives it.
    to: Option<String>,
    sha256: Option<String>,
    license: String,
}

impl<'a> Foreign<'a> {
    fn of(catalog: &'a Catalog, options: &ModelsPull) -> Outcome<Self> {
        let usage = |why: String| Failure::new(Exit::Usage, why);
        if options.all || options.default || options.models.len() > 1 {
            return Err(usage("--file and --hub give one model".to_owned()));
        }
        let named = options.name.as_ref().or(options.models.first());
        let entry = match named {
            Some(name) => catalog.get(name),
            None => Some(catalog.pick(None)?),
        };
        let of_entry = || entry.map(|entry| entry.name.clone()).unwrap_or_default();
        let name = named.cloned().unwrap_or_else(of_entry);
        catalog::check_name(&name).map_err(usage)?;
        if let Some(text) = &options.sha256 {
            catalog::check_sha256(text).map_err(|why| usage(format!("--sha256 {why}")))?;
        }
        let (to, pinned) = match entry.map(|entry| entry.files.as_slice()) {
            None => (None, None),
            Some([file]) if file.convert.is_none() => {
                (Some(file.to.clone()), Some(file.sha256.clone()))
            }
            Some(_) => {
                let message =
                    format!("the catalogue's {name} is more than one file taken as it is");
                return Err(usage(message)
                    .hint("give its wheel with --file, or install the file with --name NAME"));
            }
        };
        if let (Some(pinned), Some(given)) = (&pinned, &options.sha256)
            && pinned != given
        {
            let message = format!("--sha256 is not the digest that the catalogue has for {name}");
            return Err(usage(message).hint("install it under another name with --name"));
        }
        let license = entry.map_or_else(|| options.license.clone(), |entry| entry.license.clone());
        let sha256 = pinned.or_else(|| options.sha256.clone());
        Ok(Self { entry, name, to, sha256, license })
    }

    fn install(&self, home: &Home, options: &ModelsPull, terminal: Terminal) -> Outcome<Installed> {
        if let Some(path) = &options.file {
            return self.take(home, path, terminal);
        }
        let repository = options.hub.as_deref().unwrap_or_default();
        let file = options.hub_file.as_deref().unwrap_or_default();
        let work = Workspace::new(&home.models())?;
        let path = fetch::from_hub(repository, file, &work, terminal)?;
        self.take(home, &path, terminal)
    }

    fn take(&self, home: &Home, path: &Path, terminal: Terminal) -> Outcome<Installed> {
        let to = match &self.to {
            Some(to) => to.clone(),
            None => plain_name(path)?,
        };
        let place = Place::of(home, &self.name, terminal)?;
        let mut expected = anything(self.sha256.clone());
        if let Some(entry) = self.entry {
            expected.bytes_max = entry.bytes();
        }
        let done = place.copied(path, &to, &expected);
        if done.is_err() {
            place.give_up();
        }
        let sha256 = done?;
        let folder = home.models().join(&self.name);
        let bytes = std::fs::metadata(folder.join(&to)).map_or(0, |data| data.len());
        let installed = Installed {
            name: self.name.clone(),
            capability: "llm".to_owned(),
            architecture: String::new(),
            tasks: Vec::new(),
            files: vec![InstalledFile { file: to, bytes, sha256 }],
            license: self.license.clone(),
            pinned: self.sha256.is_some(),
        };
        installed.record(home)?;
        tell(&installed, home, terminal);
        Ok(installed)
    }
}

/// The last part of the path, when it can be a file of a model.
pub(crate) fn plain_name(path: &Path) -> Outcome<String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check_file_name(name).map_err(|_| {
        Failure::new(Exit::Usage, format!("{} has no plain file name", path.display()))
    })?;
    Ok(name.to_owned())
}
