//! Who may import whom: reads every manifest and fails on an edge that the table does not have.
//! The table is DESIGN's; a new edge is added here, in review, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aisemble_tests::repository_root;

/// Crate, and which of ours it may depend on.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // L0: none of ours
    ("aisemble-protocol", &[]),
    ("aisemble-sandbox", &[]),
    ("aisemble-batcher", &[]),
    ("aisemble-kernels", &[]),
    ("aisemble-nvml", &[]),
    // Its tests compare it with the CPU's kernels; the crate itself imports none.
    ("aisemble-cuda", &["aisemble-kernels"]),
    ("aisemble-convert", &[]),
    ("aisemble-weights", &["aisemble-kernels", "aisemble-cuda"]),
    // L1
    ("aisemble-jobs", &["aisemble-protocol"]),
    ("aisemble-client", &["aisemble-protocol"]),
    ("aisemble-service", &["aisemble-protocol", "aisemble-sandbox"]),
    // L2
    (
        "aisemble-nlp",
        &["aisemble-service", "aisemble-protocol", "aisemble-batcher", "aisemble-weights"],
    ),
    (
        "aisemble-llm",
        &[
            "aisemble-service",
            "aisemble-protocol",
            "aisemble-batcher",
            "aisemble-weights",
            "aisemble-nvml",
        ],
    ),
    ("aisemble-data-processor", &["aisemble-service", "aisemble-protocol", "aisemble-sandbox"]),
    (
        "aisemble-vision",
        &["aisemble-service", "aisemble-protocol", "aisemble-batcher", "aisemble-weights"],
    ),
    ("aisemble-orchestrator", &["aisemble-service", "aisemble-protocol", "aisemble-jobs"]),
    ("aisemble-door", &["aisemble-service"]),
    (
        "aisemble-cli",
        &["aisemble-protocol", "aisemble-client", "aisemble-convert", "aisemble-nvml"],
    ),
    // L3: the tests may import anything, and nothing imports them.
    ("aisemble-tests", &["*"]),
    ("aisemble-fuzz", &["*"]),
];

/// A heavy or sensitive dependency, and the only crates that may name it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("candle-core", &["aisemble-weights", "aisemble-llm"]),
    ("candle-nn", &["aisemble-weights", "aisemble-llm", "aisemble-vision"]),
    ("candle-transformers", &["aisemble-vision"]),
    ("image", &["aisemble-vision"]),
    ("polars", &["aisemble-data-processor"]),
    ("polars-sql", &["aisemble-data-processor"]),
    ("llguidance", &["aisemble-llm"]),
    ("axum", &["aisemble-orchestrator"]),
    ("rusqlite", &["aisemble-jobs"]),
    ("seccompiler", &["aisemble-sandbox"]),
    ("landlock", &["aisemble-sandbox"]),
    ("anyhow", &["aisemble-orchestrator", "aisemble-llm", "aisemble-cli"]),
];

struct Manifest {
    path: PathBuf,
    name: String,
    /// Dependencies of every kind but dev: what the crate is made of.
    normal: BTreeSet<String>,
    /// All dependencies, those of tests included.
    all: BTreeSet<String>,
    table: toml::Table,
}

#[test]
fn every_edge_between_our_crates_is_in_the_table() {
    let table: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    for manifest in manifests() {
        let allowed = table
            .get(manifest.name.as_str())
            .unwrap_or_else(|| panic!("{} is not in the layering table", manifest.name));
        for edge in manifest.all.iter().filter(|name| name.starts_with("aisemble-")) {
            assert!(
                allowed.contains(&edge.as_str()) || allowed == &["*"],
                "{} imports {edge}, which the layering table does not allow ({})",
                manifest.name,
                manifest.path.display()
            );
        }
    }
}

#[test]
fn heavy_dependencies_stay_where_they_belong() {
    for manifest in manifests() {
        for (dependency, homes) in ONLY_IN {
            assert!(
                !manifest.normal.contains(*dependency) || homes.contains(&manifest.name.as_str()),
                "{} depends on {dependency}; only {homes:?} may",
                manifest.name
            );
        }
    }
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    for manifest in manifests() {
        let lints = manifest.table.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints, Some(&toml::Value::Boolean(true)), "{}: [lints]", manifest.name);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(entries) = manifest.table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, entry) in entries {
                assert_eq!(
                    entry.get("workspace"),
                    Some(&toml::Value::Boolean(true)),
                    "{}: {name} must be declared in the root manifest",
                    manifest.name
                );
            }
        }
    }
}

fn manifests() -> Vec<Manifest> {
    let root = repository_root();
    let text = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let workspace: toml::Table = text.parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut paths = Vec::new();
    for member in members {
        let member = member.as_str().unwrap();
        match member.strip_suffix("/*") {
            None => paths.push(root.join(member).join("Cargo.toml")),
            Some(folder) => {
                for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                    paths.push(entry.unwrap().path().join("Cargo.toml"));
                }
            }
        }
    }
    assert!(paths.len() >= 10, "the workspace has lost its members: {paths:?}");
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Manifest {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let table: toml::Table = text.parse().unwrap();
    let names = |section: &str| -> BTreeSet<String> {
        let entries = table.get(section).and_then(toml::Value::as_table);
        entries.into_iter().flat_map(|entries| entries.keys().cloned()).collect()
    };
    let mut normal = names("dependencies");
    normal.extend(names("build-dependencies"));
    let mut all = normal.clone();
    all.extend(names("dev-dependencies"));
    let name = table["package"]["name"].as_str().unwrap().to_owned();
    Manifest { path: path.to_owned(), name, normal, all, table }
}
