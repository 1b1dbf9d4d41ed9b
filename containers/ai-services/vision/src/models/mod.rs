//! The networks, one file each: their shapes, where their weights are in a file, how a picture
//! becomes their input and their output an answer.
//!
//! It must not know requests, batches or gRPC.

mod boxes;
mod centerface;
mod craft;
mod crnn;
mod efficientnet;
mod inverted_residual;
mod network;
mod prepare;
mod ssdlite;
mod text_boxes;
mod text_lines;

pub use boxes::Rect;
pub use centerface::{CenterFace, FoundFace};
pub use craft::Craft;
pub use crnn::{Crnn, ReadLine};
pub use efficientnet::EfficientNetLite0;
pub use network::{Architecture, Network, NetworkError};
pub(crate) use prepare::middle;
pub use ssdlite::{FoundThing, SsdLite};
pub use text_boxes::TextBox;
pub use text_lines::{Line, lines};

/// What each model takes when the caller names no limits.
pub mod defaults {
    pub use super::centerface::{NMS_IOU as FACES_NMS_IOU, SCORE_MIN as FACES_SCORE_MIN};
    pub use super::crnn::SCORE_MIN as TEXT_SCORE_MIN;
    pub use super::ssdlite::{
        LABELS as DETECT_LABELS, NMS_IOU as DETECT_NMS_IOU, SCORE_MIN as DETECT_SCORE_MIN,
    };
}
