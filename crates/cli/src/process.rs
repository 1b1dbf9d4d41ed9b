//! What the kernel tells of a process under `/proc`. A pid alone names nobody: with its start time
//! it names one process for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// One process, now and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, clock ticks since boot.
    pub start_ticks: u64,
}

/// What `/proc/PID/status` says of its isolation and size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// 0 = none, 1 = strict, 2 = filter.
    pub seccomp_mode: u32,
    /// Filters in force.
    pub seccomp_filters: u32,
    /// It can gain no privileges.
    pub no_new_privs: bool,
    /// Effective capabilities, hex.
    pub capabilities: String,
    /// Effective user.
    pub uid: u32,
}

impl Identity {
    /// The process that has `pid` now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(proc_path(pid, "stat")).ok()?;
        Some(Self { pid, start_ticks: start_ticks(&stat)? })
    }

    /// Whether this very process lives. A zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = fs::read_to_string(proc_path(self.pid, "stat")) else { return false };
        let is_zombie = after_name(&stat).is_some_and(|rest| rest.starts_with('Z'));
        start_ticks(&stat) == Some(self.start_ticks) && !is_zombie
    }

    /// Sends the signal if this very process lives. Tells whether it was sent.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        self.is_alive() && pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// How long it has lived.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot: u64 = boot.trim().parse().ok()?;
        let started_ms = boot * 1000 + self.start_ticks * 1000 / ticks_per_s;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(now.saturating_sub(Duration::from_millis(started_ms)))
    }

    /// What the kernel says of it.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let text = fs::read_to_string(proc_path(self.pid, "status")).ok()?;
        self.is_alive().then(|| parse_status(&text))
    }

    /// Its open internet sockets, as `tcp 127.0.0.1:8080 (listens)`. None when the kernel does not
    /// let this user look.
    #[must_use]
    pub fn internet_sockets(&self) -> Option<Vec<String>> {
        let mut inodes = BTreeSet::new();
        for entry in fs::read_dir(proc_path(self.pid, "fd")).ok()? {
            let Ok(target) = fs::read_link(entry.ok()?.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inodes.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
        }
        let mut found = Vec::new();
        for family in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
            let Ok(table) = fs::read_to_string(proc_path(self.pid, &format!("net/{family}")))
            else {
                continue;
            };
            for line in table.lines().skip(1) {
                let cells: Vec<_> = line.split_whitespace().collect();
                let inode = cells.get(9).and_then(|cell| cell.parse().ok());
                if inode.is_some_and(|inode: u64| inodes.contains(&inode)) {
                    let listens = if cells.get(3) == Some(&"0A") { " (listens)" } else { "" };
                    let address = cells.get(1).copied().unwrap_or_default();
                    found.push(format!("{family} {address}{listens}"));
                }
            }
        }
        Some(found)
    }
}

fn proc_path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// What follows the name, which may itself hold spaces and brackets: state, parent, ...
fn after_name(stat: &str) -> Option<&str> {
    stat.rfind(") ").map(|at| &stat[at + 2..])
}

/// Field 22 of `/proc/PID/stat`.
fn start_ticks(stat: &str) -> Option<u64> {
    after_name(stat)?.split_whitespace().nth(19)?.parse().ok()
}

fn parse_status(text: &str) -> Status {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or("")
            .trim()
    };
    let first = |name: &str| field(name).split_whitespace().next().unwrap_or("").to_owned();
    let number = |name: &str| first(name).parse::<u32>().unwrap_or(0);
    Status {
        resident_bytes: first("VmRSS").parse::<u64>().unwrap_or(0) * 1024,
        seccomp_mode: number("Seccomp"),
        seccomp_filters: number("Seccomp_filters"),
        no_new_privs: number("NoNewPrivs") == 1,
        capabilities: first("CapEff"),
        uid: field("Uid").split_whitespace().nth(1).and_then(|uid| uid.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_a_dead_one_is_nobody() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(me.age().unwrap() < Duration::from_secs(24 * 3600));
        assert!(me.status().unwrap().resident_bytes > 0);
        let other = Identity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!other.is_alive() && other.status().is_none());
        assert!(!other.signal(Signal::KILL), "a recycled pid is not signalled");

        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id());
        child.wait().unwrap();
        assert!(identity.is_none_or(|identity| !identity.is_alive()));
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_ticks(stat), Some(4242));
        assert_eq!(start_ticks("garbage"), None);
    }

    #[test]
    fn a_listening_socket_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!(":{:04X}", listener.local_addr().unwrap().port());
        let sockets = Identity::of(std::process::id()).unwrap().internet_sockets().unwrap();
        let seen = sockets.iter().any(|s| s.contains(&port) && s.contains("listens"));
        assert!(seen, "{sockets:?}");
    }
}
