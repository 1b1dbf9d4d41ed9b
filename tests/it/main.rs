//! The tests that look at the whole: layering, house rules, and the product run end to end.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]

mod e2e_bad_input;
mod e2e_completion;
mod e2e_crash;
mod e2e_doors;
mod e2e_examples;
mod e2e_instances;
mod e2e_isolation;
mod e2e_model_files;
mod e2e_service_crash;
mod e2e_workflow;
mod e2e_workflow_kills;
mod layering;
mod monitoring;
mod pods;
mod tidy;
