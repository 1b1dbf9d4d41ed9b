//! A sandbox policy as checked types: which files a service may read beside its own, what the
//! first filter refuses, what the second allows, and what both together say about one call.
//!
//! It must not know how a filter is built or installed. The text form is in `document`.

mod constants;
mod document;
pub mod syscalls;

use std::path::PathBuf;

use crate::error::SandboxError;

/// The policy texts that are built in; some are only there to be included by others.
const EMBEDDED: [(&str, &str); 12] = [
    ("confine", include_str!("../../policies/confine.json")),
    ("runtime", include_str!("../../policies/runtime.json")),
    ("llm", include_str!("../../policies/llm.json")),
    ("nlp", include_str!("../../policies/nlp.json")),
    ("vision", include_str!("../../policies/vision.json")),
    ("orchestrator", include_str!("../../policies/orchestrator.json")),
    ("data-processor", include_str!("../../policies/data-processor.json")),
    ("data-processor-fork", include_str!("../../policies/data-processor-fork.json")),
    ("data-processor-worker", include_str!("../../policies/data-processor-worker.json")),
    ("data-processor-start", include_str!("../../policies/data-processor-start.json")),
    ("door", include_str!("../../policies/door.json")),
    ("door-start", include_str!("../../policies/door-start.json")),
];

/// The policies that a process can be confined by.
pub const NAMES: [&str; 6] = ["llm", "nlp", "vision", "orchestrator", "data-processor", "door"];

/// What a service's OCI profile has beside its own policy, and whose it is: what its children add
/// ([`crate::narrow`]), and what it does once, before it confines itself.
pub const CHILDREN: [(&str, &str); 4] = [
    ("data-processor-start", "data-processor"),
    ("data-processor-fork", "data-processor"),
    ("data-processor-worker", "data-processor"),
    ("door-start", "door"),
];

/// Arguments that a filter can look at.
pub const ARGUMENTS: usize = 6;

/// The two moments at which a filter is installed; each keeps what the one before refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// From the first line of `main`: [`crate::confine`].
    Confine,
    /// From the moment the service is warm: [`crate::Confined::lock_down`].
    LockDown,
}

/// What a policy says about one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The filters let it through to the kernel.
    Allowed,
    /// The call returns this errno and does nothing.
    Refused(i32),
}

/// One service's sandbox policy, parsed and checked.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) read: Vec<ReadRule>,
    pub(crate) not_implemented: Vec<Rule>,
    pub(crate) refused: Vec<Rule>,
    pub(crate) allowed: Vec<Rule>,
}

/// A file or directory that every service of the policy may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRule {
    /// An absolute path.
    pub path: PathBuf,
    /// Whether the start fails when the path does not exist here.
    pub required: bool,
    /// Why it is needed.
    pub comment: String,
}

/// Calls that are refused, or allowed, when every condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The calls; on this architecture some may have no number.
    pub syscalls: Vec<Syscall>,
    /// All must hold; empty means: whatever the arguments.
    pub when: Vec<Condition>,
    /// Why the rule exists.
    pub comment: String,
}

/// A system call that this crate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syscall {
    /// The kernel's name.
    pub name: &'static str,
    /// Its number here; `None` where this architecture does not have it.
    pub number: Option<i64>,
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// Whether all 64 bits count (pointers) or the low 32 (ints and flags).
    pub wide: bool,
    /// The test.
    pub test: Test,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Equal to the value.
    Is(Value),
    /// Not equal to the value.
    IsNot(Value),
    /// The bits of the mask equal the value.
    Bits {
        /// The bits that are looked at.
        mask: u64,
        /// What they must be.
        are: u64,
    },
}

/// A number in a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A constant.
    Number(u64),
    /// The process id of the process that the filter is built for.
    OwnPid,
}

impl Value {
    /// The number, in this process.
    #[must_use]
    pub fn resolve(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::OwnPid => u64::from(std::process::id()),
        }
    }
}

impl Condition {
    /// Whether `arguments` satisfy it. This is the reference that the compiled filters are
    /// tested against.
    #[must_use]
    pub fn holds(&self, arguments: &[u64; ARGUMENTS]) -> bool {
        let keep = if self.wide { u64::MAX } else { u64::from(u32::MAX) };
        let argument = arguments[usize::from(self.argument)] & keep;
        match self.test {
            Test::Is(value) => argument == value.resolve() & keep,
            Test::IsNot(value) => argument != value.resolve() & keep,
            Test::Bits { mask, are } => argument & mask == are,
        }
    }
}

impl Rule {
    fn matches(&self, number: i64, arguments: &[u64; ARGUMENTS]) -> bool {
        self.syscalls.iter().any(|syscall| syscall.number == Some(number))
            && self.when.iter().all(|condition| condition.holds(arguments))
    }
}

impl Policy {
    /// The built-in policy of a service: one of [`NAMES`], or of [`CHILDREN`].
    ///
    /// # Errors
    /// `UnknownPolicy` for another name.
    pub fn named(name: &str) -> Result<Self, SandboxError> {
        let known = NAMES.contains(&name) || CHILDREN.iter().any(|(child, _)| *child == name);
        let text = EMBEDDED.iter().find(|(embedded, _)| known && *embedded == name);
        let Some((_, text)) = text else {
            let (name, known) = (name.to_owned(), NAMES.join(", "));
            return Err(SandboxError::UnknownPolicy { name, known });
        };
        Self::parse(name, text)
    }

    /// Parses a policy text; see `docs/sandbox.md` for its form.
    ///
    /// # Errors
    /// `InvalidPolicy` with the place: unknown keys, unknown system calls, missing comments,
    /// rules that contradict or repeat each other, anything over a limit.
    pub fn parse(name: &str, text: &str) -> Result<Self, SandboxError> {
        document::parse(name, text, &EMBEDDED).map_err(|reason| SandboxError::InvalidPolicy {
            name: name.to_owned(),
            reason: reason.to_string(),
        })
    }

    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What may be read beside the service's own paths.
    #[must_use]
    pub fn read(&self) -> &[ReadRule] {
        &self.read
    }

    /// Calls answered with ENOSYS from the first step on, so that the C library falls back to
    /// an older call whose arguments a filter can see.
    #[must_use]
    pub fn not_implemented(&self) -> &[Rule] {
        &self.not_implemented
    }

    /// Calls refused with EPERM from the first step on.
    #[must_use]
    pub fn refused(&self) -> &[Rule] {
        &self.refused
    }

    /// The only calls that the second step allows; all others get EPERM.
    #[must_use]
    pub fn allowed(&self) -> &[Rule] {
        &self.allowed
    }

    /// What the filters of `step` answer to a call.
    #[must_use]
    pub fn verdict(&self, step: Step, number: i64, arguments: &[u64; ARGUMENTS]) -> Verdict {
        let any = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(number, arguments));
        if any(&self.not_implemented) {
            return Verdict::Refused(libc::ENOSYS);
        }
        if any(&self.refused) {
            return Verdict::Refused(libc::EPERM);
        }
        match step {
            Step::Confine => Verdict::Allowed,
            Step::LockDown if any(&self.allowed) => Verdict::Allowed,
            Step::LockDown => Verdict::Refused(libc::EPERM),
        }
    }
}

#[cfg(test)]
mod tests;
