//! Harmless tries of system calls, derived from a policy: each rule's calls with arguments that
//! satisfy it, each condition altered, and every call that no rule names. A try that the filters
//! let through gets arguments that the kernel itself rejects (no descriptor, no address, unknown
//! flags), so nothing happens when a filter is missing. It knows no files and no service.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::policy::{ARGUMENTS, Condition, Policy, Rule, Step, Syscall, Test, Verdict, syscalls};

/// No descriptor, no address, no known flag, in every position.
const INVALID: u64 = u64::MAX;

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// The call succeeded, with this result.
    Returned(i64),
    /// The call failed with this errno.
    Failed(i32),
}

impl fmt::Display for Observed {
    /// `ok`, or the errno's name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(_) => formatter.write_str("ok"),
            Self::Failed(errno) => formatter.write_str(&errno_name(*errno)),
        }
    }
}

/// The kernel's name of an errno that a try can come back with, else its number.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    macro_rules! names {
        ($($name:ident)*) => {
            match errno { $(libc::$name => stringify!($name).to_owned(),)* _ => errno.to_string() }
        };
    }
    names!(EPERM ENOENT ESRCH EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV
           ENOTDIR EISDIR EINVAL EROFS ERANGE ENOSYS EOPNOTSUPP EAFNOSUPPORT EADDRINUSE
           ECONNREFUSED)
}

/// One harmless system call and what the policy says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    syscall: Syscall,
    number: i64,
    arguments: [u64; ARGUMENTS],
    /// What the filters must answer.
    pub expected: Verdict,
    /// The comment of the rule that it was derived from.
    pub rule: String,
    /// Whether a rule names the call; false for the rest of the kernel's table.
    pub named: bool,
}

/// All attempts that `policy` gives rise to once `step` is in force.
#[must_use]
pub fn derive(policy: &Policy, step: Step) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let refusals = policy.not_implemented().iter().chain(policy.refused());
    let allowed = match step {
        Step::Confine => &[],
        Step::LockDown => policy.allowed(),
    };
    for rule in refusals.chain(allowed) {
        for syscall in &rule.syscalls {
            derive_rule(policy, step, rule, *syscall, &mut attempts);
        }
    }
    if step == Step::LockDown {
        for syscall in syscalls::all() {
            if !attempts.iter().any(|attempt| attempt.syscall.name == syscall.name) {
                let rule = "no rule names it";
                push(policy, step, (syscall, harmless(syscall.name), rule, false), &mut attempts);
            }
        }
    }
    attempts
}

fn derive_rule(
    policy: &Policy,
    step: Step,
    rule: &Rule,
    syscall: Syscall,
    attempts: &mut Vec<Attempt>,
) {
    let mut satisfied = harmless(syscall.name);
    for condition in &rule.when {
        let argument = &mut satisfied[usize::from(condition.argument)];
        *argument = satisfying(condition, *argument);
    }
    push(policy, step, (syscall, satisfied, &rule.comment, true), attempts);
    for condition in &rule.when {
        for value in altering(condition, satisfied[usize::from(condition.argument)], syscall.name) {
            let mut altered = satisfied;
            altered[usize::from(condition.argument)] = value;
            push(policy, step, (syscall, altered, &rule.comment, true), attempts);
        }
    }
}

fn push(
    policy: &Policy,
    step: Step,
    (syscall, arguments, rule, named): (Syscall, [u64; ARGUMENTS], &str, bool),
    attempts: &mut Vec<Attempt>,
) {
    // Not a call of this architecture: nothing to try.
    let Some(number) = syscall.number else { return };
    let expected = policy.verdict(step, number, &arguments);
    let rule = rule.to_owned();
    attempts.push(Attempt { syscall, number, arguments, expected, rule, named });
}

/// Arguments with which the kernel does nothing.
fn harmless(name: &str) -> [u64; ARGUMENTS] {
    let mut arguments = [INVALID; ARGUMENTS];
    match name {
        // Shared signal handlers without shared memory: EINVAL.
        "clone" => arguments[0] = libc::CLONE_SIGHAND as u64,
        // The first step refuses one of the flags; no flag, and no socket to send on.
        "sendto" | "sendmmsg" => arguments[3] = 0,
        "sendmsg" => arguments[2] = 0,
        // The kernel has no operation of every flag (ENOSYS, as if it had no futex); FUTEX_WAKE of
        // no address is EFAULT.
        "futex" => arguments[1] = libc::FUTEX_WAKE as u64,
        _ => {}
    }
    arguments
}

fn satisfying(condition: &Condition, current: u64) -> u64 {
    match condition.test {
        Test::Is(value) => value.resolve(),
        Test::IsNot(value) if value.resolve() == INVALID => 0,
        Test::IsNot(_) => INVALID,
        Test::Bits { mask, are } => (current & !mask) | are,
    }
}

