//! What holds key-encryption keys.

use std::fmt::{self, Debug};
use std::str::FromStr;
use std::time::SystemTime;

use async_trait::async_trait;
use bulla_envelope::secret::Secret;

use crate::error::KekError;
use crate::identity::Identity;
use crate::key_id::KeyId;

/// A holder of key-encryption keys: Key Vault, an HSM, the local vault.
///
/// The key itself never leaves it. Every implementation passes [`crate::conformance`]. Errors are told apart with
/// care, because *denied* makes the engine wipe its secrets: a damaged or foreign wrap is
/// [`Invalid`](crate::KekErrorKind::Invalid), never a verdict on the key.
///
/// # Cancel safety
/// Dropping any of the futures is safe; the request may have reached the provider. A provider ends its requests by
/// itself in time (a few seconds): a request that hangs is an outage that nobody hears of until the lease ends.
#[async_trait]
pub trait KekProvider: Debug + Send + Sync {
    /// Whether this provider may be asked about this key. Local configuration decides (scheme, allowed hosts, vault
    /// id), never the bucket that the id may come from.
    fn accepts(&self, key: &KeyId) -> bool;

    /// What the key is. Without a version: of its newest version. The answer's key id has the version.
    ///
    /// A disabled or expired key is described, not refused.
    ///
    /// # Errors
    /// [`KekError`], by kind.
    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError>;

    /// Encrypts a secret for the key. `key` has a version.
    ///
    /// # Errors
    /// [`KekError`], by kind. An expired or not yet valid key refuses.
    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError>;

    /// Decrypts what [`wrap_key`](Self::wrap_key) made. `key` has a version.
    ///
    /// # Errors
    /// [`KekError`], by kind. An expired or not yet valid key still unwraps; a disabled one does not.
    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError>;

    /// The key as the user would type it (see [`crate::KeyUri`]).
    fn display_uri(&self, key: &KeyId) -> String {
        key.to_string()
    }
}

/// What a provider says of one version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// The key, with the version described.
    pub key: KeyId,
    /// Algorithm and size.
    pub kind: KeyKind,
    /// How the provider wraps with this key; `None` if it can't. Key vaults go by the kind alone
    /// ([`KeyKind::wrap_algorithm`]); a token asks what its hardware offers.
    pub algorithm: Option<WrapAlgorithm>,
    /// Whether the key may be used at all.
    pub enabled: bool,
    /// Start of validity.
    pub not_before: Option<SystemTime>,
    /// End of validity.
    pub expires: Option<SystemTime>,
    /// Permitted operations, by their Key Vault names (`wrapKey`, `unwrapKey`).
    pub operations: Vec<String>,
    /// What stands between the key and its loss.
    pub protection: Protection,
    /// When this version was made.
    pub created: Option<SystemTime>,
}

impl KeyDescription {
    /// Whether `at` lies in the key's validity: `not_before ≤ at < expires`.
    pub fn is_valid_at(&self, at: SystemTime) -> bool {
        self.not_before.is_none_or(|start| start <= at) && self.expires.is_none_or(|end| at < end)
    }

    /// Whether the key's list of operations has this one.
    pub fn permits(&self, operation: &str) -> bool {
        self.operations.iter().any(|have| have == operation)
    }
}

/// Algorithm and size of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// An RSA key pair.
    Rsa {
        /// Size of the modulus.
        bits: u32,
    },
    /// An AES key.
    Aes {
        /// Size of the key.
        bits: u32,
    },
    /// Something that can't wrap keys here, by the provider's name for it.
    Other(String),
}

