//! The Landlock side: which files, sockets, ports and signals the process reaches. All that the
//! running kernel can refuse is refused, and anything short of that stops the start. It knows
//! paths and access rights, no system calls of a filter.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use crate::error::SandboxError;
use crate::policy::Policy;

/// The first ABI that refuses TCP bind and connect (Linux 6.7).
pub(crate) const ABI_MIN: u32 = 4;

/// `LANDLOCK_CREATE_RULESET_VERSION` of `linux/landlock.h`.
const CREATE_RULESET_VERSION: u32 = 1;

/// The files and directories that one service may use, beside what its policy lets every process
/// of its kind read.
///
/// A rule is bound to the file that the path names when [`crate::confine`] runs, not to the name:
/// what is replaced by rename later (a keys file) must be granted by its directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Files, or whole directories, that are read: models, keys.
    pub read: Vec<PathBuf>,
    /// Directories (or files) in which it creates, changes and removes files and directories.
    /// No sockets, pipes, devices, links to elsewhere, and nothing is executed.
    pub read_write: Vec<PathBuf>,
    /// Directories in which it binds, connects to and removes Unix sockets.
    pub sockets: Vec<PathBuf>,
}

/// An opened path and what is allowed beneath it. Kept open for the life of the process, because
/// that keeps the kernel's entry of a `/proc` file, and so its rule, alive.
#[derive(Debug)]
pub(crate) struct Grant {
    fd: OwnedFd,
    access: BitFlags<AccessFs>,
}

impl Grant {
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

const READ_WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});

const SOCKETS: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadDir | MakeSock | RemoveFile | ResolveUnix});

/// What the running kernel's Landlock is.
pub(crate) fn kernel_abi() -> Result<u32, SandboxError> {
    let no_attributes: usize = 0;
    #[expect(unsafe_code, reason = "libc has no wrapper for this call")]
    // SAFETY: with this flag the kernel reads no attributes and answers its ABI number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            no_attributes,
            no_attributes,
            CREATE_RULESET_VERSION,
        )
    };
    require_abi(u32::try_from(version).map_err(|_negative| io::Error::last_os_error()))
}

fn require_abi(answer: Result<u32, io::Error>) -> Result<u32, SandboxError> {
    match answer {
        Ok(found) if found < ABI_MIN => {
            Err(SandboxError::LandlockTooOld { found, required: ABI_MIN })
        }
        Ok(found) => Ok(found),
        Err(error) => Err(SandboxError::LandlockMissing { detail: error.to_string() }),
    }
}

/// Opens everything that is to be allowed, before anything is refused.
pub(crate) fn open_grants(policy: &Policy, paths: &Paths) -> Result<Vec<Grant>, SandboxError> {
    let mut grants = Vec::new();
    for rule in policy.read() {
        match grant(&rule.path, READ, "reading") {
            Ok(grant) => grants.push(grant),
            Err(error) if rule.required => return Err(error),
            // Not on this kernel or not in this container: std and libc do without it there.
            Err(_absent) => {}
        }
    }
    let lists = [
        (&paths.read, READ, "reading"),
        (&paths.read_write, READ_WRITE, "writing"),
        (&paths.sockets, SOCKETS, "sockets"),
    ];
    for (list, access, purpose) in lists {
        for path in list {
            grants.push(grant(path, access, purpose)?);
        }
    }
    Ok(grants)
}

fn grant(
    path: &Path,
    access: BitFlags<AccessFs>,
    purpose: &'static str,
) -> Result<Grant, SandboxError> {
    let failed = |source| SandboxError::Path { path: path.to_owned(), purpose, source };
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_PATH).open(path).map_err(failed)?;
    let is_dir = file.metadata().map_err(failed)?.is_dir();
    if purpose == "sockets" && !is_dir {
        return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    // The kernel takes rights on directory entries only for directories.
    let access = if is_dir { access } else { access & AccessFs::from_file(ABI::V9) };
    Ok(Grant { fd: OwnedFd::from(file), access })
}

/// Puts the calling thread, and every thread it makes from now on, into a domain that allows
/// `grants` and nothing else that this kernel's Landlock knows: no other file, no TCP, no device
/// ioctl, no abstract socket and no signal to a process outside.
pub(crate) fn enforce(kernel_abi: u32, grants: &[Grant]) -> Result<(), SandboxError> {
    let abi = ABI::from(i32::try_from(kernel_abi).unwrap_or(i32::MAX));
    let status = restrict(abi, grants)
        .map_err(|source| SandboxError::Landlock { source: Box::new(source) })?;
    match status {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(SandboxError::LandlockPartial { status: format!("{status:?}") })
        }
    }
}

fn restrict(abi: ABI, grants: &[Grant]) -> Result<RulesetStatus, landlock::RulesetError> {
    let handled = AccessFs::from_all(abi);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled)?
        .handle_access(AccessNet::from_all(abi))?;
    let scopes = Scope::from_all(abi);
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes)?;
    }
    let mut created = ruleset.create()?;
    for grant in grants {
        let access = grant.access & handled;
        created = created.add_rule(PathBeneath::new(&grant.fd, access))?;
    }
    Ok(created.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_missing_landlock_is_refused() {
        assert_eq!(require_abi(Ok(7)).unwrap(), 7);
        assert_eq!(require_abi(Ok(ABI_MIN)).unwrap(), ABI_MIN);
        for found in [0, 1, 3] {
            let error = require_abi(Ok(found)).unwrap_err().to_string();
            assert!(error.contains(&format!("ABI {found}")), "{error}");
        }
        for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
            let error = require_abi(Err(io::Error::from_raw_os_error(errno))).unwrap_err();
            assert!(matches!(error, SandboxError::LandlockMissing { .. }), "{error}");
        }
    }

    #[test]
    fn a_path_that_does_not_exist_is_named() {
        let policy = Policy::named("llm").unwrap();
        let missing = PathBuf::from("/nowhere/model.gguf");
        let paths = Paths { read: vec![missing.clone()], ..Paths::default() };
        let error = open_grants(&policy, &paths).unwrap_err();
        assert!(error.to_string().contains("/nowhere/model.gguf"), "{error}");
        let paths = Paths { sockets: vec!["/etc/passwd".into()], ..Paths::default() };
        let error = open_grants(&policy, &paths).unwrap_err();
        assert!(error.to_string().contains("sockets in `/etc/passwd`"), "{error}");
    }
}
