//! What `up` starts: which binaries with which configuration. The services' settings come from
//! `configs/SERVICE.toml` in the home, then `--set`, then what local mode itself decides: paths,
//! sockets, models and their digests.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Table, Value};

use super::child::ChildSpec;
use super::services::{Instance, Running, binary, capability};
use super::settings::{Setting, put, settings, user_config};
use crate::args::Up;
use crate::failure::{Failure, Outcome};
use crate::home::{Home, write_atomically};
use crate::models::Installed;

/// Everything that is to be started.
#[derive(Debug)]
pub struct Plan {
    /// The services, by the names of their children.
    pub services: BTreeMap<String, Running>,
    /// The first language model's name and file; empty without one.
    pub model: (String, PathBuf),
    /// The children in the order of starting.
    pub children: Vec<ChildSpec>,
}

/// Lays down the services' configuration and says how each is started.
///
/// # Errors
/// When a binary is missing, or a setting cannot be understood.
pub fn make(
    home: &Home,
    options: &Up,
    instances: &[Instance],
    listener: &Arc<TcpListener>,
) -> Outcome<Plan> {
    let given = settings(&options.set)?;
    let mut children = Vec::new();
    for instance in instances {
        let fixed = of_instance(home, instance, instances, options)?;
        let config = configured(home, instance.service, &given, fixed)?;
        private_folder(&home.run().join(&instance.name))?;
        children.push(child(home, options, (&instance.name, instance.service), &config)?);
    }
    let config =
        configured(home, "orchestrator", &given, of_orchestrator(home, instances, options))?;
    let mut orchestrator = child(home, options, ("orchestrator", "orchestrator"), &config)?;
    orchestrator.listener = Some(Arc::clone(listener));
    children.push(orchestrator);
    let first = instances.iter().find(|instance| instance.service == "llm");
    let first = first.and_then(|instance| instance.models.first());
    let model = first.map(|model| (model.name.clone(), model.path(home))).unwrap_or_default();
    let running = |instance: &Instance| (instance.name.clone(), instance.running(home));
    Ok(Plan { services: instances.iter().map(running).collect(), model, children })
}

/// Writes a child's configuration and says how it is started.
fn child(
    home: &Home,
    options: &Up,
    (name, service): (&str, &str),
    config: &Table,
) -> Outcome<ChildSpec> {
    let program = binary(service, options.bin_dir.as_deref())?;
    let path = home.run().join(format!("{name}.toml"));
    let text = format!(
        "# Made by `ai-semble up` from configs/{service}.toml in this home and from --set.\n\
         # It is written anew at each start.\n{config}"
    );
    write_atomically(&path, text.as_bytes(), 0o600)?;
    Ok(ChildSpec {
        name: name.to_owned(),
        program,
        args: vec!["--config".into(), path.into()],
        folder: home.root().to_owned(),
        log: home.log(name),
        listener: None,
    })
}

