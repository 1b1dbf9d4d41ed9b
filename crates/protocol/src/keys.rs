//! API keys: how they look, how they are kept, and what they open. The CLI writes the file, the
//! orchestrator reads it.
//!
//! A key is `ais_` and 256 random bits in hex. The file holds only a BLAKE3 keyed hash of it (the
//! hash's own key, the pepper, lies beside it in the same file's `pepper`), which is enough for a
//! secret of that entropy; a password would need a slow hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `/ai/llm/*`, chat and completions under `/v1`.
    Llm,
    /// `/ai/vision/*`.
    Vision,
    /// `/ai/nlp/*`.
    Nlp,
    /// `/data/*`.
    Data,
    /// `/jobs`: the key's own jobs.
    Jobs,
    /// `/metrics`.
    Metrics,
    /// Everything, and other keys' jobs.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] =
        [Self::Llm, Self::Vision, Self::Nlp, Self::Data, Self::Jobs, Self::Metrics, Self::Admin];

    /// The scope's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Vision => "vision",
            Self::Nlp => "nlp",
            Self::Data => "data",
            Self::Jobs => "jobs",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    /// The scope of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A key's text: shown once, when it is made, and never stored. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How much the owner of a key may ask for. What is absent has no limit of the key's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests that ask for work (POST), in a minute; as many may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Jobs that have not ended, waiting ones included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_jobs_max: Option<u32>,
}

impl KeyLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// A key as the file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Short public name of the key: what logs and job ownership say.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// How much it may ask for.
    #[serde(default, skip_serializing_if = "KeyLimits::is_unlimited")]
    pub limits: KeyLimits,
    /// BLAKE3 keyed hash of the key, hex.
    pub hash: String,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// It opens nothing from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// It was taken back then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
}

impl KeyRecord {
    /// Whether the key opens anything at `now_ms`.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|at| now_ms < at)
    }

    /// Whether the key opens `scope`.
    #[must_use]
    pub fn opens(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// The key file. It must be readable by its owner only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Key of the hash, 32 bytes in hex.
    pub pepper: String,
    /// The keys.
    pub keys: Vec<KeyRecord>,
}

/// The key file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// No randomness from the kernel.
    #[error("the kernel gave no random bytes")]
    Random,
    /// `pepper` is not 32 bytes of hex.
    #[error("pepper in the key file is not 64 hex digits")]
    Pepper,
}

impl KeyFile {
    /// A new file without keys.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn generate() -> Result<Self, KeyFileError> {
        Ok(Self { pepper: random_hex()?, keys: Vec::new() })
    }

    /// Makes a key, adds its record and gives its text.
    ///
    /// # Errors
    /// When the kernel gives no random bytes, or `pepper` is malformed.
    pub fn create(
        &mut self,
        name: &str,
        scopes: &[Scope],
        created_at_ms: u64,
        expires_at_ms: Option<u64>,
    ) -> Result<Secret, KeyFileError> {
        let random = random_hex()?;
        let secret = Secret(format!("ais_{random}"));
        let hash = self.hash(secret.reveal())?.to_hex().to_string();
        self.keys.push(KeyRecord {
            id: format!("key_{}", &hash[..12]),
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            limits: KeyLimits::default(),
            hash,
            created_at_ms,
            expires_at_ms,
            revoked_at_ms: None,
        });
        Ok(secret)
    }

    /// The live record whose key is `presented`. Every record is compared, each in constant time.
    ///
    /// # Errors
    /// When `pepper` is malformed.
    pub fn find(&self, presented: &str, now_ms: u64) -> Result<Option<&KeyRecord>, KeyFileError> {
        let hash = self.hash(presented)?.to_hex();
        let mut found = None;
        for record in &self.keys {
            let same = bool::from(record.hash.as_bytes().ct_eq(hash.as_bytes()));
            if same && record.is_live(now_ms) {
                found = Some(record);
            }
        }
        Ok(found)
    }

    fn hash(&self, text: &str) -> Result<blake3::Hash, KeyFileError> {
        let pepper = blake3::Hash::from_hex(&self.pepper).map_err(|_| KeyFileError::Pepper)?;
        Ok(blake3::keyed_hash(pepper.as_bytes(), text.as_bytes()))
    }
}

fn random_hex() -> Result<String, KeyFileError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| KeyFileError::Random)?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_it_was_made_for_until_it_ends() {
        let mut file = KeyFile::generate().unwrap();
        let secret = file.create("ward 3", &[Scope::Llm], 10, Some(20)).unwrap();
        let record = file.find(secret.reveal(), 15).unwrap().unwrap();
        assert!(record.opens(Scope::Llm) && !record.opens(Scope::Jobs));
        assert!(file.find(secret.reveal(), 20).unwrap().is_none(), "expired");
        assert!(file.find("ais_0", 15).unwrap().is_none(), "unknown");
        file.keys[0].revoked_at_ms = Some(12);
        assert!(file.find(secret.reveal(), 15).unwrap().is_none(), "revoked");
        let stored = serde_json::to_string(&file).unwrap();
        assert!(!stored.contains(&secret.reveal()[4..]), "the key itself is not stored");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
