//! What convolutional networks are computed with on a CPU: maps in NHWC layout, convolutions whose
//! weights are packed once for the machine's vectors, and the small operations between them.
//!
//! It knows slices and shapes. It must not know models, files, pictures or requests. A convolution
//! reads its input through a table of pointers, one a tap and pixel, and so needs neither im2col
//! nor padded copies (M. Dukhan, "The Indirect Convolution Algorithm", 2019).

mod conv;
mod isa;
mod lanes;
mod map;
mod ops;
mod recurrent;
mod tile;

pub use conv::{Activation, Conv, ConvShape, Padding};
pub use isa::Isa;
pub use map::Map;
pub use ops::{
    add_assign, concat_channels, max_pool, mean_pixels, relu, resize_bilinear, sigmoid, softmax,
};
pub use recurrent::Lstm;

#[cfg(test)]
mod tests;
