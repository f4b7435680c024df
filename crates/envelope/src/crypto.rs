//! The crypto seam: a plain struct of parts, chosen once and handed down.
//!
//! Two providers, byte-identical and tested against each other. What is not worth two implementations (hashes, HMAC, HKDF,
//! AES key wrap, AES-SIV) is RustCrypto in both and not part of the seam.
//!
//! # Timing of RSA
//!
//! The `rsa` crate was open to the Marvin attack (RUSTSEC-2023-0071): the time of a private operation told enough about the
//! key for an attacker who can submit many ciphertexts and measure the answers. Since 0.10 its private operations use
//! fixed-width, constant-time big-number arithmetic, and here they are blinded with the caller's randomness as well. Its
//! authors still call the hardening unfinished, so: private operations in a process that strangers can query belong to
//! the AWS-LC provider or into a key service. A padding failure is one opaque error in both.
//!
//! One difference remains: RFC 8017 §7.1.2 has a decrypter refuse a padded message whose first octet is not zero, and the
//! `rsa` crate ignores that octet, so that nobody can learn from it (Manger's attack). Making such a ciphertext takes the
//! plaintext and the public key, with which one can make a proper one as well; and here an RSA wrap proves nothing anyway.

use std::fmt;

use zeroize::Zeroizing;

use crate::random::RandomSource;

#[cfg(feature = "aws-lc")]
mod aws_lc;
mod rsa_private;
mod rsa_public;
mod rust_crypto;

pub use rsa_private::RsaPrivateParts;
pub use rsa_public::RsaPublicKey;

/// The bytes an AES-256-GCM tag adds.
pub const AEAD_TAG_LEN: usize = 16;

/// The parts of a crypto back end.
#[derive(Debug)]
pub struct CryptoProvider {
    /// For logs and status: `aws-lc` or `rust-crypto`.
    pub name: &'static str,
    /// AES-256-GCM.
    pub aead: &'static dyn Aes256Gcm,
    /// RSA-OAEP.
    pub rsa: &'static dyn RsaOaep,
}

impl CryptoProvider {
    /// Pure Rust, always built. All its randomness is the caller's, so simulations want this one.
    #[must_use]
    pub fn rust_crypto() -> &'static Self {
        &rust_crypto::PROVIDER
    }

    /// AWS-LC: about 3.6 times faster at AES-256-GCM, 8 to 10 times at RSA. Draws the randomness of RSA itself.
    #[cfg(feature = "aws-lc")]
    #[must_use]
    pub fn aws_lc() -> &'static Self {
        &aws_lc::PROVIDER
    }

    /// The fastest one that was built.
    #[must_use]
    pub fn best() -> &'static Self {
        #[cfg(feature = "aws-lc")]
        {
            Self::aws_lc()
        }
        #[cfg(not(feature = "aws-lc"))]
        {
            Self::rust_crypto()
        }
    }
}

/// AES-256-GCM (NIST SP 800-38D) with 12-byte nonces, 16-byte tags and no associated data.
pub trait Aes256Gcm: fmt::Debug + Send + Sync {
    /// Expands `key` once, for many messages.
    fn key(&self, key: &[u8; 32]) -> Box<dyn AeadKey>;
}

/// An expanded AES-256-GCM key. Wiped when dropped.
pub trait AeadKey: Send + Sync {
    /// `out = AES-256-GCM.Seal(key, nonce, plaintext, "")`: ciphertext, then tag.
    ///
    /// A nonce must never be used twice under one key.
    ///
    /// # Panics
    ///
    /// If `out` is not exactly [`AEAD_TAG_LEN`] bytes longer than `plaintext`.
    fn seal(&self, nonce: &[u8; 12], plaintext: &[u8], out: &mut [u8]);

