//! Limits of the HTTP API that both ends know. Each names its unit; a service may be configured
//! lower.

/// Body of a JSON request, bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Prompt text, or all message contents together, bytes.
pub const PROMPT_BYTES_MAX: usize = 1024 * 1024;
/// Messages of one chat.
pub const MESSAGES_MAX: usize = 1024;
/// Tokens that one completion may ask for.
pub const OUTPUT_TOKENS_MAX: u32 = 131_072;
/// Tokens of a completion that names no limit.
pub const OUTPUT_TOKENS_DEFAULT: u32 = 256;
/// Stop strings of one request, and the bytes of each.
pub const STOP_STRINGS_MAX: usize = 16;
/// Bytes of one stop string.
pub const STOP_BYTES_MAX: usize = 256;
/// Alternatives per token that `top_logprobs` may ask for.
pub const TOP_LOGPROBS_MAX: u32 = 20;
/// Entries of `logit_bias`.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// Bytes of a JSON schema, regular expression or grammar that an output must fit.
pub const CONSTRAINT_BYTES_MAX: usize = 64 * 1024;
/// Functions that one chat may offer to the model.
pub const TOOLS_MAX: usize = 128;
/// All functions of one chat together, bytes of their JSON.
pub const TOOLS_BYTES_MAX: usize = 256 * 1024;
/// Calls of one message, and calls that one answer can be held to.
pub const TOOL_CALLS_MAX: usize = 32;
/// Jobs that one job may wait for (`needs`).
pub const JOB_NEEDS_MAX: usize = 256;
/// Attempts of one job, the first included.
pub const JOB_ATTEMPTS_MAX: u32 = 20;
/// Deadline of a job from its submission, milliseconds (7 days).
pub const JOB_DEADLINE_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Seconds that `Prefer: wait=N` may ask for.
pub const PREFER_WAIT_S_MAX: u64 = 300;
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Jobs on one page of `GET /jobs`.
pub const JOBS_PAGE_MAX: u32 = 500;
/// Jobs on one page when the caller names no number.
pub const JOBS_PAGE_DEFAULT: u32 = 50;
/// Message of a gRPC call, bytes.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// `metadata` of a job: encoded bytes.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// `model` of a request, bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 256;
/// Texts (documents, token lists) of one nlp request.
pub const NLP_TEXTS_MAX: usize = 2048;
/// All texts of one nlp request together, bytes.
pub const NLP_TEXTS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// All token lists of one nlp request together, tokens.
pub const NLP_TOKENS_MAX: usize = 512 * 1024;
/// Values of a dense embedding that `dimensions` may ask for.
pub const NLP_DIMENSIONS_MAX: u32 = 16_384;
/// Labels that a request keeps to, and the bytes of each.
pub const NLP_LABELS_MAX: usize = 256;
/// Bytes of one label.
pub const NLP_LABEL_BYTES_MAX: usize = 64;
/// A caller's own patterns in one redaction.
pub const NLP_PATTERNS_MAX: usize = 16;
/// Bytes of one pattern.
pub const NLP_PATTERN_BYTES_MAX: usize = 512;
