//! Private halves: sealed in files, opened in memory, and wrapping and unwrapping with them.
//!
//! ```text
//! vault key:   Cobblestone-256(Argon2id(passphrase), label "bulla/v1/vault-key" ‖ vault id, 32 bytes)
//! private key: Cobblestone-256(vault key, label "bulla/v1/vault-private" ‖ vault id ‖ name ‖ version ‖ kty, PKCS#8 or 32 bytes)
//! token key:   first 32 bytes of HMAC-SHA-512(vault key, label "bulla/v1/vault-token" ‖ vault id)
//! ```
//!
//! Labels are padded to 32 bytes, and a u32 big-endian length stands before name (lower case), version and kty: a private
//! half that is moved to another key, version or vault does not open.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bulla_envelope::cobblestone::{self, OpenError, SALT_LEN};
use bulla_envelope::context::label;
use bulla_envelope::crypto::{CryptoProvider, RsaPrivateKey};
use bulla_envelope::keywrap;
use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::Secret;
use bulla_kek::{KekError, KeyKind};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::error::{VaultError, VaultErrorKind};
use crate::stored::{OCT, RSA, StoredVersion};
use crate::usage::Algorithm;

const VAULT_KEY: [u8; 32] = label("bulla/v1/vault-key");
const PRIVATE: [u8; 32] = label("bulla/v1/vault-private");
const TOKEN: [u8; 32] = label("bulla/v1/vault-token");

/// What the passphrase opened: nothing yet, or the vault key and the private keys used so far. The vault key and AES keys are
/// kept as a store's secrets are, out of swap where the system allows; RSA keys are where the back end has them.
#[derive(Default)]
pub(crate) struct Material {
    vault_key: Option<Secret<32>>,
    opened: BTreeMap<String, Arc<Opened>>,
}

/// A private key ready for use.
pub(crate) enum Opened {
    Rsa(Box<dyn RsaPrivateKey>),
    Aes(Secret<32>),
}

/// Which private key is meant.
pub(crate) struct Place<'a> {
    pub(crate) vault: &'a [u8; 16],
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) kty: &'a str,
}

impl Material {
    /// A new vault key, and its sealed form.
    pub(crate) fn create(
        stretched: &Secret<32>,
        vault: &[u8; 16],
        crypto: &'static CryptoProvider,
        random: &dyn RandomSource,
    ) -> (Self, String) {
        let key = Secret::<32>::random(random).kept();
        let sealed =
            cobblestone::seal(crypto, stretched.expose(), &vault_context(vault), salt(random), key.expose());
        (Self { vault_key: Some(key), opened: BTreeMap::new() }, BASE64URL_NOPAD.encode(&sealed))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.vault_key.is_some()
    }

    /// Opens the vault key.
    pub(crate) fn open(
        &mut self,
        stretched: &Secret<32>,
        vault: &[u8; 16],
        sealed: &str,
        crypto: &'static CryptoProvider,
    ) -> Result<(), VaultError> {
        let damaged = || VaultError::new(VaultErrorKind::Damaged, "the vault's sealed key is damaged");
        let sealed = BASE64URL_NOPAD.decode(sealed.as_bytes()).map_err(|_| damaged())?;
        let opened = cobblestone::open(crypto, stretched.expose(), &vault_context(vault), &sealed);
        let key = opened.map_err(|error| match error {
            // It can't be told from a changed salt or id, but this is by far the likelier.
            OpenError::Commitment => VaultError::new(
                VaultErrorKind::WrongPassphrase,
                "the passphrase does not open this vault; check BULLA_VAULT_PASSPHRASE or \
                 BULLA_VAULT_PASSPHRASE_FILE",
            ),
            _ => damaged(),
        })?;
        self.vault_key = Some(Secret::from_slice(&key).ok_or_else(damaged)?.kept());
        Ok(())
    }

    /// Seals a private half for its file.
    pub(crate) fn seal(
        &self,
        place: &Place<'_>,
        private: &[u8],
        crypto: &'static CryptoProvider,
        random: &dyn RandomSource,
    ) -> Vec<u8> {
        cobblestone::seal(crypto, self.key().expose(), &place.context(), salt(random), private)
    }

