//! aisemble-service
