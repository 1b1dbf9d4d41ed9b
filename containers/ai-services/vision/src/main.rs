//! `ai-semble-vision`: a fixed set of vision models behind a Unix socket. Everything is in the
//! library.

use std::process::ExitCode;

use aisemble_vision::service::VisionService;

fn main() -> ExitCode {
    aisemble_service::run::<VisionService>()
}
