"""Asks a compiled SELinux policy what each service of the pod may do. Run by policy.sh where setools
is installed: python3 policy.py POLICY_FILE [gpu | runtime | caller]. One line a question; ends with 1 if one is answered
otherwise than expected.

Rules that the policy gives to every domain there is (`allow domain ...`) are not counted: they are
the same for all programs of the host.
"""

import sys

import setools

SERVICES = ["orchestrator", "llm", "nlp", "vision", "data_processor"]
MODEL_SERVICES = ["llm", "nlp", "vision"]
INTERNET = ["tcp_socket", "udp_socket", "rawip_socket", "sctp_socket", "dccp_socket", "icmp_socket"]
OTHER_FAMILIES = [
    "packet_socket", "netlink_socket", "netlink_route_socket", "alg_socket", "vsock_socket",
    "bluetooth_socket", "xdp_socket", "tun_socket", "key_socket",
]
POWERS = [
    "capability", "capability2", "cap_userns", "cap2_userns", "bpf", "perf_event", "key", "io_uring",
    "user_namespace", "system", "security", "binder",
]
CHANGE = {
    "write", "append", "create", "unlink", "rename", "link", "setattr", "relabelto", "relabelfrom",
    "add_name", "remove_name", "rmdir", "reparent",
}
FILES = ["file", "dir", "lnk_file", "sock_file", "fifo_file"]
FOREIGN = ["user_home_t", "xdg_data_t", "xdg_config_t", "container_file_t", "container_ro_file_t",
           "shadow_t", "sshd_key_t", "etc_t", "usr_t"]

policy = setools.SELinuxPolicy(sys.argv[1])
missed = 0


def expect(number, what, wanted, seen):
    global missed
    verdict = "ok  "
    if wanted != seen:
        verdict, missed = "MISS", missed + 1
    print(f"{verdict} {number:<4} {what:<70} {seen}")


# A query walks the whole policy: one for each source, and what a target's name stands for once.
of_source = {}
of_target = {}


def members(target):
    """The types that a type or an attribute stands for."""
    if str(target) not in of_target:
        of_target[str(target)] = {str(one) for one in target.expand()}
    return of_target[str(target)]


def rules(source, target=None, classes=None):
    if source not in of_source:
        query = setools.TERuleQuery(policy, ruletype=["allow"], source=source, source_indirect=True)
        of_source[source] = [rule for rule in query.results() if str(rule.source) != "domain"]
    return [rule for rule in of_source[source]
            if (classes is None or str(rule.tclass) in classes)
            and (target is None or target in members(rule.target))]


def granted(source, target=None, classes=None):
    """All permissions together, of all rules that match."""
    return set().union(*(rule.perms for rule in rules(source, target, classes)), set())


def known(classes):
    """Those of the classes that this policy has."""
    there = {str(one) for one in policy.classes()}
    return [one for one in classes if one in there]


def type_of(service):
    return f"ai_semble_{service}_t"


def check_services():
    for service in SERVICES + ["infra"]:
        own = type_of(service)
        making = {"create", "bind", "connect", "name_connect", "name_bind", "node_bind"}
        expect(44, f"{service}: make, bind or connect an internet socket", set(),
               granted(own, classes=known(INTERNET)) & making)
        expect(44, f"{service}: anything with a socket of another family", set(),
               granted(own, classes=known(OTHER_FAMILIES)))
        expect(44, f"{service}: ptrace, executable memory, another context", set(),
               granted(own, classes=["process"]) & {
                   "ptrace", "transition", "dyntransition", "execmem", "execstack", "execheap",
                   "setexec", "setcurrent", "setfscreate"})
        expect(44, f"{service}: capabilities, bpf, perf, keys, io_uring, namespaces", set(),
               granted(own, classes=known(POWERS)) - {"confidentiality", "integrity"})
        expect(44, f"{service}: run a program as its own type", set(),
               granted(own, classes=["file"]) & {"execute_no_trans", "execmod"})
        for target in ["model", "config", "image"]:
            # READY=1 is a datagram to a socket in the container's own folder.
            changed = granted(own, f"ai_semble_{target}_t", ["file", "dir", "lnk_file"]) & CHANGE
            expect(44, f"{service}: change a file or folder of {target}", set(), changed)
        for target in FOREIGN:
            expect(44, f"{service}: open {target}", False,
                   "open" in granted(own, target, ["file"]))