type Fixed = Vec<(&'static str, Value)>;

/// The user's file, then `--set`, then what is fixed.
fn configured(home: &Home, service: &str, given: &[Setting], fixed: Fixed) -> Outcome<Table> {
    let mut config = user_config(home, service)?;
    for (_, key, value) in given.iter().filter(|(of, ..)| of == service) {
        put(&mut config, key, value.clone())?;
    }
    for (key, value) in fixed {
        let key: Vec<_> = key.split('.').map(str::to_owned).collect();
        // A model's own settings, as its precision, stay the user's.
        let value = if key == ["model"] { with_users_settings(value, &config) } else { value };
        put(&mut config, &key, value)?;
    }
    Ok(config)
}

/// What local mode itself decides for a service.
fn of_instance(home: &Home, instance: &Instance, all: &[Instance], options: &Up) -> Outcome<Fixed> {
    let mut values = vec![drain(options), ("socket.path", text(&instance.socket(home)))];
    match (instance.service, instance.models.first()) {
        ("llm", Some(model)) => {
            values.extend([
                ("model.path", text(&model.path(home))),
                ("model.name", Value::String(model.name.clone())),
                ("model.sha256", Value::String(model.sha256().to_owned())),
                ("model.license", Value::String(model.license.clone())),
            ]);
            values.extend(shared_threads(home, all, options)?);
        }
        ("data-processor", _) => {
            let (blobs, exchange) =
                (home.files().join("blobs"), home.files().join("incoming/data"));
            private_folder(&blobs)?;
            private_folder(&exchange)?;
            values.extend([("files.blobs", text(&blobs)), ("files.exchange", text(&exchange))]);
        }
        _ => {
            let models = instance.models.iter().map(|model| section(home, model)).collect();
            values.push(("model", Value::Array(models)));
        }
    }
    Ok(values)
}

/// Several language models on one machine share its processors, unless the user says otherwise.
fn shared_threads(home: &Home, all: &[Instance], options: &Up) -> Outcome<Fixed> {
    let instances = all.iter().filter(|instance| instance.service == "llm").count();
    let config = configured(home, "llm", &settings(&options.set)?, Vec::new())?;
    let given = config.get("engine").and_then(|engine| engine.get("threads"));
    if instances < 2 || given.is_some() {
        return Ok(Vec::new());
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let each = i64::try_from((processors / instances).max(1)).unwrap_or(1);
    Ok(vec![("engine.threads", Value::Integer(each))])
}

/// `[[model]]` of a service with a fixed set of models: every file that it loads is pinned.
fn section(home: &Home, model: &Installed) -> Value {
    let digests =
        model.files.iter().map(|file| (file.file.clone(), Value::String(file.sha256.clone())));
    let mut section = Table::new();
    section.insert("name".into(), Value::String(model.name.clone()));
    section.insert("architecture".into(), Value::String(model.architecture.clone()));
    section.insert("path".into(), text(&model.folder(home)));
    section.insert("license".into(), Value::String(model.license.clone()));
    section.insert("sha256".into(), Value::Table(digests.collect()));
    Value::Table(section)
}

/// Adds to each model what the user's own section of the same name says beside it.
fn with_users_settings(models: Value, config: &Table) -> Value {
    let Value::Array(models) = models else { return models };
    let of_user = config.get("model").and_then(Value::as_array).cloned().unwrap_or_default();
    let merged = models.into_iter().map(|model| {
        let Value::Table(fixed) = model else { return model };
        let own = of_user.iter().filter_map(Value::as_table);
        let own = own.into_iter().find(|own| own.get("name") == fixed.get("name"));
        let mut merged = own.cloned().unwrap_or_default();
        merged.extend(fixed);
        Value::Table(merged)
    });
    Value::Array(merged.collect())
}

fn of_orchestrator(home: &Home, instances: &[Instance], options: &Up) -> Fixed {
    let mut values = vec![
        drain(options),
        ("keys.file", text(&home.keys())),
        ("store.dir", text(&home.data())),
        ("files.dir", text(&home.files())),
    ];
    for (key, service) in [
        ("services.llm", "llm"),
        ("services.nlp", "nlp"),
        ("services.vision", "vision"),
        ("services.data", "data-processor"),
    ] {
        debug_assert!(key.ends_with(capability(service)));
        let sockets: Vec<_> = instances
            .iter()
            .filter(|instance| instance.service == service)
            .map(|instance| text(&instance.socket(home)))
            .collect();
        // The llm's socket has a default of its own, which is not this home's.
        if !sockets.is_empty() || service == "llm" {
            values.push((key, Value::Array(sockets)));
        }
    }
    values
}

fn drain(options: &Up) -> (&'static str, Value) {
    let drain_ms = i64::try_from(options.drain_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    ("drain.deadline_ms", Value::Integer(drain_ms))
}

fn text(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

fn private_folder(path: &Path) -> Outcome<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::file("make the directory", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::InstalledFile;

    fn model(name: &str) -> Installed {
        let file = |file: &str| InstalledFile { file: file.into(), bytes: 1, sha256: "ab".into() };
        Installed {
            name: name.into(),
            capability: "nlp".into(),
            architecture: "bert".into(),
            tasks: Vec::new(),
            files: vec![file("model.safetensors"), file("tokenizer.json")],
            license: "MIT".into(),
            pinned: true,
        }
    }

    #[test]
    fn a_models_section_pins_every_file_and_keeps_the_user_s_settings() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.ensure().unwrap();
        fs::create_dir(home.root().join("configs")).unwrap();
        let own = "[[model]]\nname = \"m\"\nprecision = \"q8\"\npath = \"/elsewhere\"\n";
        fs::write(home.root().join("configs/nlp.toml"), own).unwrap();
        let models = vec![section(&home, &model("m")), section(&home, &model("n"))];
        let config = configured(&home, "nlp", &[], vec![("model", Value::Array(models))]).unwrap();
        let sections = config["model"].as_array().unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0]["precision"].as_str(), Some("q8"));
        assert_eq!(sections[0]["path"], text(&home.models().join("m")));
        assert_eq!(sections[0]["sha256"]["tokenizer.json"].as_str(), Some("ab"));
        assert!(sections[1].get("precision").is_none());
    }
}
