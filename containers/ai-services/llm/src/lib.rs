//! aisemble-llm
