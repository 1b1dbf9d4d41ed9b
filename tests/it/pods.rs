//! `pods/*.yaml` say of each service what its Quadlet unit says: they are made from the units here,
//! and compared. `AISEMBLE_UPDATE=1 cargo test -p aisemble-tests pods` writes them anew.
//!
//! What the two cannot share is written down in docs/pods.md: here nobody hands a socket over, so
//! the door opens the port, and the members of such a pod share one network namespace.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use aisemble_tests::quadlet::Unit;
use aisemble_tests::repository_root;

/// The services, in the order in which they start: who makes a socket folder comes before the
/// orchestrator, for a folder belongs to whom it is given first.
const SERVICES: [&str; 5] = ["llm", "nlp", "vision", "data-processor", "orchestrator"];
/// The model of the llm instance.
const MODEL: &str = "smollm2-135m-instruct";
/// The door's user, which has no Quadlet unit: there systemd owns the port.
const DOOR_USER: &str = "10006";

/// One of the files.
struct Flavour {
    file: &'static str,
    what_for: &'static str,
    services: &'static [&'static str],
    settings: &'static [&'static str],
    /// Memory of a service at most, in Mi, where it is less than the unit's.
    memory_mib_max: u64,
}

const FLAVOURS: [Flavour; 3] = [
    Flavour {
        file: "ai-semble.yaml",
        what_for: "Production: every service.",
        services: &SERVICES,
        settings: &[],
        memory_mib_max: u64::MAX,
    },
    Flavour {
        file: "ai-semble-dev.yaml",
        what_for: "Development: every service, talkative logs, the memory of a laptop.",
        services: &SERVICES,
        settings: &["log.level=debug"],
        memory_mib_max: 2048,
    },
    Flavour {
        file: "ai-semble-test.yaml",
        what_for: "Tests: one small language model.",
        services: &["llm", "orchestrator"],
        settings: &["services.nlp=[]", "services.vision=[]", "services.data=[]"],
        memory_mib_max: 1024,
    },
];

fn unit(service: &str) -> Unit {
    let name = if service == "llm" { "llm@" } else { service };
    Unit::read(&repository_root().join(format!("quadlets/ai-semble-{name}.container")))
}

/// `1G` or `512M` of a unit, in Mi.
fn mebibytes(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    match unit {
        "G" => number * 1024,
        "M" => number,
        other => panic!("a unit of memory: {other}"),
    }
}

/// Where a volume of a unit comes from in a pod: claim or folder, and the path within it.
fn source(service: &str, from: &str) -> (String, String) {
    let own = |name: &str| (name.to_owned(), String::new());
    match from {
        "ai-semble-data.volume" => own("data"),
        "%h/.local/share/ai-semble/models/%i" => ("models".to_owned(), MODEL.to_owned()),
        "%h/.local/share/ai-semble/models" => own("models"),
        "%h/.local/share/ai-semble/files" => own("files"),
        "%h/.config/ai-semble/llm/%i.toml" => ("config".to_owned(), format!("llm/{MODEL}.toml")),
        "%t/ai-semble/llm-%i" => own("llm-socket"),
        "%t/ai-semble/http" => own("http-socket"),
        _ => {
            if let Some(path) = from.strip_prefix("%h/.local/share/ai-semble/files/") {
                return ("files".to_owned(), path.to_owned());
            }
            if let Some(path) = from.strip_prefix("%h/.config/ai-semble/") {
                return ("config".to_owned(), path.to_owned());
            }
            assert_eq!(from, format!("%t/ai-semble/{service}"), "a volume of {service}");
            (format!("{service}-socket"), String::new())
        }
    }
}

struct Mount {
    volume: String,
    path: String,
    within: String,
    read_only: bool,
}