    /// The private key, opened before or now.
    pub(crate) fn opened(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        crypto: &'static CryptoProvider,
        read: impl FnOnce() -> Result<Option<Vec<u8>>, VaultError>,
    ) -> Result<Arc<Opened>, VaultError> {
        if let Some(opened) = self.opened.get(place.version) {
            return Ok(Arc::clone(opened));
        }
        let sealed = read()?.ok_or_else(|| VaultError::damaged(path, "it is missing"))?;
        let private = cobblestone::open(crypto, self.key().expose(), &place.context(), &sealed)
            .map_err(|error| VaultError::damaged(path, "it does not open").with_source(error))?;
        let opened = match place.kty {
            RSA => crypto.rsa.private_key(&private).ok().map(Opened::Rsa),
            OCT => Secret::from_slice(&private).map(Secret::kept).map(Opened::Aes),
            _ => None,
        };
        let opened =
            Arc::new(opened.ok_or_else(|| VaultError::damaged(path, "it holds no key of its type"))?);
        self.opened.insert(place.version.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    /// What signs bearer tokens.
    pub(crate) fn token_key(&self, vault: &[u8; 16]) -> Secret<32> {
        let mut hmac =
            Hmac::<Sha512>::new_from_slice(self.key().expose()).expect("HMAC takes keys of any length");
        hmac.update(&TOKEN);
        hmac.update(vault);
        let mac = Zeroizing::new(<[u8; 64]>::from(hmac.finalize().into_bytes()));
        Secret::from_slice(&mac[..32]).expect("32 bytes were cut out")
    }

    pub(crate) fn forget(&mut self, version: &str) {
        self.opened.remove(version);
    }

    fn key(&self) -> &Secret<32> {
        self.vault_key.as_ref().expect("the vault hands out its material opened")
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

impl Place<'_> {
    fn context(&self) -> Vec<u8> {
        let mut context = PRIVATE.to_vec();
        context.extend_from_slice(self.vault);
        for field in [self.name.to_ascii_lowercase().as_str(), self.version, self.kty] {
            let len = u32::try_from(field.len()).expect("names and versions have at most 127 characters");
            context.extend_from_slice(&len.to_be_bytes());
            context.extend_from_slice(field.as_bytes());
        }
        context
    }
}

impl Opened {
    /// The ciphertext. The public half comes out of the sealed private one: the readable file proves nothing.
    pub(crate) fn encrypt(
        &self,
        alg: Algorithm,
        plaintext: &[u8],
        crypto: &'static CryptoProvider,
        random: &dyn RandomSource,
    ) -> Result<Vec<u8>, KekError> {
        match (self, alg.hash()) {
            (Self::Rsa(key), Some(hash)) => {
                crypto.rsa.encrypt(hash, key.public_key(), plaintext, random).map_err(|error| {
                    KekError::invalid("this can't be encrypted with the key").with_source(error)
                })
            }
            (Self::Aes(key), None) => keywrap::wrap_bytes(key.expose(), plaintext)
                .ok_or_else(|| KekError::invalid("a key to be wrapped has 16 bytes or more, in steps of 8")),
            _ => Err(wrong_algorithm(alg)),
        }
    }

    /// The plaintext. Every failure is one: not a ciphertext for this key.
    pub(crate) fn decrypt(
        &self,
        alg: Algorithm,
        ciphertext: &[u8],
        random: &dyn RandomSource,
    ) -> Result<Zeroizing<Vec<u8>>, KekError> {
        let plaintext = match (self, alg.hash()) {
            (Self::Rsa(key), Some(hash)) => key.decrypt(hash, ciphertext, random).ok(),
            (Self::Aes(key), None) => keywrap::unwrap_bytes(key.expose(), ciphertext).ok(),
            _ => return Err(wrong_algorithm(alg)),
        };
        plaintext.ok_or_else(not_for_this_key)
    }
}

/// A ciphertext that does not open, or opens to something that can't be what was wrapped.
pub(crate) fn not_for_this_key() -> KekError {
    KekError::invalid("the wrapped key is damaged, or was wrapped for another key")
}

/// Before any key is opened: whether the algorithm is for keys of this type.
pub(crate) fn fits(stored: &StoredVersion, alg: Algorithm) -> Result<(), KekError> {
    let fits = match stored.key.kind() {
        KeyKind::Rsa { .. } => alg.hash().is_some(),
        KeyKind::Aes { .. } => alg == Algorithm::A256Kw,
        _ => false,
    };
    if fits { Ok(()) } else { Err(wrong_algorithm(alg)) }
}

fn wrong_algorithm(alg: Algorithm) -> KekError {
    KekError::invalid(format!("{alg} is not for a key of this type"))
}

fn vault_context(vault: &[u8; 16]) -> [u8; 48] {
    let mut context = [0; 48];
    context[..32].copy_from_slice(&VAULT_KEY);
    context[32..].copy_from_slice(vault);
    context
}

fn salt(random: &dyn RandomSource) -> [u8; SALT_LEN] {
    let mut salt = [0; SALT_LEN];
    random.fill(&mut salt);
    salt
}
