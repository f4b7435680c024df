//! Bringing a key that was made elsewhere.

use std::fmt;

use bulla_envelope::crypto::RsaPrivateParts;
use bulla_envelope::secret::Secret;
use bulla_kek::KeyKind;
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::CreateKey;
use crate::bundle::KeyBundle;
use crate::error::VaultError;
use crate::stored::{OCT, RSA, StoredKey};
use crate::vault::Vault;

/// A key to be taken in.
#[derive(Debug)]
pub struct ImportKey {
    /// All but the key itself; its `kind` is the imported key's.
    pub options: CreateKey,
    /// The key.
    pub private: PrivateKey,
}

/// A private or symmetric key in plain. Wiped when dropped, and never shown.
#[allow(clippy::exhaustive_enums, reason = "the two kinds that the vault keeps")]
pub enum PrivateKey {
    /// The numbers of a two-prime RSA key, big-endian.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Public exponent.
        e: Vec<u8>,
        /// Private exponent.
        d: Zeroizing<Vec<u8>>,
        /// First prime.
        p: Zeroizing<Vec<u8>>,
        /// Second prime.
        q: Zeroizing<Vec<u8>>,
    },
    /// 32 bytes for AES-256.
    Aes(Zeroizing<Vec<u8>>),
}

impl Vault {
    /// Takes in a key that was made elsewhere, as a new key or a new version. Copies of it elsewhere stay as they are.
    ///
    /// # Errors
    /// `Invalid` for numbers that are no RSA key of 2048, 3072 or 4096 bits, an AES key of another length than 32 bytes, or
    /// a name, operation or validity that can't be; `Conflict` if a deleted key has the name; `WrongPassphrase`,
    /// `PassphraseMissing`; `NotFound`, `Damaged` or `Io` if the vault can't be read or written.
    pub fn import_key(&self, import: &ImportKey) -> Result<KeyBundle, VaultError> {
        let key_ops = import.options.key_ops.clone();
        self.new_version(&import.options, || match &import.private {
            PrivateKey::Rsa { n, e, d, p, q } => {
                let refused = |error| {
                    VaultError::invalid("these numbers are no RSA key that the vault takes")
                        .with_source(error)
                };
                let private = RsaPrivateParts { n, e, d, p, q }.to_pkcs8().map_err(refused)?;
                let opened = self.crypto.rsa.private_key(&private).map_err(refused)?;
                let public = opened.public_key();
                let bits = match public.bits() {
                    bits @ (2048 | 3072 | 4096) => u32::try_from(bits).unwrap_or(0),
                    _ => return Err(VaultError::invalid("RSA keys have 2048, 3072 or 4096 bits here")),
                };
                let key = StoredKey {
                    kty: RSA.into(),
                    key_size: bits,
                    key_ops,
                    n: Some(BASE64URL_NOPAD.encode(public.n())),
                    e: Some(BASE64URL_NOPAD.encode(public.e())),
                };
                Ok((key, private))
            }
            PrivateKey::Aes(bytes) => {
                // The vault's only length; looked at before anything else learns of the key.
                if Secret::<32>::from_slice(bytes).is_none() {
                    return Err(VaultError::invalid("an AES key has 32 bytes here"));
                }
                let key = StoredKey { kty: OCT.into(), key_size: 256, key_ops, n: None, e: None };
                Ok((key, bytes.clone()))
            }
        })
    }
}

impl PrivateKey {
    /// Its type and size; the size of an RSA key that is none is whatever its modulus has.
    pub fn kind(&self) -> KeyKind {
        let bits = |bytes: &[u8]| u32::try_from(bytes.len().saturating_mul(8)).unwrap_or(u32::MAX);
        match self {
            Self::Rsa { n, .. } => KeyKind::Rsa { bits: bits(n) },
            Self::Aes(bytes) => KeyKind::Aes { bits: bits(bytes) },
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, …)", self.kind())
    }
}
