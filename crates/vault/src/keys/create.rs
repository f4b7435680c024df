//! Making a key.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bulla_envelope::secret::Secret;
use bulla_kek::KeyKind;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use super::check_operations;
use crate::bundle::KeyBundle;
use crate::error::VaultError;
use crate::files;
use crate::material::Place;
use crate::stored::{self, FORMAT, HSM, KeyFile, OCT, RSA, StoredAttributes, StoredKey, StoredVersion};
use crate::vault::Vault;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct CreateKey {
    /// 1 to 127 characters out of 0-9, A-Z, a-z and -. If there is such a key, it gets a new version.
    pub name: String,
    /// RSA of 2048, 3072 or 4096 bits, or AES of 256.
    pub kind: KeyKind,
    /// Whether it may be used.
    pub enabled: bool,
    /// Start of validity.
    pub not_before: Option<SystemTime>,
    /// End of validity.
    pub expires: Option<SystemTime>,
    /// What it may be used for, by Key Vault's names.
    pub key_ops: Vec<String>,
    /// Say `RSA-HSM` or `oct-HSM`, for clients that ask for such keys. Nothing else changes: there is no HSM.
    pub hsm: bool,
    /// What its owner notes.
    pub tags: BTreeMap<String, String>,
}

impl CreateKey {
    /// An enabled key without end, for wrapping and unwrapping.
    pub fn new(name: impl Into<String>, kind: KeyKind) -> Self {
        let key_ops = vec!["wrapKey".into(), "unwrapKey".into()];
        Self {
            name: name.into(),
            kind,
            enabled: true,
            not_before: None,
            expires: None,
            key_ops,
            hsm: false,
            tags: BTreeMap::new(),
        }
    }
}

impl Vault {
    /// Makes a key, or a new version of it. An RSA key takes a while: up to seconds.
    ///
    /// # Errors
    /// `Invalid` for a name, size, operation or validity that can't be; `Conflict` if a deleted key has the name;
    /// `WrongPassphrase`, `PassphraseMissing`; `NotFound`, `Damaged` or `Io` if the vault can't be read or written.
    pub fn create_key(&self, options: &CreateKey) -> Result<KeyBundle, VaultError> {
        self.new_version(options, || self.generate(&options.kind, options.key_ops.clone()))
    }

    /// Gives a key the version that `make` makes: `options` says everything but the key itself.
    pub(super) fn new_version(
        &self,
        options: &CreateKey,
        make: impl FnOnce() -> Result<(StoredKey, Zeroizing<Vec<u8>>), VaultError>,
    ) -> Result<KeyBundle, VaultError> {
        self.key_id(&options.name, None)?;
        check_operations(&options.key_ops)?;
        let now = stored::seconds(self.now());
        let attributes = StoredAttributes {
            enabled: options.enabled,
            nbf: options.not_before.map(stored::seconds),
            exp: options.expires.map(stored::seconds),
            created: now,
            updated: now,
        };
        attributes.check()?;

        // A passphrase that is missing or wrong is told before the long wait, and no lock is held during it.
        self.check_passphrase()?;
        let (mut key, private) = make()?;
        if options.hsm {
            key.kty.push_str(HSM);
        }
        let mut version = [0; 16];
        self.runtime.random().fill(&mut version);
        let version = HEXLOWER.encode(&version);
        let stored = StoredVersion { version, key, attributes, tags: options.tags.clone() };

        let _lock = self.lock()?;
        let vault = self.vault_file()?;
        let mut file = match self.key_file(&options.name)? {
            Some(file) => file.not_deleted()?,
            None => {
                KeyFile { format: FORMAT, name: options.name.clone(), deleted_date: None, versions: vec![] }
            }
        };
        let place = Place {
            vault: self.id_bytes(),
            name: &file.name,
            version: &stored.version,
            kty: stored.key.base_kty(),
        };
        let sealed = self.with_material(&vault, |material| {
            Ok(material.seal(&place, &private, self.crypto, self.runtime.random()))
        })?;
        files::create_folder(&self.key_folder(&file.name))?;
        files::write(&self.sealed_path(&file.name, &stored.version), &sealed, self.runtime.random())?;
        file.versions.push(stored.clone());
        // Only now there is a new version.
        self.write_key_file(&file)?;
        Ok(self.bundle(&vault, &file, &stored))
    }

    fn generate(
        &self,
        kind: &KeyKind,
        key_ops: Vec<String>,
    ) -> Result<(StoredKey, Zeroizing<Vec<u8>>), VaultError> {
        let random = self.runtime.random();
        match *kind {
            KeyKind::Rsa { bits: bits @ (2048 | 3072 | 4096) } => {
                let failed =
                    |error| VaultError::invalid("the RSA key could not be generated").with_source(error);
                let rsa = self.crypto.rsa;
                let private = rsa.generate(usize::try_from(bits).unwrap_or(0), random).map_err(failed)?;
                let opened = rsa.private_key(&private).map_err(failed)?;
                let key = StoredKey {
                    kty: RSA.into(),
                    key_size: bits,
                    key_ops,
                    n: Some(BASE64URL_NOPAD.encode(opened.public_key().n())),
                    e: Some(BASE64URL_NOPAD.encode(opened.public_key().e())),
                };
                Ok((key, private))
            }
            KeyKind::Aes { bits: 256 } => {
                let private = Zeroizing::new(Secret::<32>::random(random).expose().to_vec());
                let key = StoredKey { kty: OCT.into(), key_size: 256, key_ops, n: None, e: None };
                Ok((key, private))
            }
            _ => Err(VaultError::invalid(format!(
                "the vault makes RSA keys of 2048, 3072 or 4096 bits and AES keys of 256, not {kind}"
            ))),
        }
    }
}
