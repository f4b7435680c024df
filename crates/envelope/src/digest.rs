//! The names of plaintexts: `sha256:…` and `sha512:…`, as registries write them.

mod state;

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256, Sha512};

pub use self::state::HashState;

/// A hash function that may name a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256: `sha256`.
    Sha256,
    /// SHA-512: `sha512`.
    Sha512,
}

impl Algorithm {
    /// Its registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of its digests in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no hash function has empty digests")]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(ParseDigestError::Algorithm),
        }
    }
}

/// A text that is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// The algorithm is missing or not one of ours.
    #[error("a digest starts with sha256: or sha512:")]
    Algorithm,
    /// What follows the colon is not lower-case hexadecimal of the algorithm's length.
    #[error("a digest ends with the lower-case hexadecimal form of the hash, in full")]
    Hex,
}

/// The hash of a plaintext, and so its name. Text: `sha256:` and 64 lower-case hexadecimal digits, `sha512:` and 128.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// Zero beyond the algorithm's length, so that the derived comparisons compare what counts.
    bytes: [u8; 64],
}

impl Digest {
    /// The digest of `data`.
    #[must_use]
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    /// The digest with these bytes, or `None` unless there are as many as the algorithm has.
    #[must_use]
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let mut digest = Self { algorithm, bytes: [0; 64] };
        if bytes.len() != algorithm.len() {
            return None;
        }
        digest.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(digest)
    }

    /// Its hash function.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes: 32 or 64.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, HEXLOWER.encode(self.as_bytes()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(ParseDigestError::Algorithm)?;
        let algorithm = algorithm.parse()?;
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| ParseDigestError::Hex)?;
        Self::from_bytes(algorithm, &bytes).ok_or(ParseDigestError::Hex)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// Has hashed nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Its hash function.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Hashes `data` after what was hashed before.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(data),
            State::Sha512(hasher) => hasher.update(data),
        }
    }

    /// The digest of everything.
    #[must_use]
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let mut bytes = [0; 64];
        match self.0 {
            State::Sha256(hasher) => bytes[..32].copy_from_slice(&hasher.finalize()),
            State::Sha512(hasher) => bytes.copy_from_slice(&hasher.finalize()),
        }
        Digest { algorithm, bytes }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_round_trips() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"bulla");
            assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
            assert_eq!(Digest::from_bytes(algorithm, digest.as_bytes()), Some(digest));
        }
    }

    #[test]
    fn only_the_canonical_text_is_a_digest() {
        let hex = &EMPTY["sha256:".len()..];
        for (text, error) in [
            (String::new(), ParseDigestError::Algorithm),
            (hex.to_owned(), ParseDigestError::Algorithm),
            (format!("SHA256:{hex}"), ParseDigestError::Algorithm),
            (format!("sha384:{hex}"), ParseDigestError::Algorithm),
            (format!("sha256:{}", hex.to_uppercase()), ParseDigestError::Hex),
            (format!("sha256:{}", &hex[1..]), ParseDigestError::Hex),
            (format!("sha256:{}", &hex[2..]), ParseDigestError::Hex),
            (format!("sha256:{hex}00"), ParseDigestError::Hex),
            (format!("sha512:{hex}"), ParseDigestError::Hex),
            (format!("sha256:{hex} "), ParseDigestError::Hex),
            ("sha256:".to_owned(), ParseDigestError::Hex),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"bul");
        let fork = hasher.clone();
        hasher.update(b"la");
        assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha512, b"bulla"));
        assert_eq!(fork.finish(), Digest::of(Algorithm::Sha512, b"bul"));
    }
}
