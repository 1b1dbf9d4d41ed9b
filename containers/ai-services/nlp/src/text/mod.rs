//! Texts to token ids, and long texts to windows. It knows tokenizers and positions in texts, not
//! models or tasks.

mod encoder;
mod offsets;
mod windows;

pub use encoder::{EncodedText, TextEncoder, TextError, Token};
pub use offsets::CharOffsets;
pub use windows::{Window, windows};
