//! What a vault says of a key, read with suspicion.

use std::time::SystemTime;

use azure_security_keyvault_keys::models::{DeletionRecoveryLevel, JsonWebKey, Key, KeyType};
use bulla_envelope::crypto::RsaPublicKey;
use bulla_kek::{KeyDescription, KeyId, KeyKind, Now, Protection};

use crate::fault::Fault;

/// A description, the public key that came with it, and when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) description: KeyDescription,
    /// Of RSA keys that can be used.
    pub(crate) public: Option<RsaPublicKey>,
    pub(crate) asked: Now,
}

/// Reads the answer to a get of `asked`.
pub(crate) fn describe(asked: &KeyId, answer: Key, sent: Now) -> Result<Described, Fault> {
    let useless =
        |what: &str| Fault::useless(format!("{} answers {what} when asked for {asked}", asked.host()));
    let key = answer.key.ok_or_else(|| useless("without a key"))?;
    let attributes = answer.attributes.ok_or_else(|| useless("without attributes"))?;
    let described = answered_key(asked, key.kid.as_deref()).ok_or_else(|| useless("with another key"))?;
    let (kind, public) = kind(&key);
    Ok(Described {
        description: KeyDescription {
            key: described,
            algorithm: kind.wrap_algorithm(),
            kind,
            // Absent in no answer of a real vault; who does not say that a key may be used has not said so.
            enabled: attributes.enabled.unwrap_or(false),
            not_before: attributes.not_before.map(SystemTime::from),
            expires: attributes.expires.map(SystemTime::from),
            operations: key.key_ops.unwrap_or_default(),
            protection: protection(attributes.recovery_level.as_ref()),
            created: attributes.created.map(SystemTime::from),
        },
        public,
        asked: sent,
    })
}

/// The key that an answer is about, if it is the one that was asked for: same host and name, and same version unless none
/// was asked for.
pub(crate) fn answered_key(asked: &KeyId, kid: Option<&str>) -> Option<KeyId> {
    let answered: KeyId = kid?.parse().ok()?;
    if !answered.same_key(asked) {
        return None;
    }
    match (asked.version(), answered.version()) {
        (Some(asked_version), Some(version)) if version.eq_ignore_ascii_case(asked_version) => {
            Some(asked.clone())
        }
        (None, Some(version)) => asked.with_version(version).ok(),
        _ => None,
    }
}

fn kind(key: &JsonWebKey) -> (KeyKind, Option<RsaPublicKey>) {
    match &key.kty {
        Some(KeyType::Rsa | KeyType::RsaHsm) => {
            let (n, e) = (key.n.as_deref().unwrap_or_default(), key.e.as_deref().unwrap_or_default());
            let public = RsaPublicKey::new(n, e).ok();
            (KeyKind::Rsa { bits: bits(n) }, public)
        }
        // Managed HSM does not say how long an AES key is. Only one of 256 bits does A256KW, so a use of another
        // length is refused by the service, and the preflight's round trip finds that out.
        Some(KeyType::Oct | KeyType::OctHsm) => (KeyKind::Aes { bits: 256 }, None),
        Some(other) => (KeyKind::Other(crate::fault::printable(other.as_ref())), None),
        None => (KeyKind::Other("of an unnamed type".into()), None),
    }
}

/// The size of a modulus, big-endian.
fn bits(n: &[u8]) -> u32 {
    let zeroes = n.iter().take_while(|&&byte| byte == 0).count();
    let unused = n.get(zeroes).map_or(0, |byte| byte.leading_zeros());
    u32::try_from(n.len() - zeroes).unwrap_or(u32::MAX).saturating_mul(8).saturating_sub(unused)
}

/// `Recoverable…` is soft delete; with `Purgeable` in it there is no purge protection.
fn protection(level: Option<&DeletionRecoveryLevel>) -> Protection {
    let level = level.map(AsRef::as_ref).unwrap_or_default();
    let soft_delete = level.contains("Recoverable");
    let purge_protection = soft_delete && !level.contains("Purgeable");
    Protection { soft_delete, purge_protection, ..Protection::default() }
}
