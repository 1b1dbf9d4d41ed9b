//! `ai-semble-nlp`: encoders behind a Unix socket. Everything is in the library.

use std::process::ExitCode;

use aisemble_nlp::service::NlpService;

fn main() -> ExitCode {
    aisemble_service::run::<NlpService>()
}