impl KeyKind {
    /// The algorithm to wrap with where every algorithm is on offer, if the key fits one.
    pub fn wrap_algorithm(&self) -> Option<WrapAlgorithm> {
        match self {
            Self::Rsa { bits } if *bits >= 2048 => Some(WrapAlgorithm::RsaOaep256),
            Self::Aes { bits: 256 } => Some(WrapAlgorithm::A256Kw),
            _ => None,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
            Self::Aes { bits } => write!(f, "AES-{bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What stands between a key and its loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// A deleted key can be recovered.
    pub soft_delete: bool,
    /// A deleted key can't be purged before its time.
    pub purge_protection: bool,
    /// Whether the key itself can be taken out of its holder.
    pub exposure: Exposure,
}

/// Whether a key itself, not what it wrapped, can get out of the hands of who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_enums, reason = "now, before, or never")]
pub enum Exposure {
    /// Not now and not before, as far as the holder tells.
    #[default]
    Never,
    /// Not now; but it was made elsewhere, or could be taken out before.
    Before,
    /// It can be taken out: revoking it at this holder stops nobody who did.
    Now,
}

/// A secret, encrypted for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The key, with the version that was used.
    pub key: KeyId,
    /// How.
    pub alg: WrapAlgorithm,
    /// The ciphertext.
    pub value: Vec<u8>,
}

/// How a secret is encrypted for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WrapAlgorithm {
    /// `RSA-OAEP-256`: RSA-OAEP with SHA-256 and MGF1-SHA-256, empty label (RFC 8017).
    RsaOaep256,
    /// `A256KW`: AES-256 key wrap (RFC 3394).
    A256Kw,
    /// `A256GCMKW`: AES-256-GCM (NIST SP 800-38D), no associated data; the value is a random 12-byte nonce, the
    /// ciphertext, the 16-byte tag. For tokens that encrypt and don't wrap.
    A256GcmKw,
    /// `RSA-OAEP`: RSA-OAEP with SHA-1 and MGF1-SHA-1, empty label (RFC 8017). For tokens that have nothing newer, by
    /// explicit choice only.
    RsaOaep,
}

/// An algorithm that is not supported, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownAlgorithm {
    /// `RSA1_5`, refused by name: an answer about its padding is an answer about the key.
    #[error("RSA1_5 is refused: its padding leaks; use RSA-OAEP-256")]
    Rsa15,
    /// Anything else.
    #[error("`{0}` is not a supported wrapping algorithm; use RSA-OAEP-256 or A256KW")]
    Other(String),
}

impl WrapAlgorithm {
    /// Its name in key vaults and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::A256Kw => "A256KW",
            Self::A256GcmKw => "A256GCMKW",
            Self::RsaOaep => "RSA-OAEP",
        }
    }
}

impl fmt::Display for WrapAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WrapAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        match text {
            "RSA-OAEP-256" => Ok(Self::RsaOaep256),
            "A256KW" => Ok(Self::A256Kw),
            "A256GCMKW" => Ok(Self::A256GcmKw),
            "RSA-OAEP" => Ok(Self::RsaOaep),
            "RSA1_5" => Err(UnknownAlgorithm::Rsa15),
            other => Err(UnknownAlgorithm::Other(other.chars().take(64).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_by_name() {
        use WrapAlgorithm::{A256GcmKw, A256Kw, RsaOaep, RsaOaep256};
        for alg in [RsaOaep256, A256Kw, A256GcmKw, RsaOaep] {
            assert_eq!(alg.as_str().parse(), Ok(alg));
        }
        assert_eq!("RSA1_5".parse::<WrapAlgorithm>(), Err(UnknownAlgorithm::Rsa15));
        assert!("RSA-OAEP-512".parse::<WrapAlgorithm>().is_err());
    }

    #[test]
    fn weak_keys_fit_no_algorithm() {
        assert_eq!(KeyKind::Rsa { bits: 2048 }.wrap_algorithm(), Some(WrapAlgorithm::RsaOaep256));
        assert_eq!(KeyKind::Rsa { bits: 1024 }.wrap_algorithm(), None);
        assert_eq!(KeyKind::Aes { bits: 128 }.wrap_algorithm(), None);
    }
}
