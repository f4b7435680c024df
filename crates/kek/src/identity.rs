//! As whom a key is used.

use std::fmt;
use std::str::FromStr;

/// The identity under which a provider is asked, in the words of managed identities.
///
/// Text: `system`, or the user-assigned identity's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(
    clippy::exhaustive_enums,
    reason = "an identity belongs to the machine or was assigned; there is no third"
)]
pub enum Identity {
    /// The machine's own identity.
    System,
    /// An identity that was assigned, by its id.
    User(String),
}

/// The text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an identity is `system` or an id of 1 to {max} visible ASCII characters", max = Identity::MAX_LEN)]
pub struct InvalidIdentity;

impl Identity {
    /// The longest id, in characters.
    pub const MAX_LEN: usize = 256;

    /// The text: `system` or the id.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User(id) => id,
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        if text == "system" {
            return Ok(Self::System);
        }
        let fits = (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self::User(text.to_owned())) } else { Err(InvalidIdentity) }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        assert_eq!("system".parse(), Ok(Identity::System));
        assert_eq!("acr-pull".parse(), Ok(Identity::User("acr-pull".into())));
        assert_eq!(Identity::User("a/b".into()).to_string(), "a/b");
    }

    #[test]
    fn odd_texts_are_refused() {
        for text in ["", " ", "a b", "line\nbreak", "naïve", &"x".repeat(257)] {
            assert_eq!(text.parse::<Identity>(), Err(InvalidIdentity), "{text:?}");
        }
    }
}
