//! Reads a pickle as data. The instructions that weight files use move values on a stack; the two
//! that would import or call something are answered from a short list, and everything else is an
//! error. Nothing is looked up, imported or called, whatever the file says.

mod machine;
mod value;

pub(crate) use machine::read;
pub(crate) use value::{Global, Id, Object, Pickle, TensorView};
