//! Who calls, and what the key opens. Each refusal is logged with the key's id, never the key.

use aisemble_protocol::keys::{KeyLimits, Scope};
use aisemble_protocol::{ApiError, ErrorCode};

use super::App;
use crate::trace::Trace;

/// Whoever presented a live key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's public id: what owns jobs.
    pub key_id: String,
    /// How much it may ask for.
    pub limits: KeyLimits,
    scopes: Vec<Scope>,
    /// Nobody waits for the answer: it goes behind those who do.
    at_leisure: bool,
}

/// A request as `app` sees it: who, and under which ids.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Who.
    pub caller: Caller,
    /// The request's id, for logs.
    pub request_id: String,
    /// Its span.
    pub trace: Trace,
    /// `Idempotency-Key`, if one was sent.
    pub idempotency_key: Option<String>,
}

impl Caller {
    /// A caller with these scopes.
    #[must_use]
    pub fn new(key_id: impl Into<String>, scopes: &[Scope]) -> Self {
        let (limits, scopes) = (KeyLimits::default(), scopes.to_vec());
        Self { key_id: key_id.into(), limits, scopes, at_leisure: false }
    }

    /// A job that calls on behalf of a key. What the key opens was checked when it was taken in.
    #[must_use]
    pub(crate) fn for_job(key_id: &str) -> Self {
        Self { at_leisure: true, ..Self::new(key_id, &[]) }
    }

    /// Whether somebody waits for the answer.
    #[must_use]
    pub(crate) fn waits(&self) -> bool {
        !self.at_leisure
    }

    /// Whether the key opens everything, other keys' jobs included.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.scopes.contains(&Scope::Admin)
    }

    /// Whether the key opens `scope`.
    ///
    /// # Errors
    /// `forbidden`, naming the scope.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.is_admin() || self.scopes.contains(&scope) {
            return Ok(());
        }
        let scope = scope.as_str();
        tracing::warn!(
            audit = true,
            key.id = self.key_id,
            scope.needed = scope,
            "refused: the key's scopes do not cover the route"
        );
        Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("this key does not have the scope {scope}"),
        ))
    }
}

impl App {
    /// The caller who presents this key.
    ///
    /// # Errors
    /// `unauthenticated` for no key or one that opens nothing; `unavailable` when the key file
    /// cannot be used.
    pub fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        let refused = |why: &str, message: &str| {
            tracing::warn!(audit = true, reason = why, "refused: no live key");
            Err(ApiError::new(ErrorCode::Unauthenticated, message))
        };
        let Some(key) = key else {
            return refused("absent", "an API key is needed: Authorization: Bearer ais_...");
        };
        match self.keyring.find(key, super::now_ms()) {
            Ok(Some(record)) => {
                let (key_id, limits, scopes) = (record.id, record.limits, record.scopes);
                Ok(Caller { key_id, limits, scopes, at_leisure: false })
            }
            Ok(None) => refused("unknown", "this API key is unknown, expired or revoked"),
            Err(error) => {
                tracing::error!(error.cause = %error, "the key file cannot be used");
                let message =
                    "API keys cannot be checked now; the log of the orchestrator says why";
                Err(ApiError::new(ErrorCode::Unavailable, message).with_retry_after_ms(5_000))
            }
        }
    }
}
