//! Runs the targets: without arguments each for a few hundred inputs, so that one which breaks at
//! once is seen with every other test; with `--seconds N [TARGET...]` for that long each.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aisemble_fuzz::coverage::Edges;
use aisemble_fuzz::driver::{Plan, run};
use aisemble_fuzz::targets::{all, watch_panics};

/// Inputs of a target when nobody asks for time.
const INPUTS_SHORT: u64 = 300;
const USAGE: &str = "usage: fuzz [--seconds N] [--seed N] [--folder PATH] [--list] [TARGET...]";

struct Options {
    time: Option<Duration>,
    seed: u64,
    folder: PathBuf,
    list: bool,
    names: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        time: None,
        seed: 1,
        folder: std::env::temp_dir().join(format!("ai-semble-fuzz-{}", std::process::id())),
        list: false,
        names: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| USAGE.to_owned());
        match argument.as_str() {
            "--seconds" => {
                let seconds = value()?.parse().map_err(|_| USAGE.to_owned())?;
                options.time = Some(Duration::from_secs(seconds));
            }
            "--seed" => options.seed = value()?.parse().map_err(|_| USAGE.to_owned())?,
            "--folder" => options.folder = value()?.into(),
            "--list" => options.list = true,
            name if !name.starts_with('-') => options.names.push(name.to_owned()),
            // What `cargo test` gives to every test program.
            "--nocapture" | "--test-threads" | "--quiet" | "-q" => {}
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let options = match options() {
        Ok(options) => options,
        Err(usage) => {
            let _ = writeln!(err, "{usage}");
            return ExitCode::from(2);
        }
    };
    let mut targets = all();
    if options.list {
        for target in targets {
            let _ = writeln!(out, "{}", target.name);
        }
        return ExitCode::SUCCESS;
    }
    if !options.names.is_empty() {
        targets.retain(|target| options.names.iter().any(|name| name == target.name));
        // Without a time it is `cargo test` that looks for tests of this name.
        if targets.len() != options.names.len() && options.time.is_some() {
            let known: Vec<_> = all().iter().map(|target| target.name).collect();
            let _ = writeln!(err, "no such target; known are {}", known.join(", "));
            return ExitCode::from(2);
        }
    }
    if options.time.is_some() && !Edges::are_counted() {
        let _ = writeln!(err, "this build counts no edges: scripts/fuzz.sh makes one that does");
    }
    watch_panics();
    let plan = Plan {
        time: options.time.unwrap_or(Duration::from_secs(60)),
        inputs_max: if options.time.is_some() { u64::MAX } else { INPUTS_SHORT },
        seed: options.seed,
        folder: options.folder.clone(),
    };
    let mut code = ExitCode::SUCCESS;
    for target in targets {
        match run(target, &plan) {
            Ok(report) => {
                let line = serde_json::to_string(&report).unwrap_or_default();
                let _ = writeln!(out, "{line}");
            }
            Err(broken) => {
                let path = broken.path.display();
                let _ = writeln!(err, "{}: {}; the input is {path}", target.name, broken.what);
                code = ExitCode::FAILURE;
            }
        }
    }
    if options.time.is_none() && code == ExitCode::SUCCESS {
        let _ = std::fs::remove_dir_all(&options.folder);
    }
    code
}
