//! aisemble-jobs
