//! Sends what begins alike to the same instance: an llm keeps the computation of a prompt's
//! beginning, and only the instance that made it has it.
//!
//! Rendezvous hashing: each instance has a distance to each beginning, the nearest is its home. An
//! instance more or less moves only the beginnings that it is nearest to.

use aisemble_protocol::v1;

/// Bytes of the beginning that is looked at. Chats with the same system text begin alike.
const BYTES_MAX: usize = 1_024;
/// A shorter input is computed anew sooner than it is worth to wait for an instance.
const BYTES_MIN: usize = 256;

/// The beginning of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix([u8; 32]);

impl Prefix {
    /// The beginning of what a generation starts from; none when it is short.
    pub(super) fn of(request: &v1::GenerateRequest) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut left = BYTES_MAX;
        let mut take = |text: &str| {
            let part = text.as_bytes().get(..left.min(text.len())).unwrap_or_default();
            hasher.update(part).update(&[0]);
            left -= part.len();
        };
        match request.input.as_ref()? {
            v1::generate_request::Input::Prompt(prompt) => take(prompt),
            v1::generate_request::Input::Chat(chat) => {
                for message in &chat.messages {
                    take(&message.role);
                    take(&message.content);
                }
            }
        }
        let long_enough = BYTES_MAX - left >= BYTES_MIN;
        long_enough.then(|| Self(*hasher.finalize().as_bytes()))
    }

    /// How far it is from the instance of that name.
    pub(super) fn distance(self, instance: &str) -> u64 {
        let hash = blake3::keyed_hash(&self.0, instance.as_bytes());
        hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aisemble_protocol::v1::generate_request::Input;

    use super::*;

    fn prompt(text: &str) -> Option<Prefix> {
        let input = Some(Input::Prompt(text.to_owned()));
        Prefix::of(&v1::GenerateRequest { input, ..v1::GenerateRequest::default() })
    }

    #[test]
    fn what_begins_alike_is_alike_and_a_short_input_has_no_home() {
        let same = "You are a careful assistant. ".repeat(40);
        assert_eq!(prompt(&format!("{same}one")), prompt(&format!("{same}two")));
        assert_ne!(prompt(&same), prompt(&same.replace("careful", "hasty")));
        assert_eq!(prompt("hello"), None);
    }

    #[test]
    fn every_instance_is_home_to_some_and_stays_when_another_comes() {
        let home = |prefix: Prefix, names: &[&str]| {
            names.iter().min_by_key(|name| prefix.distance(name)).map(|name| (*name).to_owned())
        };
        let (three, four) = (["a", "b", "c"], ["a", "b", "c", "d"]);
        let mut seen = BTreeSet::new();
        for number in 0..64 {
            let prefix = prompt(&format!("{number:>300}")).unwrap();
            let (before, after) = (home(prefix, &three), home(prefix, &four));
            assert!(before == after || after.as_deref() == Some("d"));
            seen.extend(before);
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
