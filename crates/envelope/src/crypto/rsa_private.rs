//! RSA private keys from their numbers, as JWK (RFC 7518 §6.3.2) has them.

use std::fmt;

use rsa::BoxedUint;
use rsa::pkcs8::EncodePrivateKey;
use zeroize::Zeroizing;

use super::RsaError;
use super::rsa_public::SIZES;

/// The numbers of a two-prime RSA private key, big-endian. The CRT values follow from them.
#[derive(Clone, Copy)]
pub struct RsaPrivateParts<'a> {
    /// Modulus.
    pub n: &'a [u8],
    /// Public exponent.
    pub e: &'a [u8],
    /// Private exponent.
    pub d: &'a [u8],
    /// First prime.
    pub p: &'a [u8],
    /// Second prime.
    pub q: &'a [u8],
}

impl RsaPrivateParts<'_> {
    /// The key in PKCS#8 DER form (RFC 5208), for [`RsaOaep::private_key`](super::RsaOaep::private_key). Wiping the parts
    /// is the caller's duty.
    ///
    /// # Errors
    ///
    /// [`RsaError::Size`] unless the modulus has 2048 to 4096 bits, [`RsaError::Key`] unless the numbers belong together.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        // Before any arithmetic: what is longer is nobody's key.
        if [self.n, self.e, self.d, self.p, self.q].iter().any(|part| part.len() > SIZES.end() / 8 + 1) {
            return Err(RsaError::Size);
        }
        let (n, e) = (number(self.n)?, number(self.e)?);
        if !SIZES.contains(&usize::try_from(n.bit_width_vartime()).unwrap_or(0)) {
            return Err(RsaError::Size);
        }
        let primes = vec![number(self.p)?, number(self.q)?];
        let key =
            rsa::PrivateKey::from_components(n, e, number(self.d)?, primes).map_err(|_| RsaError::Key)?;
        let der = key.to_pkcs8_der().map_err(|_| RsaError::Key)?;
        Ok(Zeroizing::new(der.as_bytes().to_vec()))
    }
}

impl fmt::Debug for RsaPrivateParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaPrivateParts").finish_non_exhaustive()
    }
}

fn number(bytes: &[u8]) -> Result<BoxedUint, RsaError> {
    let bits = u32::try_from(bytes.len() * 8).map_err(|_| RsaError::Key)?;
    BoxedUint::from_be_slice(bytes, bits).map_err(|_| RsaError::Key)
}
