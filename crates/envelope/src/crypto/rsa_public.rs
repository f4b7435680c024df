//! RSA public keys as plain numbers, checked once, so that both back ends accept the same ones.

use std::fmt;

use rsa::BoxedUint;
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;

use super::RsaError;

/// The sizes in bits that are neither too weak nor beyond what key services offer.
pub(super) const SIZES: std::ops::RangeInclusive<usize> = 2048..=4096;

/// 65537: smaller exponents are not allowed by NIST SP 800-56B §6.2.
const MIN_EXPONENT: u64 = 65_537;
/// The largest one that both back ends take.
const MAX_EXPONENT: u64 = (1 << 33) - 1;

/// An RSA public key of 2048 to 4096 bits with an odd exponent from 65537 to 2³³ − 1.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaPublicKey {
    n: Vec<u8>,
    e: Vec<u8>,
}

impl RsaPublicKey {
    /// The key with this modulus and exponent, both big-endian; leading zeroes don't matter.
    ///
    /// # Errors
    ///
    /// [`RsaError::Size`] for a modulus of another size, [`RsaError::Key`] for even numbers or another exponent.
    pub fn new(n: &[u8], e: &[u8]) -> Result<Self, RsaError> {
        let (n, e) = (trim(n), trim(e));
        if !SIZES.contains(&bits(n)) {
            return Err(RsaError::Size);
        }
        if e.len() > 8 {
            return Err(RsaError::Key);
        }
        let exponent = e.iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        let odd = n.last().is_some_and(|byte| byte & 1 == 1) && exponent & 1 == 1;
        if !odd || !(MIN_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
            return Err(RsaError::Key);
        }
        Ok(Self { n: n.to_vec(), e: e.to_vec() })
    }

    /// The key in an X.509 `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7), DER.
    ///
    /// # Errors
    ///
    /// [`RsaError::Key`] if it is something else, and as [`new`](Self::new).
    pub fn from_spki_der(der: &[u8]) -> Result<Self, RsaError> {
        let key = rsa::PublicKey::from_public_key_der(der).map_err(|_| RsaError::Key)?;
        Self::from_rust_crypto(&key)
    }

    /// Its X.509 `SubjectPublicKeyInfo`, DER.
    ///
    /// # Errors
    ///
    /// [`RsaError::Key`] if it can't be encoded.
    pub fn to_spki_der(&self) -> Result<Vec<u8>, RsaError> {
        let der = self.to_rust_crypto()?.to_public_key_der().map_err(|_| RsaError::Key)?;
        Ok(der.into_vec())
    }

    /// The modulus, big-endian without leading zeroes.
    #[must_use]
    pub fn n(&self) -> &[u8] {
        &self.n
    }

    /// The public exponent, big-endian without leading zeroes.
    #[must_use]
    pub fn e(&self) -> &[u8] {
        &self.e
    }

    /// The size of the modulus in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        bits(&self.n)
    }

    pub(super) fn from_rust_crypto(key: &rsa::PublicKey) -> Result<Self, RsaError> {
        Self::new(&key.n_bytes(), &key.e_bytes())
    }

    pub(super) fn to_rust_crypto(&self) -> Result<rsa::PublicKey, RsaError> {
        let number = |bytes: &[u8]| {
            let bits = u32::try_from(bytes.len() * 8).map_err(|_| RsaError::Key)?;
            BoxedUint::from_be_slice(bytes, bits).map_err(|_| RsaError::Key)
        };
        rsa::PublicKey::new_with_size_limits(number(&self.n)?, number(&self.e)?, SIZES)
            .map_err(|_| RsaError::Key)
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaPublicKey").field("bits", &self.bits()).finish_non_exhaustive()
    }
}

fn trim(number: &[u8]) -> &[u8] {
    let zeroes = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeroes..]
}

fn bits(trimmed: &[u8]) -> usize {
    let unused = trimmed.first().map_or(0, |byte| byte.leading_zeros());
    // At most 7, and the first byte has 8.
    (trimmed.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}
