//! What the machine offers: kernel, Landlock, seccomp, cgroup, Python.

use std::fs;
use std::process::Command;

use super::Finding;

/// The sandbox's least Landlock version (`security/sandbox` refuses to start below it).
const LANDLOCK_ABI_MIN: i64 = 4;

pub(super) fn look() -> Vec<Finding> {
    vec![kernel(), landlock(), seccomp(), processors(), memory(), python(), pip()]
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (6, 7) {
        return Finding::ok("kernel", release);
    }
    Finding::warn(
        "kernel",
        release,
        "Linux 6.7 is the first with the Landlock rules that are needed",
    )
}

fn landlock() -> Finding {
    let fix = "boot with `landlock` in the lsm= parameter, on Linux 6.7 or newer \
               (CONFIG_SECURITY_LANDLOCK=y)";
    match landlock_abi() {
        Ok(abi) if abi >= LANDLOCK_ABI_MIN => Finding::ok("landlock", format!("ABI {abi}")),
        Ok(abi) => {
            Finding::fail("landlock", format!("ABI {abi}; {LANDLOCK_ABI_MIN} is needed"), fix)
        }
        Err(error) => Finding::fail("landlock", format!("not available: {error}"), fix),
    }
}

/// Asks the kernel for its Landlock version, as landlock_create_ruleset(2) describes.
fn landlock_abi() -> std::io::Result<i64> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    #[expect(unsafe_code, reason = "no safe wrapper of this query is at hand")]
    // SAFETY: with this flag the kernel takes a null pointer and length 0, touches no memory of
    // ours and makes no descriptor.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    if abi < 0 { Err(std::io::Error::last_os_error()) } else { Ok(abi) }
}

fn seccomp() -> Finding {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "errno") {
        return Finding::ok("seccomp", actions.trim());
    }
    let fix = "use a kernel with CONFIG_SECCOMP_FILTER=y";
    Finding::fail("seccomp", "filters are not available", fix)
}

fn processors() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let quota = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
        let quota = fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.max")).ok()?;
        Some(quota.trim().to_owned())
    });
    let has_cgroup = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false);
    let group = match (has_cgroup, quota) {
        (true, Some(quota)) => format!("cgroup 2, cpu.max {quota}"),
        (true, None) => "cgroup 2".to_owned(),
        (false, _) => "no cgroup 2".to_owned(),
    };
    Finding::ok("processors", format!("{count}; {group}"))
}

fn memory() -> Finding {
    const NEEDED_KB: u64 = 1_000_000;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or("");
    let free_kb: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let free = crate::terminal::size(free_kb * 1024);
    if free_kb >= NEEDED_KB {
        return Finding::ok("memory", format!("{free} available"));
    }
    Finding::warn("memory", format!("{free} available"), "the default model wants about 1 GB")
}

fn python() -> Finding {
    answer("python3", "python3", &["--version"], "apt install python3")
}

fn pip() -> Finding {
    answer("pip", "python3", &["-m", "pip", "--version"], "apt install python3-pip")
}

/// Python is only needed to fetch models: not having it is no failure.
fn answer(name: &str, program: &str, arguments: &[&str], fix: &str) -> Finding {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Finding::ok(name, text)
        }
        Ok(_) | Err(_) => {
            let fix = format!("{fix} (only `ai-semble models pull` needs it)");
            Finding::warn(name, "not there", fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_the_machine_gives_a_fix_for_each_finding() {
        for finding in look() {
            let is_ok = finding.level == super::super::Level::Ok;
            assert_eq!(finding.fix.is_none(), is_ok, "{finding:?}");
            assert!(!finding.observed.is_empty());
        }
    }
}
