//! The provider, made when a key vault is first asked: reading every certificate that the system trusts takes longer than
//! most commands, and most stores are under other keys.

use std::env;
use std::sync::{Arc, OnceLock};

use bulla_envelope::secret::Secret;
use bulla_kek::{
    Identity, KekError, KekProvider, KeyDescription, KeyId, Scheme, TokioRuntime, WrapAlgorithm, WrappedKey,
    async_trait,
};
use bulla_kek_azure::{AzureOptions, AzureProvider, Credentials};

/// All key vaults that may be asked. What is wrong with the environment is said when it matters.
#[derive(Debug, Default)]
pub(super) struct KeyVaults {
    made: OnceLock<Result<AzureProvider, KekError>>,
}

impl KeyVaults {
    fn get(&self) -> Result<&AzureProvider, KekError> {
        let make = || AzureProvider::new(options()?, Arc::new(TokioRuntime));
        self.made.get_or_init(make).as_ref().map_err(Clone::clone)
    }
}

#[async_trait]
impl KekProvider for KeyVaults {
    fn accepts(&self, key: &KeyId) -> bool {
        // Where there is no provider, asking says why.
        key.scheme() == Scheme::KeyVault && self.get().map_or(true, |provider| provider.accepts(key))
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        self.get()?.describe(key, identity).await
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        self.get()?.wrap_key(key, identity, alg, secret).await
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        self.get()?.unwrap_key(key, identity, alg, value).await
    }
}

fn options() -> Result<AzureOptions, KekError> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let credentials = match set("BULLA_AZURE_CREDENTIAL").as_deref() {
        None => Credentials::Automatic,
        Some("managed") => Credentials::Managed,
        Some("workload") => Credentials::Workload,
        Some("developer") => Credentials::Developer,
        Some(other) => {
            return Err(KekError::invalid(format!(
                "BULLA_AZURE_CREDENTIAL is {other}; set it to managed, workload or developer, or not at all"
            )));
        }
    };
    let hosts = set("BULLA_KEYVAULT_HOSTS").unwrap_or_default();
    let extra_hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
    let extra_ca_pem = match set("BULLA_KEYVAULT_CA_FILE") {
        Some(path) => std::fs::read(&path).map_err(|error| {
            KekError::invalid(format!("can't read {path}, which BULLA_KEYVAULT_CA_FILE names: {error}"))
        })?,
        None => Vec::new(),
    };
    Ok(AzureOptions {
        credentials,
        extra_hosts: extra_hosts.map(str::to_owned).collect(),
        extra_ca_pem,
        ..AzureOptions::default()
    })
}
