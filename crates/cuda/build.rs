//! With the feature `ptx`: compiles `cuda/kernels.cu` to PTX. Without it there is nothing to do.

use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

/// The oldest GPUs that the kernels are for (Ampere). PTX runs on every later one; the driver
/// compiles it when it is loaded.
const ARCHITECTURE: &str = "-arch=compute_80";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    if env::var_os("CARGO_FEATURE_PTX").is_none() {
        return Ok(());
    }
    let folder = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    let ptx = PathBuf::from(folder).join("kernels.ptx");
    let status = Command::new(nvcc())
        .args(["--ptx", ARCHITECTURE, "-O3", "-std=c++17", "cuda/kernels.cu", "-o"])
        .arg(ptx)
        .status()
        .map_err(|error| {
            io::Error::other(format!("nvcc does not run ({error}): see scripts/build-cuda.sh"))
        })?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other("nvcc refuses cuda/kernels.cu"))
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    env::var_os("CUDA_HOME")
        .map_or_else(|| "nvcc".into(), |home| PathBuf::from(home).join("bin/nvcc"))
}
