//! What services are there for, by name: the words that routes, scopes, settings, jobs and metrics
//! share.
//!
//! It must not know how any of it is done.

use aisemble_protocol::keys::Scope;

/// One sort of work, done by the instances of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Text by language models.
    Llm,
    /// Embeddings, ranks, labels and entities of texts.
    Nlp,
    /// What is on images.
    Vision,
    /// Tables.
    Data,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 4] = [Self::Llm, Self::Nlp, Self::Vision, Self::Data];

    /// Its name in settings, jobs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Nlp => "nlp",
            Self::Vision => "vision",
            Self::Data => "data",
        }
    }

    /// The capability of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    /// What a key needs to use it.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Llm => Scope::Llm,
            Self::Nlp => Scope::Nlp,
            Self::Vision => Scope::Vision,
            Self::Data => Scope::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_scopes_and_are_read_back() {
        for capability in Capability::ALL {
            assert_eq!(Capability::parse(capability.as_str()), Some(capability));
            assert_eq!(capability.as_str(), capability.scope().as_str());
        }
        assert_eq!(Capability::parse("workflow"), None);
    }
}
