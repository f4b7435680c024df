//! The end of a key, and back.

use super::no_version;
use crate::bundle::KeyBundle;
use crate::error::{VaultError, VaultErrorKind};
use crate::stored::{self, KeyFile};
use crate::vault::Vault;

impl Vault {
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
}

impl KeyFile {
    pub(super) fn not_deleted(self) -> Result<Self, VaultError> {
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

    pub(super) fn deleted(self) -> Result<Self, VaultError> {
        match self.deleted_date {
            Some(_) => Ok(self),
            None => Err(VaultError::new(
                VaultErrorKind::Conflict,
                format!("{} is not deleted; delete it with `bulla vault key delete` first", self.name),
            )),
        }
    }
}
