//! Keys: shown, listed, changed; in the modules below, made and deleted.

mod create;
mod import;
mod lifecycle;

use std::collections::BTreeMap;
use std::time::SystemTime;

pub use self::create::CreateKey;
pub use self::import::{ImportKey, PrivateKey};

use crate::bundle::{JsonWebKey, KeyAttributes, KeyBundle, KeyItem};
use crate::error::{VaultError, VaultErrorKind};
use crate::stored::{self, KeyFile, StoredAttributes, StoredVersion, VaultFile};
use crate::vault::Vault;

/// RFC 7517 §4.3, and what Key Vault adds.
const OPERATIONS: [&str; 8] =
    ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "import", "export"];

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
    /// What its owner notes.
    pub tags: Option<BTreeMap<String, String>>,
}

impl Vault {
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

    /// A deleted key, in its newest version.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the key is not deleted; `Damaged` or `Io` if the vault can't be read.
    pub fn show_deleted_key(&self, name: &str) -> Result<KeyBundle, VaultError> {
        let vault = self.vault_file()?;
        let file = self.existing(name)?.deleted()?;
        let stored = file.version(None).ok_or_else(|| no_version(name, None))?;
        Ok(self.bundle(&vault, &file, stored))
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
        if let Some(tags) = &changes.tags {
            stored.tags.clone_from(tags);
        }
        let stored = stored.clone();
        self.write_key_file(&file)?;
        Ok(self.bundle(&vault, &file, &stored))
    }

    fn existing(&self, name: &str) -> Result<KeyFile, VaultError> {
        // A name that can't be is one that isn't; and it must not leave the folder.
        self.key_id(name, None)?;
        self.key_file(name)?.ok_or_else(|| {
            VaultError::new(VaultErrorKind::NotFound, format!("there is no key {name} in this vault"))
        })
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
            version: version.map(str::to_owned),
            tags: stored.tags.clone(),
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
            tags: stored.tags.clone(),
            name: file.name.clone(),
            version: stored.version.clone(),
            deleted_date: file.deleted_date,
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
