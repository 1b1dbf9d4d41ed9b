//! Between text and tokens: the chat template, the prompt's tokens, text that comes back piece by
//! piece, and stop strings. It must not know the model, sampling or channels.

mod chat;
mod detokenizer;
mod encoder;
mod json;
mod prompt;
mod stop;
mod tools;

pub use chat::{ChatError, ChatTemplate, Message};
pub use detokenizer::Detokenizer;
pub use encoder::{PromptEncoder, PromptError};
pub use prompt::{SpecialToken, SpecialTokens, Stretch};
pub use stop::{StopScan, StopStrings};
pub use tools::{CallStyle, CallText, Chat};
