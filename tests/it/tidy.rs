//! House rules that no compiler checks: sizes, heads, names, and the marks of unfinished work.

use std::path::{Path, PathBuf};

use aisemble_tests::repository_root;

const FILE_LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 100;
/// A name that says nothing about what is inside.
const DRAWERS: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// A mark that must not land, assembled so that this file does not contain it.
fn marks() -> Vec<String> {
    let bang = |name: &str| format!("{name}!(");
    vec![
        bang("todo"),
        bang("unimplemented"),
        bang("dbg"),
        format!("#[{}", "ignore"),
        format!("#[{}(", "allow"),
        format!("#![{}(", "allow"),
        format!("{}ME", "FIX"),
        format!("{}DO", "TO"),
    ]
}

#[test]
fn every_rust_file_is_of_a_readable_size_and_says_what_it_owns() {
    let mut faults = Vec::new();
    for path in files(&["rs"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines, {FILE_LINES_MAX} at most", show(&path)));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{}: must open with `//!`: what it owns", show(&path)));
        }
        for (number, line) in text.lines().enumerate() {
            // The formatter does not break a string, and neither need we.
            let text_of_a_string = line.contains('"') || line.ends_with("\\n\\");
            if line.chars().count() > LINE_CHARS_MAX && !text_of_a_string {
                faults.push(format!("{}:{}: over 100 columns", show(&path), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_mark_of_unfinished_work() {
    let marks = marks();
    let mut faults = Vec::new();
    for path in files(&["rs", "sh", "toml", "proto", "md"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{}:{}: {mark}", show(&path), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_is_a_drawer() {
    for path in files(&["rs"]) {
        for part in path.strip_prefix(repository_root()).unwrap().iter() {
            let name = part.to_str().unwrap().trim_end_matches(".rs");
            assert!(!DRAWERS.contains(&name), "{}: name what is inside", show(&path));
        }
    }
}

#[test]
fn expectations_give_their_reason() {
    for path in files(&["rs"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices(&format!("#[{}(", "expect")) {
            let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
            let what = &text[at..end];
            assert!(what.contains("reason"), "{}: {what}", show(&path));
        }
    }
}

#[test]
fn scripts_stop_at_the_first_error() {
    for path in files(&["sh"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        // A file that another script reads in is under that one's `set`.
        if text.starts_with("# shellcheck shell=") {
            continue;
        }
        assert!(text.starts_with("#!"), "{}: no interpreter line", show(&path));
        assert!(text.contains("set -eu"), "{}: must `set -eu`", show(&path));
    }
}

#[test]
fn deployment_scripts_ask_for_root_in_one_place_and_run_nothing_that_they_fetch() {
    let mut faults = Vec::new();
    let mut roots = 0;
    for path in files(&["sh"]) {
        if path.parent() != Some(&repository_root().join("scripts")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let name = show(&path);
        let deploys = ["setup-pod.sh", "deploy.sh", "backup.sh", "monitoring.sh"];
        if deploys.iter().any(|one| name.ends_with(one)) && !text.contains("\numask 077\n") {
            faults.push(format!("{name}: must set umask 077"));
        }
        for (number, line) in commands(&text) {
            let words = || line.split(|c: char| !c.is_alphanumeric() && c != '-');
            let asks = words().any(|word| word == "sudo") && !line.contains("sudo -n true");
            if asks {
                roots += 1;
                if !name.ends_with("setup-pod.sh") {
                    faults.push(format!("{name}:{number}: sudo"));
                }
            }
            let fetches = words().any(|word| word == "curl" || word == "wget");
            let last = line.rsplit('|').next().and_then(|last| last.split_whitespace().next());
            if fetches && line.contains('|') && matches!(last, Some("sh" | "bash" | "sudo")) {
                faults.push(format!("{name}:{number}: runs what it fetches"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(roots, 1, "the one step that needs root");
}

/// The lines of a script, by number, without comments, quoted texts and texts for the reader.
fn commands(script: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut inside_of_a_text = false;
    for (number, line) in script.lines().enumerate() {
        if inside_of_a_text {
            inside_of_a_text = line != "TEXT";
            continue;
        }
        inside_of_a_text = line.contains("<<'TEXT'") || line.contains("<<TEXT");
        let (mut kept, mut quote) = (String::new(), None);
        for character in line.chars() {
            match quote {
                Some(mark) if mark == character => quote = None,
                Some(_) => {}
                None if character == '\'' || character == '"' => quote = Some(character),
                None if character == '#' => break,
                None => kept.push(character),
            }
        }
        lines.push((number + 1, kept));
    }
    lines
}

#[test]
fn the_changelog_has_an_unreleased_part() {
    let text = std::fs::read_to_string(repository_root().join("CHANGELOG.md")).unwrap();
    assert!(text.contains("## [Unreleased]"));
}

/// Every file of the repository with one of the extensions, build output left out.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository_root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default();
            if path.is_dir() {
                if name != ".git" && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found.sort();
    found
}

fn show(path: &Path) -> String {
    path.strip_prefix(repository_root()).unwrap_or(path).display().to_string()
}
