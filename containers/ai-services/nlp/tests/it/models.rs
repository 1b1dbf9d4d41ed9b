//! Where the tests' models lie, and how a test says that one is missing.

use std::path::{Path, PathBuf};

use aisemble_nlp::config::{ModelSection, NlpConfig, Precision};
use aisemble_nlp::model::LoadedModel;
use aisemble_nlp::service::NlpService;
use aisemble_service::LoadProgress;
use aisemble_weights::digest;

/// The folder of an installed model.
pub(crate) fn installed(name: &str) -> PathBuf {
    let cache = std::env::var_os("AISEMBLE_TEST_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ai-semble")
    });
    let folder = cache.join("models").join(name);
    assert!(
        folder.join("tokenizer.json").exists(),
        "{} is missing; `ai-semble models pull {name} --home {}` gets it",
        folder.display(),
        cache.display()
    );
    folder
}

/// A model of the tests' own data.
pub(crate) fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A section for a folder; whatever files it has are pinned as they are.
pub(crate) fn section(name: &str, folder: &Path) -> ModelSection {
    let files = ["model.safetensors", "head.safetensors", "tokenizer.json", "config.json"];
    let there = files.into_iter().chain(["tag_vocab.json"]).filter(|f| folder.join(f).exists());
    let pin = |file: &str| digest::sha256_file(&folder.join(file), |_, _| {}).unwrap();
    ModelSection {
        name: name.to_owned(),
        architecture: String::new(),
        path: folder.to_owned(),
        license: "Apache-2.0".to_owned(),
        pooling: String::new(),
        precision: Precision::F32,
        sha256: there.map(|file| (file.to_owned(), pin(file))).collect(),
    }
}

/// The sections loaded, on one thread.
pub(crate) fn load(sections: Vec<ModelSection>) -> Vec<LoadedModel> {
    let mut config = NlpConfig { model: sections, ..NlpConfig::default() };
    config.engine.threads = 1;
    NlpService::models(&config, &LoadProgress::new()).unwrap()
}