/// The mounts of a service, those of its unit one for one. The orchestrator has all socket folders
/// in one there; here each is a volume of its own.
fn mounts(service: &str, services: &[&str]) -> Vec<Mount> {
    let mut all = Vec::new();
    for volume in unit(service).all("Container", "Volume") {
        let parts: Vec<&str> = volume.splitn(3, ':').collect();
        let options: BTreeSet<&str> = parts[2].split(',').collect();
        for option in ["nosuid", "nodev", "noexec"] {
            assert!(options.contains(option), "{service}: {volume} without {option}");
        }
        let read_only = options.contains("ro");
        if parts[0] == "%t/ai-semble" {
            for other in services.iter().filter(|other| **other != service) {
                let folder = if *other == "llm" { format!("llm-{MODEL}") } else { (*other).into() };
                all.push(Mount {
                    volume: format!("{other}-socket"),
                    path: format!("{}/{folder}", parts[1]),
                    within: String::new(),
                    read_only,
                });
            }
            continue;
        }
        let (volume, within) = source(service, parts[0]);
        all.push(Mount { volume, path: parts[1].to_owned(), within, read_only });
    }
    all
}

fn security(user: &str, group: &str, profile: &str) -> String {
    format!(
        "      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {group}
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities:
          drop: [ALL]
        seccompProfile:
          type: Localhost
          localhostProfile: {profile}.json
"
    )
}

fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(", "))
}

/// The health command of a unit, which is a JSON array.
fn probe(unit: &Unit) -> Option<Vec<String>> {
    let text = *unit.all("Container", "HealthCmd").first()?;
    Some(serde_json::from_str(text).unwrap())
}

/// The unit's own, and the flavour's settings.
fn arguments(service: &str, exec: &str, flavour: &Flavour) -> Vec<String> {
    let settings = flavour
        .settings
        .iter()
        .filter(|setting| service == "orchestrator" || !setting.starts_with("services."));
    let mut all: Vec<String> = exec.split(' ').map(str::to_owned).collect();
    for setting in settings {
        all.extend(["--set".to_owned(), (*setting).to_owned()]);
    }
    all
}

fn container(service: &str, flavour: &Flavour) -> String {
    let unit = unit(service);
    let get = |key: &str| unit.one("Container", key);
    for (key, value) in [
        ("ReadOnly", "true"),
        ("DropCapability", "all"),
        ("NoNewPrivileges", "true"),
        ("ReadOnlyTmpfs", "false"),
        ("Pull", "never"),
        ("Network", "none"),
    ] {
        assert_eq!(get(key), value, "{service}: {key}");
    }
    let profile = get("SeccompProfile").rsplit('/').next().unwrap().trim_end_matches(".json");
    let arguments = arguments(service, get("Exec"), flavour);
    let memory = mebibytes(unit.one("Service", "MemoryMax")).min(flavour.memory_mib_max);
    let mut text = format!(
        "    - name: {service}
      image: {}
      imagePullPolicy: Never
      args: {}
{}      resources:
        limits:
          memory: {memory}Mi
",
        get("Image"),
        quoted(&arguments),
        security(get("User"), get("Group"), profile),
    );
    if let Some(command) = probe(&unit) {
        let seconds = |key: &str| get(key).trim_end_matches('s').to_owned();
        write!(
            text,
            "      livenessProbe:
        exec:
          command: {}
        periodSeconds: {}
        timeoutSeconds: {}
        failureThreshold: {}
        initialDelaySeconds: 60
",
            quoted(&command),
            seconds("HealthInterval"),
            seconds("HealthTimeout"),
            get("HealthRetries"),
        )
        .unwrap();
    }
    text.push_str("      volumeMounts:\n");
    let mut mounts = mounts(service, flavour.services);
    if service == "orchestrator" {
        let (volume, path) = ("keys".to_owned(), "/run/secrets".to_owned());
        mounts.push(Mount { volume, path, within: String::new(), read_only: true });
    }
    for mount in mounts {
        writeln!(text, "        - name: {}", mount.volume).unwrap();
        writeln!(text, "          mountPath: {}", mount.path).unwrap();
        if !mount.within.is_empty() {
            writeln!(text, "          subPath: {}", mount.within).unwrap();
        }
        if mount.read_only {
            text.push_str("          readOnly: true\n");
        }
    }
    text
}

