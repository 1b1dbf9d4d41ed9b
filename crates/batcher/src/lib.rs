//! aisemble-batcher
