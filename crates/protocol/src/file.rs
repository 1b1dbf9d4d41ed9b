//! Files as the HTTP API shows them: OpenAI's shape, with the digest beside it.
//!
//! A name is only shown, never a path: where content lies follows from its digest alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// Bytes of a file's name.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Files on one page of `GET /files`.
pub const FILES_PAGE_MAX: u32 = 10_000;
/// Files on one page when the caller names no number.
pub const FILES_PAGE_DEFAULT: u32 = 1_000;
/// Shortest time after which a file may be deleted by itself, seconds (an hour).
pub const FILE_EXPIRY_S_MIN: u64 = 3_600;
/// Longest, seconds (30 days).
pub const FILE_EXPIRY_S_MAX: u64 = 30 * 24 * 3_600;

/// A file's identity: `file-` and a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub uuid::Uuid);

impl FileId {
    /// What an id begins with.
    pub const PREFIX: &'static str = "file-";

    /// A new id, from the current time.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.as_hyphenated())
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

/// The text is not a file id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file id is `file-` and a UUID")]
pub struct FileIdError;

impl FromStr for FileId {
    type Err = FileIdError;
    fn from_str(text: &str) -> Result<Self, FileIdError> {
        let uuid = text.strip_prefix(Self::PREFIX).ok_or(FileIdError)?;
        uuid::Uuid::try_parse(uuid).map(Self).map_err(|_| FileIdError)
    }
}

impl Serialize for FileId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for FileId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("`file-` and a UUID"))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for FileId {}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Lines for `/v1/batches`.
    Batch,
    /// What a batch wrote.
    BatchOutput,
    /// A table.
    Data,
    /// An image.
    Vision,
    /// What a workflow or a data job wrote.
    Result,
    /// Anything.
    UserData,
    /// As OpenAI's clients name it; treated as `user_data`.
    Assistants,
    /// As OpenAI's clients name it; treated as `user_data`.
    Evals,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 8] = [
        Self::Batch,
        Self::BatchOutput,
        Self::Data,
        Self::Vision,
        Self::Result,
        Self::UserData,
        Self::Assistants,
        Self::Evals,
    ];

    /// The purpose as JSON and SQL write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::Data => "data",
            Self::Vision => "vision",
            Self::Result => "result",
            Self::UserData => "user_data",
            Self::Assistants => "assistants",
            Self::Evals => "evals",
        }
    }

    /// The purpose of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }

    /// Whether a caller may upload a file for it; the others are made here.
    #[must_use]
    pub fn is_for_upload(self) -> bool {
        match self {
            Self::Batch
            | Self::Data
            | Self::Vision
            | Self::UserData
            | Self::Assistants
            | Self::Evals => true,
            Self::BatchOutput | Self::Result => false,
        }
    }
}

/// A file as `GET /files/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileView {
    /// Identity.
    pub id: FileId,
    /// Always `file`.
    pub object: String,
    /// Size, bytes.
    pub bytes: u64,
    /// When it was stored, seconds since 1970.
    pub created_at: u64,
    /// When it is deleted by itself, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// What its owner calls it; only shown.
    pub filename: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Always `processed`.
    pub status: String,
    /// SHA-256 of its content, hex.
    pub sha256: String,
}

/// A page of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileList {
    /// Always `list`.
    pub object: String,
    /// The files.
    pub data: Vec<FileView>,
    /// The first file's id.
    pub first_id: Option<FileId>,
    /// The last file's id: give it as `after` to read on.
    pub last_id: Option<FileId>,
    /// There are more.
    pub has_more: bool,
}

/// The answer to `DELETE /files/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileDeleted {
    /// Which.
    pub id: FileId,
    /// Always `file`.
    pub object: String,
    /// Always true.
    pub deleted: bool,
}

/// Checks what a caller calls a file. Separators are taken as they are: a name is never a path.
///
/// # Errors
/// `invalid_request` when it is empty, too long, or has control characters.
pub fn check_file_name(name: &str) -> Result<(), ApiError> {
    let max = FILE_NAME_BYTES_MAX;
    if name.is_empty() || name.len() > max || name.chars().any(char::is_control) {
        let message = format!("a file's name must have 1 to {max} bytes and no control characters");
        return Err(ApiError::invalid("filename", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_file_id_or_refused(text in "\\PC{0,60}") {
            if let Ok(id) = text.parse::<FileId>() {
                prop_assert_eq!(id.to_string().parse::<FileId>(), Ok(id));
            }
        }
    }

    #[test]
    fn ids_and_purposes_are_read_as_they_are_written() {
        let id = FileId::generate();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<FileId>(&json).unwrap(), id);
        assert!("../../etc/passwd".parse::<FileId>().is_err());
        for purpose in Purpose::ALL {
            assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.as_str());
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
    }

    #[test]
    fn a_name_is_text_without_control_characters() {
        check_file_name("../a b/ü.csv").unwrap();
        for wrong in ["", "a\nb", "\u{0}", &"x".repeat(256)] {
            assert_eq!(check_file_name(wrong).unwrap_err().param.as_deref(), Some("filename"));
        }
    }
}
