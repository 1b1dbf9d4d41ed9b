//! How a process ends that does not start, and what the flags print.

use std::process::Command;

use crate::process::{Home, begins};

fn output(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_file_and_key() {
    let home = Home::new();
    let file = home.path("tiny.toml");
    std::fs::write(&file, "[drain]\ndeadline = 5\n").unwrap();
    let mut command = home.command(&[]);
    command.arg("--config").arg(&file);
    let (code, lines) = crate::process::Tiny::spawn(command).end();
    assert_eq!(code, Some(78));
    let expected = format!(
        "not started: {}: unknown key `drain.deadline`; allowed there: deadline_ms",
        file.display()
    );
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["message"], expected);
    assert_eq!((&lines[0]["exit.code"], &lines[0]["level"]), (&78.into(), &"error".into()));
    assert!(lines[0]["hint"].as_str().unwrap().contains("--check"));

    let mut command = home.command(&[]);
    command.env("AISEMBLE_LOG__LEVELS", "debug").env("AISEMBLE_HOME", "/x").arg("--check");
    let (code, _, stderr) = output(command);
    assert_eq!(code, Some(78));
    assert_eq!(
        stderr,
        "error: environment variable AISEMBLE_LOG__LEVELS: unknown key `log.levels`; \
         allowed there: level\n"
    );
}

#[test]
fn a_model_that_cannot_be_read_is_a_wrong_configuration() {
    let home = Home::new();
    let (code, lines) = home.start(&["model.path=/nonexistent/model".to_owned()]).end();
    assert_eq!(code, Some(78));
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "error").collect();
    assert_eq!(errors.len(), 1, "{lines:#?}");
    assert_eq!(errors[0]["message"], "not started: the model /nonexistent/model cannot be read");
    assert_eq!(errors[0]["hint"], "pull the model");
    assert!(errors[0]["error.cause"].is_string());
}

#[test]
fn a_load_that_fails_ends_with_1() {
    let home = Home::new();
    let (code, lines) = home.start(&["model.fail=error".to_owned()]).end();
    assert_eq!(code, Some(1));
    assert!(lines.iter().any(|line| begins(line, "not started: the warm-up gave a wrong output")));
}

#[test]
fn flags_answer_and_end() {
    let home = Home::new();
    let with = |flags: &[&str]| {
        let mut command = home.command(&["drain.deadline_ms=7".to_owned()]);
        command.args(flags);
        output(command)
    };
    let (code, stdout, stderr) = with(&["--print-config"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let printed: toml::Table = stdout.parse().unwrap();
    assert_eq!(printed["drain"]["deadline_ms"].as_integer(), Some(7));
    let (code, stdout, _) = with(&["--check"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "the configuration is valid\n"));
    let (code, stdout, _) = with(&["--version"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "ai-semble-tiny 1.2.3\n"));
    let (code, stdout, _) = with(&["--help"]);
    assert!(code == Some(0) && stdout.contains("--print-config") && stdout.contains("AISEMBLE_"));
    let (code, _, stderr) = with(&["--nonsense"]);
    assert!(code == Some(64) && stderr.contains("--nonsense"), "{code:?} {stderr}");
}

#[test]
fn the_default_file_is_taken_where_it_exists() {
    let home = Home::new();
    std::fs::create_dir(home.path("configs")).unwrap();
    std::fs::write(home.path("configs/tiny.toml"), "[log]\nlevel = \"warn\"\n").unwrap();
    let mut command = home.command(&[]);
    command.arg("--print-config");
    let printed: toml::Table = output(command).1.parse().unwrap();
    assert_eq!(printed["log"]["level"].as_str(), Some("warn"));
}

#[test]
fn the_health_of_a_running_service_is_asked_over_its_socket() {
    let home = Home::new();
    let asked = || {
        let mut command = home.command(&[]);
        command.arg("--health");
        output(command)
    };
    let (code, stdout, stderr) = asked();
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(stdout.starts_with("no answer at "), "{stdout}");

    let gate = home.path("gate");
    crate::process::pipe(&gate);
    let tiny = home.start(&[format!("model.gate={}", gate.display())]);
    tiny.log.line("loading");
    assert_eq!(asked(), (Some(1), "not serving\n".to_owned(), String::new()));
    std::fs::write(&gate, "go").unwrap();
    tiny.log.line("serving");
    assert_eq!(asked(), (Some(0), "serving\n".to_owned(), String::new()));
}
