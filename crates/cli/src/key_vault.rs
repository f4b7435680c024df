//! Azure Key Vault and Managed HSM, as the environment allows them: cargo feature `azure-keyvault`.
//!
//! The variables are in the command's help (`args.rs`).

use std::sync::Arc;

use bulla_kek::{KekProvider, KeyId};

use crate::context::Context;
use crate::exit::{Failure, Result};

#[cfg(feature = "azure-keyvault")]
mod provider;

/// The provider of a key that a user named by an `https` id.
pub(crate) fn provider_of(ctx: &Context, key: &KeyId) -> Result<Arc<dyn KekProvider>> {
    let Some(provider) = provider(ctx) else {
        return Err(Failure::invalid(format!(
            "this build can't use the key {key}; build with --features azure-keyvault, or use a local vault: --kek \
             vault+file:///DIR/keys/NAME"
        )));
    };
    if provider.accepts(key) {
        return Ok(provider);
    }
    Err(Failure::invalid(format!(
        "{host} is not a host of Azure Key Vault or Managed HSM; if it is to be asked all the same, set \
         BULLA_KEYVAULT_HOSTS={host}",
        host = key.host()
    )))
}

/// What to do about an error that is about reaching a key vault, if this is one.
pub(crate) fn fix(message: &str) -> Option<&'static str> {
    if message.starts_with("no provider is configured for https:") {
        return Some("if that host is to be asked, name it in BULLA_KEYVAULT_HOSTS");
    }
    if message.contains("is not trusted here") {
        return Some("set BULLA_KEYVAULT_CA_FILE to that file");
    }
    if message.contains("the identity endpoint") {
        return Some(
            "run where the identity is assigned, or set BULLA_AZURE_CREDENTIAL to `workload`, or to `developer` after \
             `az login`",
        );
    }
    None
}

/// The provider that the environment describes, if this build has one.
#[cfg(feature = "azure-keyvault")]
pub(crate) fn provider(ctx: &Context) -> Option<Arc<dyn KekProvider>> {
    let provider = ctx.key_vault.get_or_init(|| Arc::new(provider::KeyVaults::default()));
    Some(Arc::clone(provider))
}

#[cfg(not(feature = "azure-keyvault"))]
pub(crate) fn provider(ctx: &Context) -> Option<Arc<dyn KekProvider>> {
    // Nothing has set it.
    ctx.key_vault.get().cloned()
}
