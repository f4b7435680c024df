//! Keys: made, shown, changed, deleted, recovered, purged.

use std::time::SystemTime;

use bulla_envelope::secret::Secret;
use bulla_kek::KeyKind;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use crate::bundle::{JsonWebKey, KeyAttributes, KeyBundle, KeyItem};
use crate::error::{VaultError, VaultErrorKind};
use crate::files;
use crate::material::Place;
use crate::stored::{self, FORMAT, KeyFile, OCT, RSA, StoredAttributes, StoredKey, StoredVersion, VaultFile};
use crate::vault::Vault;

/// RFC 7517 §4.3, and what Key Vault adds.
const OPERATIONS: [&str; 8] =
    ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "import", "export"];

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
}

impl CreateKey {
    /// An enabled key without end, for wrapping and unwrapping.
    pub fn new(name: impl Into<String>, kind: KeyKind) -> Self {
        let key_ops = vec!["wrapKey".into(), "unwrapKey".into()];
        Self { name: name.into(), kind, enabled: true, not_before: None, expires: None, key_ops }
    }
}

/// What is to change; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct AttributeChanges {
    /// Whether the key may be used.
    pub enabled: Option<bool>,
    /// Start of validity; `Some(None)` removes it.
    pub not_before: Option<Option<SystemTime>>,
    /// End of validity; `Some(None)` removes it.
    pub expires: Option<Option<SystemTime>>,
    /// What the key may be used for.
    pub key_ops: Option<Vec<String>>,
}

