//! Compiles the gRPC definitions with protox, so that no system `protoc` is needed.

use std::path::Path;

const FILES: [&str; 5] = ["model", "llm", "nlp", "vision", "data"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> =
        FILES.iter().map(|name| format!("proto/aisemble/v1/{name}.proto")).collect();
    for path in &paths {
        println!("cargo:rerun-if-changed={path}");
    }
    let descriptors = protox::compile(&paths, ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
