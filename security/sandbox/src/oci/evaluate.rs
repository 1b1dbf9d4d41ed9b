//! What a profile answers to a call, in the words of the runtime specification, and whether two
//! rules can ever match the same call. It knows no policy.

use super::{ALLOW, Argument, Entry, Profile};
use crate::policy::{ARGUMENTS, Verdict};

impl Argument {
    /// Whether `arguments` satisfy it.
    fn holds(&self, arguments: &[u64; ARGUMENTS]) -> bool {
        let argument = arguments[usize::from(self.index)];
        match self.op.as_str() {
            "SCMP_CMP_EQ" => argument == self.value,
            "SCMP_CMP_NE" => argument != self.value,
            "SCMP_CMP_MASKED_EQ" => argument & self.value == self.value_two.unwrap_or(0),
            other => panic!("{other} is not used here"),
        }
    }
}

impl Entry {
    fn matches(&self, name: &str, arguments: &[u64; ARGUMENTS]) -> bool {
        self.names.iter().any(|named| named == name)
            && self.args.iter().all(|argument| argument.holds(arguments))
    }
}

impl Profile {
    /// The answer to a call. Panics where rules contradict each other.
    pub(super) fn verdict(&self, name: &str, arguments: &[u64; ARGUMENTS]) -> Verdict {
        let mut entries = self.syscalls.iter().filter(|entry| entry.matches(name, arguments));
        let Some(first) = entries.next() else { return Verdict::Refused(self.default_errno_ret) };
        for other in entries {
            assert_eq!(other.action, first.action, "{name} {arguments:x?}: {first:?} {other:?}");
        }
        if first.action == ALLOW {
            Verdict::Allowed
        } else {
            Verdict::Refused(first.errno_ret.expect("a refusal names its errno"))
        }
    }
}

/// Whether no call can satisfy both lists of conditions.
pub(super) fn disjoint(one: &[Argument], other: &[Argument]) -> bool {
    one.iter().any(|a| other.iter().any(|b| contradict(a, b) || contradict(b, a)))
}

fn contradict(a: &Argument, b: &Argument) -> bool {
    if a.index != b.index {
        return false;
    }
    let masked = |argument: &Argument| match argument.op.as_str() {
        "SCMP_CMP_EQ" => Some((u64::MAX, argument.value)),
        "SCMP_CMP_MASKED_EQ" => Some((argument.value, argument.value_two.unwrap_or(0))),
        _ => None,
    };
    match (masked(a), masked(b)) {
        (Some((mask_a, value_a)), Some((mask_b, value_b))) => {
            let both = mask_a & mask_b;
            value_a & both != value_b & both
        }
        // `b` is NE: contradicted by the very value, as far as an int's register is looked at.
        (Some((mask, value)), None) => {
            mask & u64::from(u32::MAX) == u64::from(u32::MAX) && value == b.value
        }
        (None, _) => false,
    }
}
