//! Runs the probe binary and reads its answer.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Output};

use serde_json::Value;

/// What came of one try.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) name: String,
    pub(crate) expected: String,
    pub(crate) observed: String,
    pub(crate) passed: bool,
}

pub(crate) fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ai-semble-sandbox-probe"));
    command.args(arguments.split_whitespace());
    command
}

/// Runs the probe to its end, however it ends.
pub(crate) fn run(arguments: &str) -> Output {
    command(arguments).output().expect("the probe binary can be started")
}

/// The probe's whole answer, which must be there.
pub(crate) fn json(arguments: &str) -> Value {
    let output = run(arguments);
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{arguments}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments}: {error}"))
}

/// The tries and their outcomes.
pub(crate) fn answers(arguments: &str) -> Vec<Answer> {
    let answer = json(arguments);
    let results = answer["results"].as_array().expect("results are an array");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    results
        .iter()
        .map(|result| Answer {
            name: text(&result["name"]),
            expected: text(&result["expected"]),
            observed: text(&result["observed"]),
            passed: result["passed"].as_bool().expect("bool"),
        })
        .collect()
}

/// What one deed came to, such as `ok` or `EACCES`.
pub(crate) fn observed(arguments: &str) -> String {
    match answers(arguments).as_slice() {
        [answer] => answer.observed.clone(),
        several => panic!("{arguments}: one answer was expected: {several:?}"),
    }
}

pub(crate) fn text(output: &Output) -> String {
    let stream = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {}{}", ending(output.status), stream(&output.stdout), stream(&output.stderr))
}

/// `exit 101` or `signal 31`.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