impl Vault {
    /// Makes a key, or a new version of it. An RSA key takes a while: up to seconds.
    ///
    /// # Errors
    /// `Invalid` for a name, size, operation or validity that can't be; `Conflict` if a deleted key has the name;
    /// `WrongPassphrase`, `PassphraseMissing`; `NotFound`, `Damaged` or `Io` if the vault can't be read or written.
    pub fn create_key(&self, options: &CreateKey) -> Result<KeyBundle, VaultError> {
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
        let (key, private) = self.generate(&options.kind, options.key_ops.clone())?;
        let mut version = [0; 16];
        self.runtime.random().fill(&mut version);
        let stored = StoredVersion { version: HEXLOWER.encode(&version), key, attributes };

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
            kty: &stored.key.kty,
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

    /// A key in this version, or its newest.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the key is deleted; `Damaged` or `Io` if the vault can't be read.
    pub fn show_key(&self, name: &str, version: Option<&str>) -> Result<KeyBundle, VaultError> {
        let vault = self.vault_file()?;
        let file = self.existing(name)?.not_deleted()?;
        let stored = file.version(version).ok_or_else(|| no_version(name, version))?;
        Ok(self.bundle(&vault, &file, stored))
    }

    /// The keys that are not deleted, by name.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read.
    pub fn list_keys(&self) -> Result<Vec<KeyItem>, VaultError> {
        self.list(|file| file.deleted_date.is_none())
    }

    /// The deleted keys, by name.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read.
    pub fn list_deleted_keys(&self) -> Result<Vec<KeyItem>, VaultError> {
        self.list(|file| file.deleted_date.is_some())
    }

    /// A key's versions, the oldest first.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the key is deleted; `Damaged` or `Io` if the vault can't be read.
    pub fn list_versions(&self, name: &str) -> Result<Vec<KeyItem>, VaultError> {
        let vault = self.vault_file()?;
        let file = self.existing(name)?.not_deleted()?;
        Ok(file
            .versions
            .iter()
            .map(|stored| self.item(&vault, &file, stored, Some(&stored.version)))
            .collect())
    }

    /// Enables or disables this version, or the newest.
    ///
    /// # Errors
    /// As [`set_attributes`](Self::set_attributes).
    pub fn set_enabled(
        &self,
        name: &str,
        version: Option<&str>,
        enabled: bool,
    ) -> Result<KeyBundle, VaultError> {
        self.set_attributes(name, version, &AttributeChanges { enabled: Some(enabled), ..Default::default() })
    }

    /// Changes attributes of this version, or the newest.
    ///
    /// # Errors
    /// `Invalid` for a validity that ends before it begins, or an unknown operation; `NotFound`; `Conflict` if the key is
    /// deleted; `Damaged` or `Io` if the vault can't be read or written.
    pub fn set_attributes(
        &self,
        name: &str,
        version: Option<&str>,
        changes: &AttributeChanges,
    ) -> Result<KeyBundle, VaultError> {
        if let Some(operations) = &changes.key_ops {
            check_operations(operations)?;
        }
        let _lock = self.lock()?;
        let vault = self.vault_file()?;
        let mut file = self.existing(name)?.not_deleted()?;
        let stored = file.version_mut(version).ok_or_else(|| no_version(name, version))?;
        let attributes = &mut stored.attributes;
        if let Some(enabled) = changes.enabled {
            attributes.enabled = enabled;
        }
        if let Some(not_before) = changes.not_before {
            attributes.nbf = not_before.map(stored::seconds);
        }
        if let Some(expires) = changes.expires {
            attributes.exp = expires.map(stored::seconds);
        }
        attributes.check()?;
        attributes.updated = stored::seconds(self.now());
        if let Some(operations) = &changes.key_ops {
            stored.key.key_ops.clone_from(operations);
        }
        let stored = stored.clone();
        self.write_key_file(&file)?;
        Ok(self.bundle(&vault, &file, &stored))
    }

    /// Deletes a key with all its versions. It can be recovered until it is purged.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is deleted already; `Damaged` or `Io` if the vault can't be read or written.
    pub fn delete_key(&self, name: &str) -> Result<KeyBundle, VaultError> {
        let _lock = self.lock()?;
        let file = self.existing(name)?.not_deleted()?;
        self.mark_deleted(file, Some(stored::seconds(self.now())))
    }

    /// Brings a deleted key back as it was.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is not deleted; `Damaged` or `Io` if the vault can't be read or written.
    pub fn recover_key(&self, name: &str) -> Result<KeyBundle, VaultError> {
        let _lock = self.lock()?;
        let file = self.existing(name)?.deleted()?;
        self.mark_deleted(file, None)
    }

    /// Destroys a deleted key for good.
    ///
    /// # Errors
    /// `Refused` under purge protection; `NotFound`; `Conflict` if it is not deleted; `Damaged` or `Io` if the vault can't
    /// be read or written.
    pub fn purge_key(&self, name: &str) -> Result<(), VaultError> {
        let _lock = self.lock()?;
        let file = self.existing(name)?.deleted()?;
        self.purgeable(name)?;
        self.remove_key(&file)?;
        file.versions.iter().for_each(|stored| self.forget(&stored.version));
        Ok(())
    }

    /// Destroys a key for good, deleted or not: for crypto-shredding what it protects. Old copies of the vault's folder
    /// still have it.
    ///
    /// # Errors
    /// `Refused` under purge protection; `NotFound`; `Damaged` or `Io` if the vault can't be read or written.
    pub fn destroy_key(&self, name: &str) -> Result<(), VaultError> {
        let _lock = self.lock()?;
        let mut file = self.existing(name)?;
        self.purgeable(name)?;
        if file.deleted_date.is_none() {
            // Were it interrupted, the key is deleted, not damaged.
            file.deleted_date = Some(stored::seconds(self.now()));
            self.write_key_file(&file)?;
        }
        self.remove_key(&file)?;
        file.versions.iter().for_each(|stored| self.forget(&stored.version));
        Ok(())
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

    fn existing(&self, name: &str) -> Result<KeyFile, VaultError> {
        // A name that can't be is one that isn't; and it must not leave the folder.
        self.key_id(name, None)?;
        self.key_file(name)?.ok_or_else(|| {
            VaultError::new(VaultErrorKind::NotFound, format!("there is no key {name} in this vault"))
        })
    }

    fn purgeable(&self, name: &str) -> Result<(), VaultError> {
        if self.vault_file()?.purge_protection {
            return Err(VaultError::new(
                VaultErrorKind::Refused,
                format!(
                    "{name} can't be purged: the vault was created with purge protection, which can't be turned off"
                ),
            ));
        }
        Ok(())
    }

    fn mark_deleted(&self, mut file: KeyFile, deleted: Option<u64>) -> Result<KeyBundle, VaultError> {
        let vault = self.vault_file()?;
        file.deleted_date = deleted;
        self.write_key_file(&file)?;
        let stored = file.version(None).ok_or_else(|| no_version(&file.name, None))?;
        Ok(self.bundle(&vault, &file, stored))
    }

    fn list(&self, wanted: impl Fn(&KeyFile) -> bool) -> Result<Vec<KeyItem>, VaultError> {
        let vault = self.vault_file()?;
        let mut items = Vec::new();
        for name in self.key_folders()? {
            // A folder without a key's file is of a key being made or purged.
            let Some(file) = self.key_file(&name)? else { continue };
            if let (true, Some(newest)) = (wanted(&file), file.version(None)) {
                items.push(self.item(&vault, &file, newest, None));
            }
        }
        Ok(items)
    }

    fn item(
        &self,
        vault: &VaultFile,
        file: &KeyFile,
        stored: &StoredVersion,
        version: Option<&str>,
    ) -> KeyItem {
        KeyItem {
            kid: self.key_uri(&file.name, version).to_string(),
            name: file.name.clone(),
            attributes: attributes(vault, stored),
            deleted_date: file.deleted_date,
        }
    }

    fn bundle(&self, vault: &VaultFile, file: &KeyFile, stored: &StoredVersion) -> KeyBundle {
        let key = stored.key.clone();
        KeyBundle {
            key: JsonWebKey {
                kid: self.key_uri(&file.name, Some(&stored.version)).to_string(),
                kty: key.kty,
                key_ops: key.key_ops,
                n: key.n,
                e: key.e,
            },
            attributes: attributes(vault, stored),
            deleted_date: file.deleted_date,
        }
    }
}

impl KeyFile {
    fn not_deleted(self) -> Result<Self, VaultError> {
        match self.deleted_date {
            None => Ok(self),
            Some(_) => Err(VaultError::new(
                VaultErrorKind::Conflict,
                format!(
                    "{} is deleted; recover it with `bulla vault key recover`, or choose another name",
                    self.name
                ),
            )),
        }
    }

    fn deleted(self) -> Result<Self, VaultError> {
        match self.deleted_date {
            Some(_) => Ok(self),
            None => Err(VaultError::new(
                VaultErrorKind::Conflict,
                format!("{} is not deleted; delete it with `bulla vault key delete` first", self.name),
            )),
        }
    }
}

impl StoredAttributes {
    fn check(&self) -> Result<(), VaultError> {
        match (self.nbf, self.exp) {
            (Some(start), Some(end)) if end <= start => {
                Err(VaultError::invalid("the key's validity ends before it begins; set exp after nbf"))
            }
            _ => Ok(()),
        }
    }
}

fn attributes(vault: &VaultFile, stored: &StoredVersion) -> KeyAttributes {
    let level = if vault.purge_protection { "Recoverable" } else { "Recoverable+Purgeable" };
    let StoredAttributes { enabled, nbf, exp, created, updated } = stored.attributes;
    KeyAttributes { enabled, nbf, exp, created, updated, recovery_level: level.into() }
}

fn check_operations(operations: &[String]) -> Result<(), VaultError> {
    match operations.iter().find(|operation| !OPERATIONS.contains(&operation.as_str())) {
        Some(unknown) => Err(VaultError::invalid(format!(
            "`{unknown}` is not a key operation; a store needs wrapKey and unwrapKey"
        ))),
        None => Ok(()),
    }
}

fn no_version(name: &str, version: Option<&str>) -> VaultError {
    let what = match version {
        Some(version) => format!("{name} has no version {version}"),
        None => format!("{name} has no version"),
    };
    VaultError::new(VaultErrorKind::NotFound, what)
}
