//! The vault as a [`KekProvider`], with Key Vault's rules.
//!
//! | the key is | describe | wrap | unwrap |
//! |---|---|---|---|
//! | disabled | yes, says so | denied | denied |
//! | expired, or not valid yet | yes, says so | denied | yes |
//! | deleted | denied | denied | denied |
//!
//! On a disabled key Key Vault's documentation says that it can't be used for any operation, while the service
//! still wraps (a public-key operation). This follows the documentation: a store whose key is disabled takes nothing new.
//! Access is looked at before the key: who has none does not learn whether it exists.

use std::fmt;
use std::sync::Arc;

use bulla_envelope::secret::Secret;
use bulla_kek::{
    DenyReason, Identity, KekError, KekProvider, KeyDescription, KeyId, Protection, Scheme, WrapAlgorithm,
    WrappedKey, async_trait, compute,
};

use crate::error::{VaultError, VaultErrorKind};
use crate::files;
use crate::material::{self, Opened, Place};
use crate::permission::Permission;
use crate::stored::{self, KeyFile, StoredVersion, VaultFile};
use crate::vault::Vault;

/// A [`Vault`] as a provider of key-encryption keys. Files, Argon2 and RSA run off the executor, through the vault's
/// runtime.
#[derive(Debug, Clone)]
pub struct VaultProvider {
    vault: Vault,
}

impl VaultProvider {
    /// The provider of this vault's keys. To use them, not only to describe them, the vault needs its passphrase.
    pub fn new(vault: Vault) -> Self {
        Self { vault }
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    async fn off_the_executor<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vault) -> Result<T, KekError> + Send + 'static,
    ) -> Result<T, KekError> {
        let vault = self.vault.clone();
        compute(&*self.vault.runtime, move || work(&vault))
            .await
            .unwrap_or_else(|| Err(KekError::unavailable("the runtime is shutting down")))
    }
}

#[async_trait]
impl KekProvider for VaultProvider {
    fn accepts(&self, key: &KeyId) -> bool {
        key.scheme() == Scheme::Vault && key.host() == self.vault.id()
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        let (key, identity) = (key.clone(), identity.clone());
        self.off_the_executor(move |vault| {
            let found = find(vault, &key, &identity, Permission::GET)?;
            describe(vault, &found)
        })
        .await
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        let (key, identity) = (key.clone(), identity.clone());
        let secret =
            Secret::from_slice(secret.expose()).expect("it has the length of a secret of its length");
        self.off_the_executor(move |vault| {
            versioned(&key)?;
            let found = find(vault, &key, &identity, Permission::WRAP_KEY)?;
            found.usable_for(vault, "wrapKey")?;
            found.valid_now(vault)?;
            material::fits(&found.stored, alg)?;
            let value = found.open(vault)?.wrap(alg, &secret, vault.crypto, vault.runtime.random())?;
            Ok(WrappedKey { key: found.id(vault)?, alg, value })
        })
        .await
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        let (key, identity, value) = (key.clone(), identity.clone(), value.to_vec());
        self.off_the_executor(move |vault| {
            versioned(&key)?;
            let found = find(vault, &key, &identity, Permission::UNWRAP_KEY)?;
            found.usable_for(vault, "unwrapKey")?;
            material::fits(&found.stored, alg)?;
            found.open(vault)?.unwrap(alg, &value, vault.runtime.random())
        })
        .await
    }

    fn display_uri(&self, key: &KeyId) -> String {
        if self.accepts(key) {
            self.vault.key_uri(key.name(), key.version()).to_string()
        } else {
            key.to_string()
        }
    }
}

/// A key that is there, and that the identity may do this with.
struct Found {
    vault_file: VaultFile,
    name: String,
    stored: StoredVersion,
}

