//! Access policies: which identity may do what with the vault's keys.

use std::collections::BTreeMap;

use bulla_kek::Identity;

use crate::error::VaultError;
use crate::permission::Permission;
use crate::stored::VaultFile;
use crate::vault::Vault;

impl Vault {
    /// Gives an identity exactly these permissions on all keys of the vault, instead of those it had.
    ///
    /// # Errors
    /// `Invalid` without any permission; `NotFound`, `Damaged` or `Io` if the vault can't be read or written.
    pub fn set_policy(&self, identity: &Identity, permissions: &[Permission]) -> Result<(), VaultError> {
        if permissions.is_empty() {
            return Err(VaultError::invalid("a policy has permissions; to take them all, delete the policy"));
        }
        let mut permissions = permissions.to_vec();
        permissions.sort_unstable();
        permissions.dedup();
        let _lock = self.lock()?;
        let mut file = self.vault_file()?;
        file.access_policies.insert(identity.as_str().to_owned(), permissions);
        self.write_vault_file(&file)
    }

    /// Takes all permissions from an identity. Returns whether it had any.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read or written.
    pub fn delete_policy(&self, identity: &Identity) -> Result<bool, VaultError> {
        let _lock = self.lock()?;
        let mut file = self.vault_file()?;
        let had = file.access_policies.remove(identity.as_str()).is_some();
        if had {
            self.write_vault_file(&file)?;
        }
        Ok(had)
    }

    /// Whether the identity has the permission on the vault's keys now.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read: unknown, so the answer is no.
    pub fn permits(&self, identity: &Identity, permission: Permission) -> Result<bool, VaultError> {
        Ok(self.vault_file()?.allows(identity, permission))
    }

    /// All policies, by identity.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read.
    pub fn policies(&self) -> Result<BTreeMap<String, Vec<Permission>>, VaultError> {
        Ok(self.vault_file()?.access_policies)
    }
}

impl VaultFile {
    /// Whether the identity has the permission.
    pub(crate) fn allows(&self, identity: &Identity, permission: Permission) -> bool {
        self.access_policies
            .get(identity.as_str())
            .is_some_and(|have| have.iter().any(|&one| one == permission || one == Permission::ALL))
    }
}
