//! aisemble-orchestrator