def check_separation():
    for service in SERVICES:
        for other in ["llm", "nlp", "vision", "data_processor"]:
            if other == service:
                continue
            connect = "connectto" in granted(type_of(service), type_of(other), ["unix_stream_socket"])
            write = "write" in granted(type_of(service), f"ai_semble_{other}_run_t", ["sock_file"])
            wanted = service == "orchestrator"
            expect(44, f"{service}: connect to {other}, write to its socket file", (wanted, wanted),
                   (connect, write))
    for service in ["llm", "nlp", "vision", "data_processor"]:
        expect(44, f"{service}: connect to the orchestrator", False,
               "connectto" in granted(type_of(service), "ai_semble_orchestrator_t",
                                      ["unix_stream_socket"]))

    def opens(service, *targets):
        return [target for target in targets
                if "open" in granted(type_of(service), f"ai_semble_{target}_t", ["file"])]

    every = ["model", "config", "data", "files", "exchange"]
    for service in MODEL_SERVICES:
        expect(44, f"{service}: of {', '.join(every)} opens", ["model", "config"], opens(service, *every))
    expect(44, "data processor: opens", ["config", "files", "exchange"], opens("data_processor", *every))
    expect(44, "data processor: changes files", set(),
           granted("ai_semble_data_processor_t", "ai_semble_files_t", FILES) & CHANGE)
    expect(44, "orchestrator: opens", ["config", "data", "files", "exchange"],
           opens("orchestrator", *every))
    expect(44, "infra: opens", [], opens("infra", *every))
    expect(44, "who may listen on the socket that was handed over", ["orchestrator"],
           [one for one in SERVICES
            if "accept" in granted(type_of(one), "unconfined_t", ["tcp_socket"])])
    expect(44, "llm: writes to the pipe that ends in the journal", True,
           "write" in granted("ai_semble_llm_t", "unconfined_t", ["fifo_file"]))


def check_levels():
    classes = sorted(str(one.tclass) for one in policy.constraints()
                     if "ai_semble_contained" in str(one.expression))
    expect(44, "classes in which levels bind the pod's types",
           ["dir", "file", "process", "sock_file", "unix_stream_socket"], sorted(set(classes)))


def check_gpu(loaded):
    devices = "xserver_misc_device_t"
    for service in SERVICES:
        wanted = loaded and service in MODEL_SERVICES
        expect(45, f"{service}: opens the GPU's devices", wanted,
               "open" in granted(type_of(service), devices, ["chr_file"]))
    query = setools.TERuleQuery(policy, ruletype=["allowxperm"], source="ai_semble_llm_t",
                                source_indirect=True)
    ranges = set().union(*(set(rule.perms) for rule in query.results()), set())
    wanted = set(range(0x4600, 0x4700)) | set(range(0x01, 0x4C)) if loaded else set()
    expect(45, "llm: allowxperm is 0x4600-0x46ff, 0x0001-0x004b and nothing else" if loaded
           else "llm: no allowxperm without the GPU module", True, ranges == wanted)


def check_runtime():
    """The runtime's domain of Fedora and RHEL, which `runtime.te` of policy.sh stands in for."""
    runtime = "stand_in_runtime_t"
    expect(43, "the runtime of Fedora and RHEL: starts a service", True,
           "transition" in granted(runtime, type_of("llm"), ["process"]))
    expect(43, "llm: writes to its pipe, and to nothing else of it", {"fifo_file", "unix_dgram_socket"},
           {str(rule.tclass) for rule in rules(type_of("llm"), runtime)
            if {"write", "sendto"} & rule.perms})
    expect(43, "who may accept on a socket of it", ["orchestrator"],
           [one for one in SERVICES if "accept" in granted(type_of(one), runtime, ["tcp_socket"])])


def check_caller():
    """A module that calls every interface of ai_semble.if."""
    expect(43, "a caller of the interfaces: connects to", ["orchestrator"],
           [one for one in SERVICES
            if "connectto" in granted("caller_t", type_of(one), ["unix_stream_socket"])])
    expect(43, "a caller of the interfaces: ptrace or signals of a service", set(),
           granted("caller_t", type_of("llm"), ["process"]) - {"getattr"})
    expect(43, "a caller of the interfaces: changes jobs, files, settings", set(),
           set().union(*(granted("caller_t", f"ai_semble_{one}_t", FILES) for one in
                         ["data", "files", "exchange", "config"])) & CHANGE)


WHAT = {"gpu": lambda: check_gpu(True), "runtime": check_runtime, "caller": check_caller}
if len(sys.argv) > 2:
    WHAT[sys.argv[2]]()
else:
    check_services()
    check_separation()
    check_levels()
    check_gpu(False)
sys.exit(1 if missed else 0)