fn find(vault: &Vault, key: &KeyId, identity: &Identity, permission: Permission) -> Result<Found, KekError> {
    if key.scheme() != Scheme::Vault || key.host() != vault.id() {
        return Err(KekError::invalid(format!("{key} is not in the vault {}", vault.id())));
    }
    let vault_file = vault.vault_file().map_err(unavailable)?;
    if !vault_file.allows(identity, permission) {
        return Err(denied(
            DenyReason::Forbidden,
            format_args!("{identity} has no permission to {permission} with {key}"),
        ));
    }
    let Some(KeyFile { name, deleted_date, mut versions, .. }) =
        vault.key_file(key.name()).map_err(unavailable)?
    else {
        return Err(denied(DenyReason::NotFound, format_args!("there is no {key}")));
    };
    if deleted_date.is_some() {
        versions.iter().for_each(|stored| vault.forget(&stored.version));
        return Err(denied(DenyReason::Deleted, format_args!("{key} is deleted")));
    }
    let position = match key.version() {
        Some(version) => versions.iter().position(|stored| stored.version == version),
        None => versions.len().checked_sub(1),
    };
    match position {
        Some(position) => Ok(Found { vault_file, name, stored: versions.swap_remove(position) }),
        None => Err(denied(DenyReason::NotFound, format_args!("there is no {key}"))),
    }
}

impl Found {
    fn id(&self, vault: &Vault) -> Result<KeyId, KekError> {
        vault.key_id(&self.name, Some(&self.stored.version)).map_err(unavailable)
    }

    fn usable_for(&self, vault: &Vault, operation: &str) -> Result<(), KekError> {
        let name = &self.name;
        if !self.stored.attributes.enabled {
            vault.forget(&self.stored.version);
            let version = &self.stored.version;
            return Err(denied(DenyReason::Disabled, format_args!("{name}/{version} is disabled")));
        }
        if !self.stored.key.key_ops.iter().any(|have| have == operation) {
            let what = format_args!("{operation} is not among the key_ops of {name}");
            return Err(denied(DenyReason::OperationNotPermitted, what));
        }
        Ok(())
    }

    fn valid_now(&self, vault: &Vault) -> Result<(), KekError> {
        let (name, now) = (&self.name, stored::seconds(vault.now()));
        if self.stored.attributes.nbf.is_some_and(|start| now < start) {
            return Err(denied(DenyReason::NotYetValid, format_args!("{name} is not valid yet")));
        }
        if self.stored.attributes.exp.is_some_and(|end| end <= now) {
            return Err(denied(DenyReason::Expired, format_args!("{name} has expired")));
        }
        Ok(())
    }

    fn open(&self, vault: &Vault) -> Result<Arc<Opened>, KekError> {
        let path = vault.sealed_path(&self.name, &self.stored.version);
        let place = Place {
            vault: vault.id_bytes(),
            name: &self.name,
            version: &self.stored.version,
            kty: &self.stored.key.kty,
        };
        vault
            .with_material(&self.vault_file, |material| {
                material.opened(&place, &path, vault.crypto, || files::read(&path))
            })
            .map_err(unavailable)
    }
}

fn describe(vault: &Vault, found: &Found) -> Result<KeyDescription, KekError> {
    let StoredVersion { key, attributes, .. } = &found.stored;
    Ok(KeyDescription {
        key: found.id(vault)?,
        kind: key.kind(),
        algorithm: key.kind().wrap_algorithm(),
        enabled: attributes.enabled,
        not_before: attributes.nbf.and_then(stored::time),
        expires: attributes.exp.and_then(stored::time),
        operations: key.key_ops.clone(),
        protection: Protection { soft_delete: true, purge_protection: found.vault_file.purge_protection },
        created: stored::time(attributes.created),
    })
}

fn versioned(key: &KeyId) -> Result<(), KekError> {
    match key.version() {
        Some(_) => Ok(()),
        None => Err(KekError::invalid(format!("{key} has no version; describe gives the newest"))),
    }
}

fn denied(reason: DenyReason, what: fmt::Arguments<'_>) -> KekError {
    KekError::denied(reason).with_message(what.to_string())
}

/// A folder that can't be read, or a vault that can't be opened, says nothing about the key.
fn unavailable(error: VaultError) -> KekError {
    let what = match error.kind() {
        VaultErrorKind::WrongPassphrase | VaultErrorKind::PassphraseMissing => "the vault is locked",
        _ => "the vault is out of reach",
    };
    KekError::unavailable(what).with_source(error)
}
