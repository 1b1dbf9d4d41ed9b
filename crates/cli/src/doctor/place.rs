//! What lies on the disk: home, keys, binaries, models, room.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::Finding;
use crate::args::Doctor;
use crate::catalog::Catalog;
use crate::home::Home;
use crate::local::services::{SERVICES, binary};
use crate::models::Installed;
use crate::terminal::{Terminal, size};

/// Less room than this is a warning, bytes.
const ROOM_MIN: u64 = 1_000_000_000;

pub(super) fn look(
    home: &Home,
    catalog: &Catalog,
    options: &Doctor,
    terminal: Terminal,
) -> Vec<Finding> {
    let mut findings = vec![home_mode(home), room(home)];
    for path in [home.keys(), home.client_key()] {
        findings.push(secret(&path));
    }
    findings.extend(SERVICES.iter().map(|service| program(service, options.bin_dir.as_deref())));
    findings.extend(models(home, catalog, terminal));
    findings
}

fn home_mode(home: &Home) -> Finding {
    let path = home.root().display().to_string();
    if !home.root().exists() {
        return Finding::warn("home", format!("{path} is not there"), "`ai-semble up` makes it");
    }
    match home.mode() {
        Ok(0o700) => Finding::ok("home", path),
        Ok(mode) => {
            Finding::fail("home", format!("{path} has mode {mode:o}"), format!("chmod 700 {path}"))
        }
        Err(failure) => Finding::fail("home", failure.to_string(), "name another with --home"),
    }
}

fn room(home: &Home) -> Finding {
    let path = home.root().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = rustix::fs::statvfs(path) else {
        return Finding::warn(
            "disk",
            "cannot be looked at",
            "is the home on a mounted file system?",
        );
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let observed = format!("{} free for {}", size(free), path.display());
    if free >= ROOM_MIN {
        return Finding::ok("disk", observed);
    }
    Finding::warn("disk", observed, "make room: jobs are refused when the disk is full")
}

fn secret(path: &Path) -> Finding {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let Ok(data) = fs::metadata(path) else {
        return Finding::warn(name, "not there", "`ai-semble up` makes it");
    };
    let mode = data.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Finding::ok(name, format!("mode {mode:o}"));
    }
    let fix =
        format!("chmod 600 {}; then make new keys: others may have read them", path.display());
    Finding::fail(name, format!("others may read it (mode {mode:o})"), fix)
}

fn program(service: &str, bin_dir: Option<&Path>) -> Finding {
    let name = format!("ai-semble-{service}");
    let path = match binary(service, bin_dir) {
        Ok(path) => path,
        // Only these two are in every installation.
        Err(failure) if ["llm", "orchestrator"].contains(&service) => {
            return Finding::fail(name, failure.to_string(), failure.hint.unwrap_or_default());
        }
        Err(failure) => {
            return Finding::warn(name, failure.to_string(), failure.hint.unwrap_or_default());
        }
    };
    let output = Command::new(&path).arg("--version").env_clear().output();
    let said = output.ok().filter(|output| output.status.success());
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let own = env!("CARGO_PKG_VERSION");
    match said {
        Some(said) if said.split_whitespace().any(|word| word == own) => Finding::ok(name, said),
        Some(said) => Finding::warn(
            name,
            format!("says {said:?}; this command is {own}"),
            "build all programs together: scripts/setup.sh --local",
        ),
        None => Finding::fail(
            name,
            format!("{} does not run", path.display()),
            "build it for this machine: scripts/setup.sh --local",
        ),
    }
}

fn models(home: &Home, catalog: &Catalog, terminal: Terminal) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in catalog.models.iter().filter(|entry| entry.default) {
        if matches!(Installed::find(home, catalog, &entry.name), Ok(None)) {
            let fix = format!("ai-semble models pull {}", entry.name);
            findings.push(Finding::warn(format!("model {}", entry.name), "not installed", fix));
        }
    }
    let installed = match Installed::all(home, catalog) {
        Ok(installed) => installed,
        Err(failure) => {
            let fix = "remove its directory and install it again";
            findings.push(Finding::fail("models", failure.to_string(), fix));
            return findings;
        }
    };
    for model in installed {
        let label = format!("model {}", model.name);
        let again = format!("ai-semble models pull --force {}", model.name);
        findings.push(match model.damage(home, terminal) {
            Ok(None) if model.pinned => {
                Finding::ok(label, format!("{}, digests as pinned", size(model.bytes())))
            }
            Ok(None) => Finding::warn(
                label,
                "unchanged since it was installed, but its digest was not known beforehand",
                "install it again with --sha256 from a source that you trust",
            ),
            Ok(Some(damage)) => {
                let (path, found) = (damage.path.display(), &damage.found);
                let observed = format!("{path}: sha256 is {found}, not {}", damage.expected);
                Finding::fail(label, observed, again)
            }
            Err(failure) => Finding::fail(label, failure.to_string(), again),
        });
    }
    findings
}

pub(super) fn port(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) => Finding::warn(
            "port",
            format!("{address}: {error}"),
            "choose another with `ai-semble up --listen 127.0.0.1:PORT`",
        ),
    }
}
