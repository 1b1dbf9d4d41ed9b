//! The reading path against a real shared library with NVML's functions, compiled by the test: the
//! loader, nvml-wrapper and our reader are the real ones, only the driver behind them is not.
#![cfg(not(target_feature = "crt-static"))]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aisemble_nvml::{Absent, Reader, Sampler};

/// Compiles the library with `defines` into `folder`.
fn compiled(folder: &Path, defines: &[&str]) -> PathBuf {
    let library = folder.join("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror"])
        .args(defines)
        .arg("-o")
        .arg(&library)
        .arg(source)
        .status()
        .expect("cc, which Rust links with, compiles the library");
    assert!(status.success());
    library
}

fn absent(defines: &[&str]) -> Absent {
    let folder = tempfile::tempdir().unwrap();
    Reader::open_library(compiled(folder.path(), defines).as_os_str()).unwrap_err()
}

#[test]
fn every_figure_comes_out_of_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let reader = Reader::open_library(compiled(folder.path(), &[]).as_os_str()).unwrap();
    let gpus = reader.gpus(4343).unwrap();
    assert_eq!(gpus.len(), 2);
    let gpu = &gpus[0];
    assert_eq!((gpu.uuid.as_str(), gpu.index), ("GPU-00000000", 0));
    assert_eq!((gpu.name.as_str(), gpu.driver.as_str()), ("Fake 0", "580.95.05"));
    assert_eq!(gpu.utilization_percent, Some(40));
    assert_eq!(gpu.memory_utilization_percent, Some(17));
    assert_eq!(gpu.memory_used_bytes, Some(50_000_000_000));
    assert_eq!(gpu.memory_total_bytes, Some(150_000_000_000));
    assert_eq!(gpu.temperature_celsius, Some(54));
    assert_eq!(gpu.power_milliwatts, Some(310_500));
    assert_eq!(gpu.power_limit_milliwatts, Some(700_000));
    assert_eq!(gpu.energy_millijoules, Some(123_456_789_012));
    assert_eq!(gpu.throttle_reasons, Some(0x24));
    assert_eq!((gpu.ecc_corrected_total, gpu.ecc_uncorrected_total), (Some(7), Some(1)));
    assert_eq!(gpu.process_memory_bytes, Some(2048));
    // What a card does not have is no figure, and no error of the others.
    assert_eq!((gpus[1].ecc_corrected_total, gpus[1].temperature_celsius), (None, Some(54)));
    assert_eq!(reader.gpus(1).unwrap()[0].process_memory_bytes, None);
}

#[test]
fn each_absence_has_its_own_line() {
    let missing = Reader::open_library("/nonexistent/libnvidia-ml.so.1".as_ref()).unwrap_err();
    assert!(matches!(missing, Absent::NoLibrary { .. }), "{missing}");
    assert!(missing.is_plain());
    // NVML_ERROR_DRIVER_NOT_LOADED, _NO_PERMISSION, _LIB_RM_VERSION_MISMATCH, _UNKNOWN.
    type Case = (&'static str, fn(&Absent) -> bool);
    let cases: [Case; 4] = [
        ("-DINIT_RESULT=9", |it| matches!(it, Absent::NoDevice { .. })),
        ("-DINIT_RESULT=4", |it| matches!(it, Absent::NoPermission { .. })),
        ("-DINIT_RESULT=18", |it| matches!(it, Absent::VersionMismatch)),
        ("-DINIT_RESULT=999", |it| matches!(it, Absent::Failed { .. })),
    ];
    for (define, is_expected) in cases {
        let found = absent(&[define]);
        assert!(is_expected(&found), "{define}: {found:?}");
        assert!(!found.is_plain() && !found.to_string().contains('\n'), "{found}");
    }
    assert!(matches!(absent(&["-DDEVICES=0"]), Absent::NoDevice { .. }));
}

#[test]
fn a_file_that_is_no_library_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    std::fs::write(&library, "not an ELF file, only text of some length").unwrap();
    let found = Reader::open_library(library.as_os_str()).unwrap_err();
    assert!(matches!(found, Absent::Unloadable { .. }), "{found:?}");
    assert!(found.to_string().contains("libnvidia-ml.so.1"), "{found}");
}

#[test]
fn the_sampler_looks_again_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let reader = Reader::open_library(compiled(folder.path(), &[]).as_os_str()).unwrap();
    let every = Duration::from_millis(1);
    let sampler = Sampler::start(reader, 4242, every, |gpu| gpu.index == 1).unwrap();
    let first = sampler.last().unwrap().0;
    assert_eq!((first.len(), first[0].index), (1, 1));
    assert_eq!(first[0].process_memory_bytes, Some(1024));
    // The library counts its looks: the figure changes when the thread has looked again.
    while sampler.last().unwrap().0 == first {
        std::thread::yield_now();
    }
}
