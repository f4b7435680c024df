//! The names of the specification: repositories, tags, references. Parsing is total and takes nothing else.

use std::fmt;
use std::str::FromStr;

use bulla::Digest;

use crate::error::{ErrorCode, RegistryError};

/// Characters of a repository's name: with a host before it, it stays within 255 for many clients.
pub const MAX_NAME_LEN: usize = 255;
/// Characters of a tag.
pub const MAX_TAG_LEN: usize = 128;

/// The name of a repository: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`, at most 255
/// characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// What names a manifest in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the specification has these two")]
pub enum Reference {
    /// By what it is called now.
    Tag(Tag),
    /// By what it is.
    Digest(Digest),
}

impl RepositoryName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        if text.len() <= MAX_NAME_LEN && text.split('/').all(is_component) {
            return Ok(Self(text.to_owned()));
        }
        Err(RegistryError::new(
            ErrorCode::NameInvalid,
            "a repository's name is components of a-z and 0-9, with single separators `.`, `_`, `__` or dashes inside, \
             joined by `/`, of at most 255 characters",
        ))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = text;
    loop {
        let word = rest.trim_start_matches(is_alphanumeric);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        rest = word.trim_start_matches('-');
        if rest.len() == word.len() {
            rest = match word.strip_prefix("__").or_else(|| word.strip_prefix(['.', '_'])) {
                Some(rest) => rest,
                None => return false,
            };
        }
    }
}

impl FromStr for Tag {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let is_first = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let is_other = |c: u8| is_first(c) || c == b'.' || c == b'-';
        let is_tag = text.len() <= MAX_TAG_LEN
            && text.bytes().next().is_some_and(is_first)
            && text.bytes().all(is_other);
        if is_tag {
            return Ok(Self(text.to_owned()));
        }
        Err(RegistryError::new(
            ErrorCode::ManifestInvalid,
            "a tag is at most 128 of a-z, A-Z, 0-9, `_`, `.` and `-`, and begins with none of the last two",
        ))
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        if text.contains(':') { parse_digest(text).map(Self::Digest) } else { text.parse().map(Self::Tag) }
    }
}

/// A digest as a client wrote it.
///
/// # Errors
/// `DIGEST_INVALID` where it is none, or of an algorithm other than sha256 and sha512.
pub fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|error: bulla::ParseDigestError| {
        RegistryError::new(ErrorCode::DigestInvalid, error.to_string())
    })
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryName({self})")
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_specifications() {
        for good in ["a", "library/alpine", "a.b_c__d-e---f/0", "0", &"a".repeat(255)] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a.",
            ".a",
            "a..b",
            "a._b",
            "a___b",
            "_a",
            "a-",
            "-a",
            "ä",
            "a b",
            "a%2fb",
            "a/../b",
            "..",
            "a\0",
            "a\n",
            &"a".repeat(256),
        ] {
            let error = bad.parse::<RepositoryName>().unwrap_err();
            assert_eq!(error.code(), ErrorCode::NameInvalid, "{bad:?}");
        }
    }

    #[test]
    fn tags_are_the_specifications() {
        for good in ["latest", "_", "v1.0-rc.1_x", "A", &"t".repeat(128)] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "ä", "a b", "a\n", &"t".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reference_with_a_colon_is_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert_eq!("sha256:0".parse::<Reference>().unwrap_err().code(), ErrorCode::DigestInvalid);
        assert_eq!("md5:0".parse::<Reference>().unwrap_err().code(), ErrorCode::DigestInvalid);
    }

    proptest::proptest! {
        /// Against the specification's expression, read the other way round: by splitting at separators.
        #[test]
        fn a_component_is_words_and_single_separators(text in "[a-b0._/-]{0,12}") {
            let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
            let is_word = |c: char| c.is_ascii_alphanumeric();
            let expected = text.split('/').all(|component| {
                let ends = component.starts_with(is_word) && component.ends_with(is_word);
                ends && component.split(is_word).filter(|between| !between.is_empty()).all(is_separator)
            });
            proptest::prop_assert_eq!(text.parse::<RepositoryName>().is_ok(), expected);
        }
    }
}
