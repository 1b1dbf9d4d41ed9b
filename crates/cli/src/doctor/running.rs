//! What runs: each process by the kernel's word and by its own.

use std::path::Path;
use std::time::Duration;

use aisemble_protocol::v1;
use aisemble_protocol::v1::model_client::ModelClient;

use super::Finding;
use crate::direct;
use crate::failure::Outcome;
use crate::home::Home;
use crate::local::state::UpState;
use crate::process::Identity;

const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) async fn look(home: &Home, state: &UpState) -> Vec<Finding> {
    let mut findings =
        vec![Finding::ok("up", format!("pid {}, {}", state.identity.pid, state.url()))];
    for (name, child) in &state.children {
        let Some(identity) = child.identity.filter(Identity::is_alive) else {
            let end = child.last_end.clone().unwrap_or_else(|| "not running".to_owned());
            let fix = format!("see {}", home.log(name).display());
            findings.push(Finding::fail(name, end, fix));
            continue;
        };
        findings.push(confinement(name, identity));
        findings.push(sockets(name, identity));
        if child.restarts > 0 {
            let observed = format!("started again {} times", child.restarts);
            let fix = format!("see why in {}", home.log(name).display());
            findings.push(Finding::warn(format!("{name} restarts"), observed, fix));
        }
    }
    for (name, running) in &state.services {
        findings.extend(devices(name, &running.socket).await);
        match self_check(name, &running.socket).await {
            Ok(checks) => findings.extend(checks),
            Err(failure) => findings.push(Finding::fail(
                format!("{name} self-check"),
                failure.to_string(),
                "wait until it is ready (`ai-semble status`), then look again",
            )),
        }
    }
    findings
}

/// What the kernel says of its filters.
fn confinement(name: &str, identity: Identity) -> Finding {
    let label = format!("{name} sandbox");
    let Some(status) = identity.status() else {
        return Finding::warn(label, "the process has just ended", "look again");
    };
    let observed = format!(
        "pid {}: Seccomp {} ({} filters), NoNewPrivs {}, CapEff {}",
        identity.pid,
        status.seccomp_mode,
        status.seccomp_filters,
        u8::from(status.no_new_privs),
        status.capabilities,
    );
    if status.seccomp_mode == 2 && status.no_new_privs {
        return Finding::ok(label, observed);
    }
    Finding::fail(label, observed, "stop it (`ai-semble down`): it must not run unconfined")
}

/// A service must have no internet socket; the orchestrator has the one it was given.
fn sockets(name: &str, identity: Identity) -> Finding {
    let label = format!("{name} internet sockets");
    let Some(open) = identity.internet_sockets() else {
        return Finding::ok(label, "not shown to this user (the process is not dumpable)");
    };
    if open.is_empty() {
        return Finding::ok(label, "none");
    }
    // Accepted connections share the listener's local port.
    let ports: Vec<_> = open.iter().filter_map(|socket| local_port(socket)).collect();
    let is_one_door = ports.windows(2).all(|pair| pair[0] == pair[1]);
    let observed = open.join(", ");
    if name == "orchestrator" && is_one_door && open.iter().all(|s| s.starts_with("tcp")) {
        return Finding::ok(label, observed);
    }
    Finding::fail(label, observed, "stop it (`ai-semble down`) and report this: it must not be")
}

fn local_port(socket: &str) -> Option<&str> {
    socket.split_whitespace().nth(1)?.rsplit(':').next()
}

/// Where its models compute, and why there. Silent when it does not answer: the self-check says so.
async fn devices(name: &str, socket: &Path) -> Vec<Finding> {
    let Ok(channel) = direct::channel(socket).await else { return Vec::new() };
    let mut client = ModelClient::new(channel);
    let call = client.describe(v1::DescribeRequest {});
    let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_MAX, call).await else { return Vec::new() };
    let models = answer.into_inner().models;
    let places = models.iter().map(|model| (model.device.as_str(), model.device_note.as_str()));
    let places: std::collections::BTreeSet<_> = places.collect();
    let told = places.into_iter().map(|(device, note)| match note {
        "" => device.to_owned(),
        note => format!("{device} ({note})"),
    });
    told.map(|told| Finding::ok(format!("{name} device"), told)).collect()
}

/// What a service's process finds when it tries what its sandbox must refuse.
async fn self_check(name: &str, socket: &Path) -> Outcome<Vec<Finding>> {
    let mut client = ModelClient::new(direct::channel(socket).await?);
    let call = client.self_check(v1::SelfCheckRequest {});
    let answer = tokio::time::timeout(ANSWER_MAX, call).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => {
            let message = format!("{name} refused to check itself: {}", status.message());
            return Err(crate::failure::Failure::new(crate::failure::Exit::Failed, message));
        }
        Err(_) => {
            let message = format!("{name} did not check itself in time");
            return Err(crate::failure::Failure::new(crate::failure::Exit::TryLater, message));
        }
    };
    let (passed, failed): (Vec<_>, Vec<_>) = answer.checks.iter().partition(|check| check.passed);
    let mut findings: Vec<_> = failed
        .iter()
        .map(|check| {
            let observed = format!("{} instead of {}", check.observed, check.expected);
            let fix = "stop it (`ai-semble down`): its sandbox is not in force";
            Finding::fail(format!("{name} self-check {}", check.name), observed, fix)
        })
        .collect();
    let names: Vec<_> = passed.iter().map(|check| check.name.as_str()).collect();
    let observed = format!("refused from inside: {}", names.join(", "));
    findings.push(Finding::ok(format!("{name} self-check"), observed));
    if let Some(sandbox) = &answer.sandbox {
        let observed = format!(
            "Landlock ABI {}, policy {}, second filter {}",
            sandbox.landlock_abi,
            sandbox.policy,
            if sandbox.locked_down { "in force" } else { "not in force" },
        );
        findings.push(if sandbox.locked_down {
            Finding::ok(format!("{name} lock-down"), observed)
        } else {
            Finding::fail(
                format!("{name} lock-down"),
                observed,
                "wait until it is ready, then look again",
            )
        });
    }
    Ok(findings)
}
