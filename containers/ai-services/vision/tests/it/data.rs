//! Where the models and the pictures are: what `scripts/test.sh` fetched.

use std::path::{Path, PathBuf};

/// A model as `configs/models.toml` knows it.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) license: String,
    pub(crate) files: Vec<(String, String)>,
    /// Where its files are.
    pub(crate) folder: PathBuf,
}

fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("AISEMBLE_TEST_CACHE") {
        return cache.into();
    }
    Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/ai-semble")
}

/// The vision models of the default set, in the list's order.
pub(crate) fn models() -> Vec<Model> {
    let list: toml::Table = include_str!("../../../../../configs/models.toml").parse().unwrap();
    let text = |table: &toml::Table, key: &str| table[key].as_str().unwrap().to_owned();
    let of_vision = list["model"].as_array().unwrap().iter().map(|model| model.as_table().unwrap());
    let of_vision = of_vision.filter(|model| model["capability"].as_str() == Some("vision"));
    let models: Vec<Model> = of_vision
        .map(|model| Model {
            folder: cache().join("models").join(text(model, "name")),
            name: text(model, "name"),
            architecture: text(model, "architecture"),
            license: text(model, "license"),
            files: model["file"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| file.as_table().unwrap())
                .map(|file| (text(file, "to"), text(file, "sha256")))
                .collect(),
        })
        .collect();
    for model in &models {
        for (file, _) in &model.files {
            let path = model.folder.join(file);
            let hint = "run `ai-semble --home ~/.cache/ai-semble models pull`";
            assert!(path.exists(), "{} is missing: {hint}", path.display());
        }
    }
    assert!(models.len() >= 5, "the list has lost its models: {models:?}");
    models
}

/// A picture of the test data.
pub(crate) fn picture(name: &str) -> Vec<u8> {
    let path = cache().join("pictures").join(name);
    let hint = "run scripts/test-data.sh";
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; {hint}", path.display()))
}
