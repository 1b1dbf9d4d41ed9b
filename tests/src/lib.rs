//! aisemble-tests
