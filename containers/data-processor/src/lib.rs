//! The data processor.
