//! aisemble-sandbox
