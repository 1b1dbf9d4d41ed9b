//! The model's files as the configuration names them: one GGUF file, or a folder with safetensors.
//! Every file that is pinned is proved before anything of it is parsed. It knows paths and digests,
//! not what is in the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use aisemble_service::{LoadProgress, StartError};
use aisemble_weights::{GgufFile, ModelSource, Quantise, SafetensorsModel, digest};

use crate::config::{ModelSection, Quantize};

/// A model's files, open.
pub(crate) struct OpenModel {
    /// Where its shape, its tokenizer and its tensors come from.
    pub(crate) source: Box<dyn ModelSource>,
    /// Digest of the file; of a folder, that of the lines that `sha256sum` prints for its files in
    /// the order of their names.
    pub(crate) sha256: String,
}

/// Opens what `model.path` names.
pub(crate) fn open(model: &ModelSection, progress: &LoadProgress) -> Result<OpenModel, StartError> {
    if model.path.is_dir() { open_folder(model, progress) } else { open_file(model, progress) }
}

/// What cannot be used of the model.
pub(crate) fn unusable(
    path: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StartError {
    StartError::config(format!("the model {} cannot be used", path.display())).with_source(source)
}

fn open_file(model: &ModelSection, progress: &LoadProgress) -> Result<OpenModel, StartError> {
    let path = &model.path;
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        StartError::config(format!("the model file {} is not usable", path.display()))
            .with_source(source)
            .with_hint("`ai-semble models pull` gets it, `ai-semble models verify` checks it")
    };
    let report = |done, total| progress.report("digest", done, total);
    let (file, sha256) = if model.sha256.is_empty() {
        tracing::warn!("model.sha256 is empty: any file is taken for the model");
        let sha256 = digest::sha256_file(path, report).map_err(|source| failed(source.into()))?;
        (File::open(path).map_err(|source| failed(source.into()))?, sha256)
    } else {
        let file = digest::open_verified(path, &model.sha256, report)
            .map_err(|source| failed(source.into()))?;
        (file, model.sha256.to_ascii_lowercase())
    };
    let gguf = GgufFile::from_file(&file, path).map_err(|source| unusable(path, source))?;
    Ok(OpenModel { source: Box::new(gguf), sha256 })
}

fn open_folder(model: &ModelSection, progress: &LoadProgress) -> Result<OpenModel, StartError> {
    if !model.sha256.is_empty() {
        let message = "model.sha256 is the digest of one file, and model.path is a folder";
        return Err(StartError::config(message).with_hint(
            "set model.sha256 to \"\" and give the digest of each file in [model.files]",
        ));
    }
    if model.files.is_empty() {
        tracing::warn!("model.files is empty: any files are taken for the model");
    }
    let mut digests = BTreeMap::new();
    let mut open = |file: &str| {
        let opened = open_pinned(model, file, progress)?;
        Ok(opened.map(|(handle, sha256)| {
            digests.insert(file.to_owned(), sha256);
            handle
        }))
    };
    let quantise = match model.quantize {
        Quantize::None => Quantise::None,
        Quantize::Q8_0 => Quantise::Q8_0,
    };
    let source = SafetensorsModel::open(&mut open, quantise)
        .map_err(|source| unusable(&model.path, source))?;
    let lines: String =
        digests.iter().map(|(file, sha256)| format!("{sha256}  {file}\n")).collect();
    Ok(OpenModel { source: Box::new(source), sha256: digest::sha256_bytes(lines.as_bytes()) })
}

/// A file of the folder and its digest; `None` when there is none.
fn open_pinned(
    model: &ModelSection,
    file: &str,
    progress: &LoadProgress,
) -> io::Result<Option<(File, String)>> {
    let path = model.path.join(file);
    if !path.try_exists()? {
        return Ok(None);
    }
    let report = |done, total| progress.report("digest", done, total);
    match model.files.get(file) {
        Some(pinned) => {
            let handle = digest::open_verified(&path, pinned, report).map_err(io::Error::other)?;
            Ok(Some((handle, pinned.to_ascii_lowercase())))
        }
        None if model.files.is_empty() => {
            let sha256 = digest::sha256_file(&path, report).map_err(io::Error::other)?;
            Ok(Some((File::open(&path)?, sha256)))
        }
        None => Err(io::Error::other("it is in the folder, but not in [model.files]")),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// The folder's pins; the files need not be a model to be proved.
    fn opened(pins: &[(&str, &[u8])], change: impl Fn(&mut ModelSection)) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), b"{}").unwrap();
        let mut model = ModelSection {
            path: folder.path().to_owned(),
            sha256: String::new(),
            ..ModelSection::default()
        };
        for (file, bytes) in pins {
            model.files.insert((*file).to_owned(), digest::sha256_bytes(bytes));
        }
        change(&mut model);
        let error = open(&model, &LoadProgress::new()).err().unwrap();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        text
    }

    #[track_caller]
    fn says(text: &str, expected: &str) {
        assert!(text.contains(expected), "expected `{expected}` in: {text}");
    }

    #[test]
    fn every_file_of_a_folder_is_proved_before_it_is_parsed() {
        says(&opened(&[("config.json", b"{ }")], |_| {}), "has sha256 44136fa3");
        says(&opened(&[("model.safetensors", b"")], |_| {}), "not in [model.files]");
        // With the right digest it is parsed.
        says(&opened(&[("config.json", b"{}")], |_| {}), "`config.json` cannot be read");
        says(&opened(&[], |_| {}), "`config.json` cannot be read");
        says(&opened(&[], |model| model.sha256 = "0".repeat(64)), "is the digest of one file");
    }
}
