//! The symbolic constants that a policy text may use instead of numbers, with the values of this
//! target. It knows the kernel's headers (through libc) and nothing else.

/// The value of a constant by its name in the kernel's headers.
pub(super) fn find(name: &str) -> Option<u64> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

macro_rules! constants {
    ($($name:ident),* $(,)?) => {
        &[("NULL", 0), $((stringify!($name), libc::$name as u64)),*]
    };
}

const TABLE: &[(&str, u64)] = constants![
    AF_INET,
    AF_INET6,
    AF_UNIX,
    AT_REMOVEDIR,
    CLONE_CHILD_CLEARTID,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_PARENT_SETTID,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
    FIOCLEX,
    FIONBIO,
    FIONREAD,
    F_ADD_SEALS,
    F_DUPFD_CLOEXEC,
    F_GETFD,
    F_GETFL,
    F_GETLK,
    F_OFD_GETLK,
    F_OFD_SETLK,
    F_OFD_SETLKW,
    F_SETFD,
    F_SETFL,
    F_SETLK,
    F_SETLKW,
    IPPROTO_TCP,
    MSG_FASTOPEN,
    O_APPEND,
    O_CREAT,
    O_EXCL,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    PROT_EXEC,
    PR_GET_DUMPABLE,
    PR_GET_NAME,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    PR_SET_DUMPABLE,
    PR_SET_MM,
    PR_SET_NAME,
    PR_SET_PTRACER,
    PR_SET_VMA,
    RLIMIT_CORE,
    SOL_SOCKET,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_REUSEADDR,
    TCGETS,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
];
