//! What a running process may not do, asked of the process itself and of the kernel.

use std::fs;

use aisemble_protocol::v1;
use aisemble_protocol::v1::model_client::ModelClient;
use aisemble_tests::stack::{Stack, shared};

fn status_line(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn self_check(stack: &Stack) -> v1::SelfCheckResponse {
    let socket = stack.llm_socket();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = ModelClient::new(aisemble_service::socket::channel(&socket));
        client.self_check(v1::SelfCheckRequest {}).await.unwrap().into_inner()
    })
}

#[test]
fn from_inside_the_running_llm_everything_dangerous_is_refused() {
    let stack = shared();
    let answer = self_check(&stack);
    let names: Vec<&str> = answer.checks.iter().map(|check| check.name.as_str()).collect();
    for wanted in ["socket(AF_INET)", "socket(AF_INET6)", "execve", "open"] {
        assert!(names.iter().any(|name| name.starts_with(wanted)), "{wanted} not in {names:?}");
    }
    for check in &answer.checks {
        assert!(check.passed, "{}: {} instead of {}", check.name, check.observed, check.expected);
    }
    let sandbox = answer.sandbox.unwrap();
    assert!(sandbox.landlock_abi >= 4 && sandbox.locked_down && sandbox.no_new_privs);
    assert_eq!(sandbox.seccomp_mode, 2);
    assert!(sandbox.seccomp_filters >= 2, "{sandbox:?}");
}

#[test]
fn the_kernel_says_so_too_of_every_process_and_thread() {
    let stack = shared();
    for name in ["ai-semble-orchestrator", "ai-semble-llm"] {
        let pid = stack.pid(name).unwrap();
        assert_eq!(status_line(pid, "NoNewPrivs"), "1", "{name}");
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |key: &str| {
                let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
                line.split_whitespace().nth(1).map(str::to_owned).unwrap_or_default()
            };
            assert_eq!(field("Seccomp:"), "2", "{name}");
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(field(set), "0000000000000000", "{name} {set}");
            }
            assert!(field("Seccomp_filters:").parse::<u32>().unwrap() >= 2, "{name}\n{status}");
        }
    }
}

#[test]
fn the_llm_has_no_internet_socket_and_the_orchestrator_only_the_one_it_was_given() {
    let stack = shared();
    assert_eq!(internet_sockets(stack.pid("ai-semble-llm").unwrap()), 0);
    let held = internet_sockets(stack.pid("ai-semble-orchestrator").unwrap());
    assert!(held >= 1, "the inherited listener");
}

/// Open descriptors of `pid` that are TCP or UDP sockets.
fn internet_sockets(pid: u32) -> usize {
    let tables: String = ["tcp", "tcp6", "udp", "udp6"]
        .iter()
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default())
        .collect();
    let inodes: Vec<&str> =
        tables.lines().filter_map(|line| line.split_whitespace().nth(9)).collect();
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let name = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
            inodes.contains(&name.as_str()).then_some(())
        })
        .count()
}
