//! The pure-Rust back end: `aes-gcm` and `rsa`.

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, KeyInit};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rsa::sha2::Sha256;
use sha1::Sha1;
use zeroize::{Zeroize, Zeroizing};

use super::{
    AEAD_TAG_LEN, AeadError, AeadKey, Aes256Gcm, CryptoProvider, OaepHash, RsaError, RsaOaep, RsaPrivateKey,
    RsaPublicKey,
};
use crate::random::{RandCore, RandomSource};

pub(super) static PROVIDER: CryptoProvider = CryptoProvider { name: "rust-crypto", aead: &Aead, rsa: &Rsa };

#[derive(Debug)]
struct Aead;

impl Aes256Gcm for Aead {
    fn key(&self, key: &[u8; 32]) -> Box<dyn AeadKey> {
        Box::new(Key(aes_gcm::Aes256Gcm::new(key.into())))
    }
}

struct Key(aes_gcm::Aes256Gcm);

impl AeadKey for Key {
    fn seal(&self, nonce: &[u8; 12], plaintext: &[u8], out: &mut [u8]) {
        assert!(
            out.len() == plaintext.len() + AEAD_TAG_LEN,
            "out has room for the ciphertext and the tag, no more"
        );
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        let buffers = InOutBuf::new(plaintext, ciphertext).expect("both have the length of the plaintext");
        let computed = self
            .0
            .encrypt_inout_detached(nonce.into(), b"", buffers)
            .expect("only messages beyond 64 GiB are refused, and chunks are short");
        tag.copy_from_slice(&computed);
    }

    fn open(&self, nonce: &[u8; 12], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError> {
        let opened = sealed.split_last_chunk::<AEAD_TAG_LEN>().and_then(|(ciphertext, tag)| {
            let buffers = InOutBuf::new(ciphertext, out).ok()?;
            self.0.decrypt_inout_detached(nonce.into(), b"", buffers, tag.into()).ok()
        });
        opened.ok_or_else(|| {
            out.zeroize();
            AeadError
        })
    }
}

#[derive(Debug)]
struct Rsa;

impl RsaOaep for Rsa {
    fn encrypt(
        &self,
        hash: OaepHash,
        key: &RsaPublicKey,
        plaintext: &[u8],
        random: &dyn RandomSource,
    ) -> Result<Vec<u8>, RsaError> {
        let (key, mut random) = (key.to_rust_crypto()?, RandCore(random));
        let encrypted = match hash {
            OaepHash::Sha1 => key.oaep_encrypt_with_rng::<Sha1, _>(&mut random, plaintext),
            OaepHash::Sha256 => key.oaep_encrypt_with_rng::<Sha256, _>(&mut random, plaintext),
        };
        encrypted.map_err(|error| match error {
            rsa::errors::Error::MessageTooLong => RsaError::TooLong,
            _ => RsaError::Failed,
        })
    }

    fn private_key(&self, pkcs8: &[u8]) -> Result<Box<dyn RsaPrivateKey>, RsaError> {
        let private = rsa::PrivateKey::from_pkcs8_der(pkcs8).map_err(|_| RsaError::Key)?;
        let public = RsaPublicKey::from_rust_crypto(private.as_public_key())?;
        Ok(Box::new(PrivateKey { private, public }))
    }

    fn generate(&self, bits: usize, random: &dyn RandomSource) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        if !matches!(bits, 2048 | 3072 | 4096) {
            return Err(RsaError::Size);
        }
        let key = rsa::PrivateKey::new(&mut RandCore(random), bits).map_err(|_| RsaError::Failed)?;
        let der = key.to_pkcs8_der().map_err(|_| RsaError::Failed)?;
        Ok(Zeroizing::new(der.as_bytes().to_vec()))
    }
}

struct PrivateKey {
    private: rsa::PrivateKey,
    public: RsaPublicKey,
}

impl RsaPrivateKey for PrivateKey {
    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }

    fn decrypt(
        &self,
        hash: OaepHash,
        ciphertext: &[u8],
        random: &dyn RandomSource,
    ) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        // Without `getrandom` the method that takes no randomness does not blind: never that one.
        let mut random = RandCore(random);
        let opened = match hash {
            OaepHash::Sha1 => self.private.oaep_decrypt_with_rng::<Sha1, _>(&mut random, ciphertext),
            OaepHash::Sha256 => self.private.oaep_decrypt_with_rng::<Sha256, _>(&mut random, ciphertext),
        };
        opened.map(Zeroizing::new).map_err(|_| RsaError::Failed)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaPrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}
