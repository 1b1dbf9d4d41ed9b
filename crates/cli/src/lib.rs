//! aisemble-cli
