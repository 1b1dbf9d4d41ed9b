//! The catalogue as it is written: with the short form of a model of one file, and with a package
//! named once for all files that come from it.

use std::fmt;

use aisemble_convert::{Format, Precision};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor, value::SeqAccessDeserializer};

use super::{Conversion, ModelFile, Package, Part};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    #[serde(rename = "model", default)]
    pub(super) models: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    capability: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    description: String,
    license: String,
    #[serde(default)]
    terms: String,
    package: Option<String>,
    version: Option<String>,
    wheel: Option<String>,
    wheel_sha256: Option<String>,
    #[serde(default)]
    file: Files,
    // The short form: one file, taken as it is.
    inner: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
}

/// `[[model.file]]`, or in the short form the file's name.
#[derive(Debug)]
enum Files {
    One(String),
    Many(Vec<File>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    to: String,
    bytes: u64,
    sha256: String,
    #[serde(default)]
    convert: String,
    #[serde(default)]
    precision: String,
    inner: Option<String>,
    #[serde(default)]
    beside: String,
    package: Option<String>,
    version: Option<String>,
    wheel: Option<String>,
    wheel_sha256: Option<String>,
    #[serde(rename = "part", default)]
    parts: Vec<FilePart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePart {
    inner: String,
    package: String,
    version: String,
    wheel: String,
    wheel_sha256: String,
}

impl Default for Files {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's name, or [[model.file]] sections")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Files, E> {
                Ok(Files::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, files: A) -> Result<Files, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(files)).map(Files::Many)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Entry {
    /// The entry with each file's origin spelled out.
    pub(super) fn checked(self) -> Result<super::Entry, String> {
        let main = package([&self.package, &self.version, &self.wheel, &self.wheel_sha256])?;
        let files = match self.file {
            Files::One(to) => {
                let (Some(inner), Some(bytes), Some(sha256)) =
                    (self.inner, self.bytes, self.sha256)
                else {
                    return Err("file is a name: then inner, bytes and sha256 belong to it".into());
                };
                let package = main.ok_or("it names no package")?;
                let parts = vec![Part { package, inner }];
                let beside = String::new();
                vec![ModelFile { to, bytes, sha256, convert: None, beside, parts }]
            }
            Files::Many(_) if self.inner.is_some() || self.bytes.is_some() => {
                return Err("inner and bytes belong into [[model.file]]".into());
            }
            Files::Many(files) => {
                let checked = files.into_iter().map(|file| file.checked(main.as_ref()));
                checked.collect::<Result<_, _>>()?
            }
        };
        Ok(super::Entry {
            name: self.name,
            capability: self.capability,
            architecture: self.architecture,
            tasks: self.tasks,
            default: self.default,
            description: self.description,
            license: self.license,
            terms: self.terms,
            files,
        })
    }
}

impl File {
    fn checked(self, main: Option<&Package>) -> Result<ModelFile, String> {
        let to = self.to;
        if !self.beside.is_empty() {
            if self.inner.is_some() || !self.parts.is_empty() || !self.convert.is_empty() {
                return Err(format!(
                    "file {to:?} lies beside the catalogue and comes from elsewhere"
                ));
            }
            let (bytes, sha256) = (self.bytes, self.sha256);
            let (beside, parts) = (self.beside, Vec::new());
            return Ok(ModelFile { to, bytes, sha256, convert: None, beside, parts });
        }
        let own = package([&self.package, &self.version, &self.wheel, &self.wheel_sha256])?;
        let parts: Vec<_> = match self.inner {
            Some(inner) if self.parts.is_empty() => {
                let package = own.or_else(|| main.cloned());
                let package = package.ok_or_else(|| format!("file {to:?} names no package"))?;
                vec![Part { package, inner }]
            }
            None if own.is_none() => self.parts.into_iter().map(FilePart::checked).collect(),
            Some(_) | None => return Err(format!("file {to:?} has both inner and parts")),
        };
        if parts.is_empty() {
            return Err(format!("file {to:?} has neither inner nor parts"));
        }
        let convert = conversion(&self.convert, &self.precision)
            .map_err(|why| format!("file {to:?}: {why}"))?;
        let (bytes, sha256, beside) = (self.bytes, self.sha256, String::new());
        Ok(ModelFile { to, bytes, sha256, convert, beside, parts })
    }
}

impl FilePart {
    fn checked(self) -> Part {
        let Self { inner, package, version, wheel, wheel_sha256 } = self;
        Part { package: Package { package, version, wheel, wheel_sha256 }, inner }
    }
}

/// All four or none.
fn package(fields: [&Option<String>; 4]) -> Result<Option<Package>, String> {
    match fields.map(Option::as_deref) {
        [Some(package), Some(version), Some(wheel), Some(wheel_sha256)] => Ok(Some(Package {
            package: package.to_owned(),
            version: version.to_owned(),
            wheel: wheel.to_owned(),
            wheel_sha256: wheel_sha256.to_owned(),
        })),
        [None, None, None, None] => Ok(None),
        _ => Err("package, version, wheel and wheel_sha256 belong together".to_owned()),
    }
}

fn conversion(format: &str, precision: &str) -> Result<Option<Conversion>, String> {
    if format.is_empty() {
        return Ok(None);
    }
    let known: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
    let format = Format::parse(format)
        .ok_or_else(|| format!("convert is {format:?}; known are {}", known.join(", ")))?;
    let precision = match precision {
        "" | "f32" => Precision::F32,
        "f16" => Precision::F16,
        _ => return Err(format!("precision is {precision:?}; known are f32, f16")),
    };
    Ok(Some(Conversion { format, precision }))
}