    /// `out = AES-256-GCM.Open(key, nonce, sealed, "")`.
    ///
    /// # Errors
    ///
    /// If `sealed` is not authentic, or its length is not that of `out` and a tag. `out` is then all zero.
    fn open(&self, nonce: &[u8; 12], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError>;
}

/// The bytes are not what was sealed with this key and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct AeadError;

/// The hash of OAEP, in the message and in MGF1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OaepHash {
    /// `RSA-OAEP`. OAEP does not need the hash to be free of collisions, so this is old rather than broken; for callers
    /// who have nothing else. Bulla wraps nothing of its own with it.
    Sha1,
    /// `RSA-OAEP-256`.
    Sha256,
}

/// RSAES-OAEP (RFC 8017 §7.1) with an empty label.
pub trait RsaOaep: fmt::Debug + Send + Sync {
    /// Encrypts `plaintext` to the owner of `key`; the result is as long as the modulus.
    ///
    /// # Errors
    ///
    /// [`RsaError::Key`] if the back end refuses the key, [`RsaError::TooLong`] if `plaintext` is longer than the modulus
    /// less two hashes and two bytes.
    fn encrypt(
        &self,
        hash: OaepHash,
        key: &RsaPublicKey,
        plaintext: &[u8],
        random: &dyn RandomSource,
    ) -> Result<Vec<u8>, RsaError>;

    /// [`encrypt`](Self::encrypt) with SHA-256: `RSA-OAEP-256`.
    ///
    /// # Errors
    ///
    /// [`RsaError::Key`] if the back end refuses the key, [`RsaError::TooLong`] if `secret` is longer than the modulus less
    /// 66 bytes.
    fn wrap(
        &self,
        key: &RsaPublicKey,
        secret: &[u8],
        random: &dyn RandomSource,
    ) -> Result<Vec<u8>, RsaError> {
        self.encrypt(OaepHash::Sha256, key, secret, random)
    }

    /// A private key from its PKCS#8 DER form (RFC 5208). Wiping `pkcs8` is the caller's duty.
    ///
    /// # Errors
    ///
    /// [`RsaError::Key`] unless it is a consistent two-prime RSA key, [`RsaError::Size`] unless it has 2048 to 4096 bits.
    fn private_key(&self, pkcs8: &[u8]) -> Result<Box<dyn RsaPrivateKey>, RsaError>;

    /// A new private key in PKCS#8 DER form; `bits` is 2048, 3072 or 4096. Slow: up to seconds.
    ///
    /// # Errors
    ///
    /// [`RsaError::Size`] for any other size, [`RsaError::Failed`] if the back end can't.
    fn generate(&self, bits: usize, random: &dyn RandomSource) -> Result<Zeroizing<Vec<u8>>, RsaError>;
}

/// An RSA private key that is ready for use. Wiped when dropped.
pub trait RsaPrivateKey: fmt::Debug + Send + Sync {
    /// Its public half.
    fn public_key(&self) -> &RsaPublicKey;

    /// Decrypts what [`RsaOaep::encrypt`] made with the same hash. `random` blinds the private operation where the back end
    /// doesn't bring its own.
    ///
    /// # Errors
    ///
    /// [`RsaError::Failed`] for anything but a ciphertext for this key; nothing tells why.
    fn decrypt(
        &self,
        hash: OaepHash,
        ciphertext: &[u8],
        random: &dyn RandomSource,
    ) -> Result<Zeroizing<Vec<u8>>, RsaError>;

    /// Decrypts what [`RsaOaep::wrap`] made.
    ///
    /// # Errors
    ///
    /// As [`decrypt`](Self::decrypt).
    fn unwrap(&self, wrapped: &[u8], random: &dyn RandomSource) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        self.decrypt(OaepHash::Sha256, wrapped, random)
    }
}

/// Why an RSA operation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RsaError {
    /// The modulus is too short to be safe, or longer than anything that is in use.
    #[error("the RSA key must have 2048 to 4096 bits")]
    Size,
    /// Not an RSA key, or one that is not consistent or not safe to use.
    #[error("not a usable RSA key")]
    Key,
    /// The plaintext does not fit into the modulus.
    #[error("the plaintext is too long for the RSA key")]
    TooLong,
    /// The operation failed; on purpose, nothing tells why.
    #[error("the RSA operation failed")]
    Failed,
}
