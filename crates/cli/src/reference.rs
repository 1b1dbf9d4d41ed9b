//! `docs/cli.md`, made from the command line's own definition. A test compares the checked-in page;
//! `AISEMBLE_UPDATE=1` writes it anew.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use crate::args::Cli;
use crate::failure::Exit;

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# The `ai-semble` command\n\n\
         Data goes to standard output, everything else (progress, remarks, errors) to standard\n\
         error. With `--json` data is one JSON value a line, and an error is one JSON object on standard\n\
         error. An error says what failed, why, and after `hint:` what to do.\n\n\
         This page is made from the command's definition and compared by a test:\n\
         `AISEMBLE_UPDATE=1 cargo test -p aisemble-cli` writes it anew.\n\n",
    );
    exit_codes(&mut text);
    text.push_str("## Options of every command\n\n");
    let globals: Vec<_> = root.get_arguments().filter(|arg| arg.is_global_set()).collect();
    options(&mut text, &globals);
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(&mut text, command, "ai-semble", 2);
    }
    let end = text.trim_end().len();
    text.truncate(end);
    text.push('\n');
    text
}

fn exit_codes(text: &mut String) {
    text.push_str("## Exit codes\n\n| code | meaning |\n|---|---|\n| 0 | done |\n");
    for exit in Exit::ALL {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} | {} |", exit.code(), exit.meaning());
    }
    text.push('\n');
}

fn describe(text: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(text, "{} `{name}`\n", "#".repeat(level));
    let about = command.get_long_about().or_else(|| command.get_about());
    if let Some(about) = about {
        let _ = writeln!(text, "{}\n", about.to_string().trim());
    }
    let own: Vec<_> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set() && !is_built_in(arg))
        .collect();
    let children: Vec<_> =
        command.get_subcommands().filter(|child| child.get_name() != "help").collect();
    if children.is_empty() {
        let mut usage = format!("{name} [OPTIONS]");
        for arg in own.iter().filter(|arg| arg.is_positional()) {
            let value = arg.get_id().as_str().to_uppercase();
            let _ = match arg.is_required_set() {
                true => write!(usage, " <{value}>"),
                false => write!(usage, " [{value}]"),
            };
        }
        let _ = writeln!(text, "```\n{usage}\n```\n");
        options(text, &own);
    }
    for child in children {
        describe(text, child, &name, level + 1);
    }
}

fn options(text: &mut String, arguments: &[&Arg]) {
    if arguments.is_empty() {
        return;
    }
    text.push_str("| option | |\n|---|---|\n");
    for arg in arguments {
        let _ = writeln!(text, "| `{}` | {} |", spelling(arg), explanation(arg));
    }
    text.push('\n');
}

fn spelling(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default();
    let value = values.first().map(ToString::to_string).unwrap_or_default();
    let takes_value = arg.get_action().takes_values();
    match (arg.get_short(), arg.get_long()) {
        (_, None) => format!("<{}>", arg.get_id().as_str().to_uppercase()),
        (None, Some(long)) if takes_value => format!("--{long} {value}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
    }
}

fn explanation(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = help.replace('\n', " ").replace('|', "\\|");
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " [default: {}]", defaults.join(","));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, " [env: `{}`]", variable.to_string_lossy());
    }
    text
}

fn is_built_in(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let made = markdown();
        if std::env::var_os("AISEMBLE_UPDATE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == made, "run: AISEMBLE_UPDATE=1 cargo test -p aisemble-cli");
    }
}
