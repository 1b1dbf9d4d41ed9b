//! aisemble-client
