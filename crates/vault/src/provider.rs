//! The vault as a [`KekProvider`], with Key Vault's rules.
//!
//! | the key is | describe | wrap | unwrap |
//! |---|---|---|---|
//! | disabled | yes, says so | denied | denied |
//! | expired, or not valid yet | yes, says so | denied | yes |
//! | deleted | denied | denied | denied |
//!
//! On a disabled key Key Vault's documentation says that it can't be used for any operation, while the service
//! still wraps (a public-key operation). This follows the documentation ([`Manner::Documented`]): a store whose key is
//! disabled takes nothing new. Network rules don't matter here: no network is crossed.

use bulla_envelope::secret::Secret;
use bulla_kek::{
    Identity, KekError, KekProvider, KeyDescription, KeyId, Protection, Scheme, WrapAlgorithm, WrappedKey,
    async_trait, compute,
};

use crate::material;
use crate::permission::Permission;
use crate::stored::{self, StoredVersion};
use crate::usage::{self, Algorithm, Found, KeyOperation, KeyUse, Manner, Used};
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
            in_vault(vault, &key)?;
            let found = Found::find(vault, &identity, key.name(), key.version(), Permission::GET)?;
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
        let secret: Secret<32> =
            Secret::from_slice(secret.expose()).expect("it has the length of a secret of its length");
        self.off_the_executor(move |vault| {
            let used = use_key(vault, &identity, &key, KeyOperation::WrapKey, alg, secret.expose())?;
            let key = vault.key_id(&used.name, Some(&used.version)).map_err(usage::unavailable)?;
            Ok(WrappedKey { key, alg, value: used.output.to_vec() })
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
            let used = use_key(vault, &identity, &key, KeyOperation::UnwrapKey, alg, &value)?;
            Secret::from_slice(&used.output).ok_or_else(material::not_for_this_key)
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

fn describe(vault: &Vault, found: &Found) -> Result<KeyDescription, KekError> {
    let StoredVersion { key, attributes, .. } = &found.stored;
    Ok(KeyDescription {
        key: vault.key_id(&found.name, Some(&found.stored.version)).map_err(usage::unavailable)?,
        kind: key.kind(),
        algorithm: key.kind().wrap_algorithm(),
        enabled: attributes.enabled,
        not_before: attributes.nbf.and_then(stored::time),
        expires: attributes.exp.and_then(stored::time),
        operations: key.key_ops.clone(),
        protection: Protection {
            soft_delete: true,
            purge_protection: found.vault_file.purge_protection,
            ..Protection::default()
        },
        created: stored::time(attributes.created),
    })
}

fn use_key(
    vault: &Vault,
    identity: &Identity,
    key: &KeyId,
    operation: KeyOperation,
    alg: WrapAlgorithm,
    input: &[u8],
) -> Result<Used, KekError> {
    in_vault(vault, key)?;
    let Some(version) = key.version() else {
        return Err(KekError::invalid(format!("{key} has no version; describe gives the newest")));
    };
    let algorithm = match alg {
        WrapAlgorithm::RsaOaep256 => Algorithm::RsaOaep256,
        WrapAlgorithm::A256Kw => Algorithm::A256Kw,
        _ => return Err(KekError::invalid(format!("the vault has no {alg}"))),
    };
    let what = KeyUse { name: key.name(), version: Some(version), operation, algorithm, input };
    vault.use_key(identity, Manner::Documented, &what)
}

fn in_vault(vault: &Vault, key: &KeyId) -> Result<(), KekError> {
    if key.scheme() == Scheme::Vault && key.host() == vault.id() {
        return Ok(());
    }
    Err(KekError::invalid(format!("{key} is not in the vault {}", vault.id())))
}
