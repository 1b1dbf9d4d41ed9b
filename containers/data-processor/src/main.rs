//! `ai-semble-data-processor`: tables in, tables out, behind a Unix socket. Everything is in the
//! library.

use std::process::ExitCode;

use aisemble_data_processor::service::DataService;

fn main() -> ExitCode {
    aisemble_service::run::<DataService>()
}