fn door() -> String {
    format!(
        "    # The only member that opens a port; it holds no key, no job and no model.
    - name: door
      image: localhost/ai-semble-door:current
      imagePullPolicy: Never
      args: [\"--set\", \"listen.address=0.0.0.0:8080\", \"--set\", \"to.socket=/run/ai-semble/http/http.sock\"]
      ports:
        - containerPort: 8080
          hostPort: 8080
          hostIP: 127.0.0.1
{}      resources:
        limits:
          memory: 128Mi
      volumeMounts:
        - name: http-socket
          mountPath: /run/ai-semble/http
          readOnly: true
",
        security(DOOR_USER, "10000", "door")
    )
}

fn annotations(flavour: &Flavour) -> String {
    let mut text = String::new();
    for name in flavour.services.iter().copied().chain(["door"]) {
        writeln!(
            text,
            "    container.seccomp.security.alpha.kubernetes.io/{name}: localhost/{name}.json"
        )
        .unwrap();
    }
    text
}

fn claim(volume: &str) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: ai-semble-kube-{volume}
  annotations:
    volume.podman.io/uid: \"10001\"
    volume.podman.io/gid: \"10000\"
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 10Gi
---
"
    )
}

fn render(flavour: &Flavour) -> String {
    let containers: String =
        flavour.services.iter().map(|service| container(service, flavour)).collect();
    let mut claims = String::new();
    let mut volumes = String::new();
    let mounted: BTreeSet<String> = flavour
        .services
        .iter()
        .flat_map(|service| mounts(service, flavour.services))
        .map(|mount| mount.volume)
        .chain(["keys".to_owned()])
        .collect();
    for volume in mounted {
        if volume.ends_with("-socket") {
            write!(volumes, "    - name: {volume}\n      emptyDir: {{}}\n").unwrap();
            continue;
        }
        write!(
            volumes,
            "    - name: {volume}
      persistentVolumeClaim:
        claimName: ai-semble-kube-{volume}
"
        )
        .unwrap();
        claims.push_str(&claim(&volume));
    }
    format!(
        "# {} Made from quadlets/ by a test; docs/pods.md says how it is used and what differs.
# AISEMBLE_UPDATE=1 cargo test -p aisemble-tests pods
{claims}apiVersion: v1
kind: Pod
metadata:
  name: ai-semble
  labels:
    app.kubernetes.io/name: ai-semble
  annotations:
    # Podman does not look at seccompProfile below, and Kubernetes not at these.
{}spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  hostNetwork: false
  restartPolicy: Always
  securityContext:
    runAsNonRoot: true
    fsGroup: 10000
    supplementalGroups: [10000]
    seccompProfile:
      type: RuntimeDefault
  containers:
{containers}{}  volumes:
{volumes}",
        flavour.what_for,
        annotations(flavour),
        door(),
    )
}

fn path(flavour: &Flavour) -> PathBuf {
    repository_root().join("pods").join(flavour.file)
}

#[test]
fn pods_say_what_the_units_say() {
    for flavour in &FLAVOURS {
        let made = render(flavour);
        if std::env::var_os("AISEMBLE_UPDATE").is_some() {
            std::fs::write(path(flavour), &made).unwrap();
        }
        let there = std::fs::read_to_string(path(flavour)).unwrap();
        assert!(there == made, "pods/{} differs from the units; see above", flavour.file);
    }
}

/// What Kubernetes calls the restricted profile of its Pod Security Standards, line by line.
#[test]
fn pods_are_restricted() {
    for flavour in &FLAVOURS {
        let text = std::fs::read_to_string(path(flavour)).unwrap();
        for word in ["hostPath", "privileged", "hostPID", "hostIPC", "hostNetwork: true", "add:"] {
            assert!(!text.contains(word), "pods/{}: {word}", flavour.file);
        }
        let members = flavour.services.len() + 1;
        for (line, times) in [
            ("        allowPrivilegeEscalation: false\n", members),
            ("        readOnlyRootFilesystem: true\n", members),
            ("        runAsNonRoot: true\n", members),
            ("          drop: [ALL]\n", members),
            ("          type: Localhost\n", members),
            ("      imagePullPolicy: Never\n", members),
            ("    container.seccomp.security.alpha.kubernetes.io/", members),
        ] {
            assert_eq!(text.matches(line).count(), times, "pods/{}: {line}", flavour.file);
        }
        let users: Vec<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("runAsUser: ")).collect();
        let different: BTreeSet<&str> = users.iter().copied().collect();
        assert_eq!(different.len(), members, "a user of its own for each: {users:?}");
        assert!(!different.contains("0"), "nobody is root");
    }
}
