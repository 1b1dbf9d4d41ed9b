//! The layers of a configuration: defaults, file, environment, flags; and how an error in the
//! merged whole is traced back to the layer that it comes from.
//!
//! It must not read the process's environment or arguments itself: they are given to it, so that
//! tests can give others.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{ConfigError, Origin};
use super::settings::{self, Setting};
use super::{InvalidConfig, ServiceConfig};

/// Bytes of a configuration file.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Where settings are taken from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that the user named. It must exist.
    pub file: Option<PathBuf>,
    /// The file that is taken when the user named none, if it exists.
    pub file_default: PathBuf,
    /// Environment variables; those that are no settings are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE` of each `--set`.
    pub set: Vec<String>,
}

/// A configuration and the file that it was taken from, if one was.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The settings in force.
    pub config: C,
    /// The file.
    pub file: Option<PathBuf>,
}

/// Merges the layers, the later over the earlier, and checks the whole. Arrays are replaced, never
/// joined.
///
/// # Errors
/// The first thing that is wrong, with its origin and key.
pub fn load<C: ServiceConfig>(sources: &Sources) -> Result<Loaded<C>, ConfigError> {
    let file = match &sources.file {
        Some(path) => Some(path.clone()),
        None => Some(sources.file_default.clone()).filter(|path| path.exists()),
    };
    let mut layers = Vec::new();
    if let Some(path) = &file {
        layers.push(Layer::of_file(path)?);
    }
    layers.push(Layer::of_settings(settings::of_environment(&sources.environment)?)?);
    layers.push(Layer::of_settings(settings::of_flags(&sources.set)?)?);
    for (origin, key) in layers.iter().flat_map(Layer::leaves) {
        if names_a_secret(&key) {
            return Err(ConfigError::SecretInTheOpen { origin, key: dotted(&key) });
        }
    }

    let figment = layers
        .iter()
        .fold(Figment::from(Serialized::defaults(C::default())), |whole, layer| whole.merge(layer));
    let config: C = figment.extract().map_err(|error| traced(error, &layers))?;
    refuse_ignored_keys(&config, &layers)?;
    config.validate().map_err(|InvalidConfig { key, reason }| {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        ConfigError::Invalid { origin: origin(&layers, &path), key, reason }
    })?;
    Ok(Loaded { config, file })
}

/// What one source gives.
struct Layer {
    dict: Dict,
    /// Which keys come from where; a file is one origin for all.
    origins: Vec<(Vec<String>, Origin)>,
}

