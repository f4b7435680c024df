//! The AWS-LC back end.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use zeroize::{Zeroize, Zeroizing};

use super::rsa_public::SIZES;
use super::{
    AEAD_TAG_LEN, AeadError, AeadKey, Aes256Gcm, CryptoProvider, OaepHash, RsaError, RsaOaep, RsaPrivateKey,
    RsaPublicKey,
};
use crate::random::RandomSource;

pub(super) static PROVIDER: CryptoProvider = CryptoProvider { name: "aws-lc", aead: &Aead, rsa: &Rsa };

#[derive(Debug)]
struct Aead;

impl Aes256Gcm for Aead {
    fn key(&self, key: &[u8; 32]) -> Box<dyn AeadKey> {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the length of AES-256 keys");
        Box::new(Key(LessSafeKey::new(key)))
    }
}

/// "Less safe" because nonces are the caller's: here Cobblestone's, which never repeat under one key.
struct Key(LessSafeKey);

impl AeadKey for Key {
    fn seal(&self, nonce: &[u8; 12], plaintext: &[u8], out: &mut [u8]) {
        assert!(
            out.len() == plaintext.len() + AEAD_TAG_LEN,
            "out has room for the ciphertext and the tag, no more"
        );
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .seal_out_of_place_scatter(nonce, Aad::empty(), plaintext, ciphertext, &[], tag)
            .expect("only messages beyond 64 GiB are refused, and chunks are short");
    }

    fn open(&self, nonce: &[u8; 12], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError> {
        let opened = sealed
            .split_last_chunk::<AEAD_TAG_LEN>()
            .filter(|(rest, _)| rest.len() == out.len())
            .and_then(|(ciphertext, tag)| {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                self.0.open_separate_gather(nonce, Aad::empty(), ciphertext, tag, out).ok()
            });
        opened.ok_or_else(|| {
            // What a failed open leaves in the buffer is not specified.
            out.zeroize();
            AeadError
        })
    }
}

#[derive(Debug)]
struct Rsa;

impl RsaOaep for Rsa {
    /// The seed of the padding is AWS-LC's own.
    fn encrypt(
        &self,
        hash: OaepHash,
        key: &RsaPublicKey,
        plaintext: &[u8],
        _: &dyn RandomSource,
    ) -> Result<Vec<u8>, RsaError> {
        let algorithm = algorithm(hash);
        let key = PublicEncryptingKey::from_der(&key.to_spki_der()?).map_err(|_| RsaError::Key)?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| RsaError::Key)?;
        if plaintext.len() > key.max_plaintext_size(algorithm) {
            return Err(RsaError::TooLong);
        }
        let mut ciphertext = vec![0; key.ciphertext_size()];
        let len =
            key.encrypt(algorithm, plaintext, &mut ciphertext, None).map_err(|_| RsaError::Failed)?.len();
        ciphertext.truncate(len);
        Ok(ciphertext)
    }

    fn private_key(&self, pkcs8: &[u8]) -> Result<Box<dyn RsaPrivateKey>, RsaError> {
        let private = PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(|_| RsaError::Key)?;
        if !SIZES.contains(&private.key_size_bits()) {
            return Err(RsaError::Size);
        }
        let der =
            AsDer::<PublicKeyX509Der<'static>>::as_der(&private.public_key()).map_err(|_| RsaError::Key)?;
        let public = RsaPublicKey::from_spki_der(der.as_ref())?;
        let private = OaepPrivateDecryptingKey::new(private).map_err(|_| RsaError::Key)?;
        Ok(Box::new(PrivateKey { private, public }))
    }

    /// The primes come from AWS-LC's own generator.
    fn generate(&self, bits: usize, _: &dyn RandomSource) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => return Err(RsaError::Size),
        };
        let key = PrivateDecryptingKey::generate(size).map_err(|_| RsaError::Failed)?;
        let der = AsDer::<Pkcs8V1Der<'static>>::as_der(&key).map_err(|_| RsaError::Failed)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }
}

fn algorithm(hash: OaepHash) -> &'static OaepAlgorithm {
    match hash {
        OaepHash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        OaepHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
    }
}

struct PrivateKey {
    private: OaepPrivateDecryptingKey,
    public: RsaPublicKey,
}

impl RsaPrivateKey for PrivateKey {
    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }

    /// AWS-LC blinds by itself.
    fn decrypt(
        &self,
        hash: OaepHash,
        ciphertext: &[u8],
        _: &dyn RandomSource,
    ) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        let mut plaintext = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let len = self
            .private
            .decrypt(algorithm(hash), ciphertext, &mut plaintext, None)
            .map_err(|_| RsaError::Failed)?
            .len();
        plaintext.truncate(len);
        Ok(plaintext)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaPrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}
