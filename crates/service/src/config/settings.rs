//! Single settings, as environment variables and `--set` give them: `section.key` and a value that
//! is TOML, or else text.

use std::ffi::OsString;

use figment::value::{Dict, Value};

use super::error::{ConfigError, Origin};

/// Settings that the environment, or the flags, may give.
const SETTINGS_MAX: usize = 256;
/// Bytes of one such setting.
const SETTING_BYTES_MAX: usize = 16 * 1024;
/// Sections within each other.
const DEPTH_MAX: usize = 8;
/// What a variable's name begins with, if the variable may be a setting.
const VARIABLE_PREFIX: &str = "AISEMBLE_";
/// What stands for the dot of a key in a variable's name; no variable without it is a setting.
const VARIABLE_DOT: &str = "__";

/// One setting of a variable or a flag.
pub(super) struct Setting {
    pub origin: Origin,
    pub path: Vec<String>,
    pub value: Value,
}

/// The settings among environment variables: those whose name is `AISEMBLE_` and has a `__`.
pub(super) fn of_environment(
    environment: &[(OsString, OsString)],
) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (name, value) in environment {
        let shown = name.to_string_lossy().into_owned();
        let Some(key) = shown.strip_prefix(VARIABLE_PREFIX) else { continue };
        if !key.contains(VARIABLE_DOT) {
            continue;
        }
        let origin = Origin::Variable(shown.clone());
        let (Some(_), Some(value)) = (name.to_str(), value.to_str()) else {
            let reason = "name and value must be UTF-8".to_owned();
            return Err(ConfigError::Malformed { origin, reason });
        };
        let key = key.to_ascii_lowercase().replace(VARIABLE_DOT, ".");
        settings.push(setting(origin, &key, value)?);
    }
    // The order of an environment is no one's choice: the same variables give the same error.
    settings.sort_by(|one, other| one.path.cmp(&other.path));
    limited(settings, "environment variables")
}

/// The settings of `--set KEY=VALUE`, in the order of the flags.
pub(super) fn of_flags(set: &[String]) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for argument in set {
        let Some((key, value)) = argument.split_once('=') else {
            let origin = Origin::Flag(argument.chars().take(80).collect());
            let reason = "give it as KEY=VALUE, e.g. log.level=debug".to_owned();
            return Err(ConfigError::Malformed { origin, reason });
        };
        settings.push(setting(Origin::Flag(key.trim().to_owned()), key.trim(), value)?);
    }
    limited(settings, "--set")
}

fn limited(settings: Vec<Setting>, of: &str) -> Result<Vec<Setting>, ConfigError> {
    match settings.get(SETTINGS_MAX) {
        None => Ok(settings),
        Some(over) => Err(ConfigError::TooLarge {
            origin: over.origin.clone(),
            what: format!("{} settings by {of},", settings.len()),
            max: SETTINGS_MAX,
        }),
    }
}

fn setting(origin: Origin, key: &str, value: &str) -> Result<Setting, ConfigError> {
    let bytes = key.len() + value.len();
    if bytes > SETTING_BYTES_MAX {
        let what = format!("{bytes} bytes,");
        return Err(ConfigError::TooLarge { origin, what, max: SETTING_BYTES_MAX });
    }
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) || path.len() > DEPTH_MAX {
        let reason = format!("`{key}` is not a key: names joined by dots, at most {DEPTH_MAX}");
        return Err(ConfigError::Malformed { origin, reason });
    }
    Ok(Setting { origin, path, value: value_of(value) })
}

/// A value as TOML writes it; what is not TOML is a string, so that paths and names need no quotes.
fn value_of(text: &str) -> Value {
    let document = format!("value = {text}");
    match toml::from_str::<Dict>(&document) {
        Ok(mut dict) if dict.len() == 1 => dict.remove("value").unwrap_or_else(|| text.into()),
        Ok(_) | Err(_) => Value::from(text),
    }
}
