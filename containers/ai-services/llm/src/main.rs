//! `ai-semble-llm`: one language model behind a Unix socket. Everything is in the library.

use std::process::ExitCode;

use aisemble_llm::service::LlmService;

fn main() -> ExitCode {
    aisemble_service::run::<LlmService>()
}