/// Values that break the condition: for bits, each one flipped by itself.
fn altering(condition: &Condition, satisfied: u64, name: &str) -> Vec<u64> {
    match condition.test {
        Test::Is(_) if name == "socket" => families().to_vec(),
        Test::Is(value) => vec![value.resolve() ^ (INVALID >> 1)],
        // Beside the alteration, the other values that are refused and worth showing one by one.
        Test::IsNot(value) if name == "socket" => {
            families().into_iter().chain([value.resolve()]).collect()
        }
        Test::IsNot(value) => vec![value.resolve()],
        Test::Bits { mask, .. } => {
            let bits = (0..u64::BITS).map(|bit| 1_u64 << bit);
            bits.filter(|bit| mask & bit != 0).map(|bit| satisfied ^ bit).collect()
        }
    }
}

/// Address families that a compromised service would ask for.
const fn families() -> [u64; 6] {
    [
        libc::AF_INET as u64,
        libc::AF_INET6 as u64,
        libc::AF_NETLINK as u64,
        libc::AF_PACKET as u64,
        libc::AF_VSOCK as u64,
        libc::AF_ALG as u64,
    ]
}

impl Attempt {
    /// One call of `name` with harmless arguments, of which the first is `first` if given;
    /// `None` if this architecture has no such call.
    #[must_use]
    pub(crate) fn of(policy: &Policy, step: Step, name: &str, first: Option<u64>) -> Option<Self> {
        let syscall = syscalls::find(name)?;
        let mut arguments = harmless(name);
        if let Some(first) = first {
            arguments[0] = first;
        }
        let mut attempts = Vec::new();
        push(policy, step, (syscall, arguments, "self check", false), &mut attempts);
        attempts.pop()
    }

    /// The call's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.syscall.name
    }

    /// The call's number and arguments, as a filter sees them.
    #[must_use]
    pub fn call(&self) -> (i64, [u64; ARGUMENTS]) {
        (self.number, self.arguments)
    }

    /// Whether performing it, when it is allowed, ends the process.
    #[must_use]
    pub fn ends_the_process(&self) -> bool {
        matches!(self.syscall.name, "exit" | "exit_group")
    }

    /// Whether performing it does nothing even where no filter is in force. Not so for the calls
    /// that take no argument which could be made invalid, and have an effect.
    #[must_use]
    pub fn is_harmless_unfiltered(&self) -> bool {
        !self.ends_the_process()
            && !matches!(self.syscall.name, "vhangup" | "fork" | "vfork" | "pause" | "sync")
    }

    /// Whether `observed` is what the policy says.
    #[must_use]
    pub fn agrees_with(&self, observed: Observed) -> bool {
        match self.expected {
            Verdict::Refused(errno) => observed == Observed::Failed(errno),
            Verdict::Allowed => observed != Observed::Failed(libc::EPERM),
        }
    }

    /// Makes the call. Two allowed calls have no harmless raw form, so that something that needs
    /// them is done instead: a thread is made (`clone`), a signal handler returns
    /// (`rt_sigreturn`).
    #[must_use]
    pub fn perform(&self) -> Observed {
        match (self.syscall.name, self.expected) {
            ("clone", Verdict::Allowed) if self.makes_a_thread() => make_a_thread(),
            ("rt_sigreturn", Verdict::Allowed) => return_from_a_handler(),
            _ => self.perform_raw(),
        }
    }

    fn makes_a_thread(&self) -> bool {
        self.arguments[0] & libc::CLONE_THREAD as u64 != 0
    }

    fn perform_raw(&self) -> Observed {
        let [a, b, c, d, e, f] = self.arguments;
        #[expect(unsafe_code, reason = "the point of a try is to make the raw call")]
        // SAFETY: attempts are made in this module only, with arguments that the kernel rejects
        // before it touches memory, or for which the policy's filter answers.
        let result = unsafe { libc::syscall(self.number, a, b, c, d, e, f) };
        if result == -1 {
            let errno = io::Error::last_os_error().raw_os_error();
            return Observed::Failed(errno.unwrap_or_default());
        }
        Observed::Returned(result)
    }
}

fn make_a_thread() -> Observed {
    match std::thread::Builder::new().spawn(|| 7) {
        Ok(thread) => Observed::Returned(thread.join().unwrap_or(-1)),
        Err(error) => Observed::Failed(error.raw_os_error().unwrap_or_default()),
    }
}

static HANDLED: AtomicBool = AtomicBool::new(false);

extern "C" fn handle(_signal: libc::c_int) {
    HANDLED.store(true, Ordering::SeqCst);
}

fn return_from_a_handler() -> Observed {
    let handler = handle as extern "C" fn(libc::c_int);
    #[expect(unsafe_code, reason = "std has no signal handlers")]
    // SAFETY: the handler only stores to an atomic; SIGURG is ignored by default, so the default
    // is what it was before.
    unsafe {
        libc::signal(libc::SIGURG, handler as libc::sighandler_t);
        libc::raise(libc::SIGURG);
        libc::signal(libc::SIGURG, libc::SIG_DFL);
    }
    if HANDLED.load(Ordering::SeqCst) {
        Observed::Returned(0)
    } else {
        Observed::Failed(libc::EPERM)
    }
}
