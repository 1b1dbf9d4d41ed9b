//! aisemble-weights
