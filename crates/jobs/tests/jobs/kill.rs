//! `kill -9` at random moments, 200 times, on one database: no promise is broken.

use std::process::Command;

use crate::crash;

const DIR: &str = "AISEMBLE_JOBS_TEST_DIR";
const KILLS: u32 = 200;

/// The process that is killed: this test binary, started with this test alone and a directory.
#[test]
fn worker() {
    if let Some(dir) = std::env::var_os(DIR) {
        crash::work(dir.as_ref());
    }
}

#[test]
fn two_hundred_kills_break_no_promise() {
    let seed = std::env::var("AISEMBLE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("AISEMBLE_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let worker = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kill::worker", "--nocapture", "--test-threads=1"]);
        command.env(DIR, dir.path());
        command
    };
    let report = crash::drive(worker, dir.path(), KILLS, seed);
    let crash::Report { kills, acknowledged, attempts, rescued_jobs, by_state, seconds } = &report;
    println!(
        "{kills} kills in {seconds:.1} s: {acknowledged} jobs acknowledged, {attempts} attempts, \
         {rescued_jobs} jobs taken back, ended as {by_state:?}"
    );
    assert!(report.acknowledged > 200 && report.rescued_jobs > 0, "{report:?}");
}