impl Layer {
    fn of_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        let dict: Dict = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().replace('\n', " "),
        })?;
        Ok(Self { dict, origins: vec![(Vec::new(), Origin::File(path.to_owned()))] })
    }

    fn of_settings(settings: Vec<Setting>) -> Result<Self, ConfigError> {
        let mut layer = Self { dict: Dict::new(), origins: Vec::new() };
        for Setting { origin, path, value } in settings {
            if !insert(&mut layer.dict, &path, value) {
                let key = dotted(&path);
                let reason =
                    "another setting makes a section of this key, or a value of its section"
                        .to_owned();
                return Err(ConfigError::Invalid { origin, key, reason });
            }
            layer.origins.push((path, origin));
        }
        Ok(layer)
    }

    /// The keys that hold a value or an empty section.
    fn leaves(&self) -> Vec<(Origin, Vec<String>)> {
        let mut paths = Vec::new();
        collect_leaves(&self.dict, &mut Vec::new(), &mut paths);
        let layer = std::slice::from_ref(self);
        paths.into_iter().map(|path| (origin(layer, &path), path)).collect()
    }

    fn gives(&self, path: &[String]) -> bool {
        let mut dict = &self.dict;
        for (depth, key) in path.iter().enumerate() {
            match dict.get(key) {
                Some(Value::Dict(_, inner)) => dict = inner,
                // An index into an array belongs to whoever gave the array.
                Some(value) => return depth + 1 == path.len() || value.as_array().is_some(),
                None => return false,
            }
        }
        true
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("layer")
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// The layer that has the last word on `path`.
fn origin(layers: &[Layer], path: &[String]) -> Origin {
    for layer in layers.iter().rev().filter(|layer| layer.gives(path)) {
        let of_path = |given: &[String]| given.starts_with(path) || path.starts_with(given);
        if let Some((_, origin)) = layer.origins.iter().rev().find(|(given, _)| of_path(given)) {
            return origin.clone();
        }
    }
    Origin::Defaults
}

/// The error of figment in our words, with the layer at fault.
fn traced(error: figment::Error, layers: &[Layer]) -> ConfigError {
    let path = error.path.clone();
    let key = dotted(&path);
    let origin = origin(layers, &path);
    if let Kind::UnknownField(_, allowed) = &error.kind {
        let allowed = allowed.iter().map(|&name| name.to_owned()).collect();
        return ConfigError::Unknown { origin, key, allowed };
    }
    let reason = if let Kind::UnknownVariant(given, allowed) = &error.kind {
        format!("{given:?} is not one of {}", allowed.join(", "))
    } else if let Kind::InvalidType(found, expected) = &error.kind
        && expected.starts_with("struct ")
    {
        format!("found {found}, expected a section with keys")
    } else {
        error.kind.to_string()
    };
    ConfigError::Invalid { origin, key, reason }
}

/// Refuses a key that a struct without `deny_unknown_fields` let pass: it is not in the value
/// again.
fn refuse_ignored_keys<C: ServiceConfig>(config: &C, layers: &[Layer]) -> Result<(), ConfigError> {
    let value = Value::serialize(config).map_err(|error| traced(error, layers))?;
    for (origin, path) in layers.iter().flat_map(Layer::leaves) {
        let mut place = &value;
        for key in &path {
            let Some(section) = place.as_dict() else { break };
            let Some(inner) = section.get(key) else {
                let allowed = section.keys().cloned().collect();
                return Err(ConfigError::Unknown { origin, key: dotted(&path), allowed });
            };
            place = inner;
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a plain file")));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            origin: Origin::File(path.to_owned()),
            what: format!("more than {FILE_BYTES_MAX} bytes,"),
            max: FILE_BYTES_MAX,
        });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::Syntax {
        path: path.to_owned(),
        reason: "the text is not UTF-8".to_owned(),
    })
}

/// Puts `value` at `path`, over a value that was given before; false where one of the two is a
/// section and the other is not.
fn insert(dict: &mut Dict, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [last] => {
            let sections =
                |value: Option<&Value>| value.is_some_and(|value| value.as_dict().is_some());
            if sections(dict.get(last)) {
                return false;
            }
            dict.insert(last.clone(), value);
            true
        }
        [first, rest @ ..] => {
            let section = dict.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
            match section {
                Value::Dict(_, inner) => insert(inner, rest, value),
                Value::String(..)
                | Value::Char(..)
                | Value::Bool(..)
                | Value::Num(..)
                | Value::Empty(..)
                | Value::Array(..) => false,
            }
        }
    }
}

fn collect_leaves(dict: &Dict, path: &mut Vec<String>, leaves: &mut Vec<Vec<String>>) {
    for (key, value) in dict {
        path.push(key.clone());
        match value.as_dict() {
            Some(inner) if !inner.is_empty() => collect_leaves(inner, path, leaves),
            Some(_) | None => leaves.push(path.clone()),
        }
        path.pop();
    }
}

fn names_a_secret(path: &[String]) -> bool {
    const NAMES: [&str; 8] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "api_key",
        "private_key",
        "credentials",
    ];
    path.last().is_some_and(|last| {
        let ends_with =
            |name: &str| last.strip_suffix(name).is_some_and(|rest| rest.ends_with('_'));
        NAMES.iter().any(|name| last == name || ends_with(name))
    })
}

fn dotted(path: &[String]) -> String {
    path.join(".")
}
