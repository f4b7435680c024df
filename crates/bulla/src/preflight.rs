//! Checks of a KEK before a store depends on it, each refusal with the command that fixes it.

use std::time::SystemTime;

use bulla_envelope::envelope::Wrap;
use bulla_envelope::secret::{Root, Secret};
use bulla_kek::{
    DenyReason, Exposure, Identity, KekError, KekErrorKind, KeyDescription, KeyId, KeyUri, Providers,
    Runtime, Scheme, UnknownAlgorithm, WrapAlgorithm, remedy,
};

use crate::error::{Error, ErrorKind, Result};

/// What a store may be put under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// Soft delete and purge protection: without them one mistake destroys every blob. And a key that can't be taken out of
    /// its holder: else whoever did can't be stopped.
    pub(crate) protection: bool,
}

/// What changes a key's dates and operations in vaults.
const ATTRIBUTES: &str = "`bulla vault key set-attributes`, `az keyvault key set-attributes`";
const OPERATIONS: &str = "`bulla vault key set-attributes --ops`, `az keyvault key set-attributes --ops`";

/// Describes `key` (its newest version where it names none) and checks that it can hold a store: exists, enabled, valid
/// now, RSA of at least 2048 bits or AES-256, `wrapKey` and `unwrapKey`, protected.
pub(crate) async fn describe(
    providers: &Providers,
    runtime: &dyn Runtime,
    key: &KeyId,
    identity: &Identity,
    requirements: Requirements,
) -> Result<(KeyDescription, WrapAlgorithm)> {
    let provider = providers.provider_for(key)?;
    let uri = provider.display_uri(key);
    let description =
        provider.describe(key, identity).await.map_err(|error| explain(error, &uri, identity))?;
    let algorithm = check(&description, &uri, runtime.now().wall, requirements)?;
    Ok((description, algorithm))
}

/// The same of a description that is there already: what to wrap with, or why the key can't hold a store.
pub(crate) fn check(
    description: &KeyDescription,
    uri: &str,
    now: SystemTime,
    requirements: Requirements,
) -> Result<WrapAlgorithm> {
    let on_token = description.key.scheme() == Scheme::Pkcs11;
    if !description.enabled {
        return Err(Error::invalid(format!(
            "the key {uri} is disabled; enable it (`bulla vault key enable`, `az keyvault key set-attributes --enabled true`)"
        )));
    }
    if !description.is_valid_at(now) {
        return Err(Error::invalid(format!(
            "the key {uri} is outside its validity (nbf, exp); choose another version or change its dates ({})",
            if on_token { "CKA_START_DATE, CKA_END_DATE" } else { ATTRIBUTES }
        )));
    }
    let algorithm = description.algorithm.ok_or_else(|| {
        Error::invalid(format!(
            "the key {uri} is {}; use RSA of at least 2048 bits, or AES-256",
            description.kind
        ))
    })?;
    for operation in ["wrapKey", "unwrapKey"] {
        if !description.permits(operation) {
            return Err(Error::invalid(format!(
                "the key {uri} does not permit {operation}; add it to its key operations ({})",
                if on_token { "CKA_ENCRYPT and CKA_DECRYPT, or CKA_WRAP and CKA_UNWRAP" } else { OPERATIONS }
            )));
        }
    }
    let protection = description.protection;
    let is_protected = protection.soft_delete && protection.purge_protection;
    if requirements.protection && !is_protected && on_token {
        return Err(Error::invalid(format!(
            "the key {uri} can be destroyed on its token (CKA_DESTROYABLE), which has no soft delete, so one mistake could \
             destroy every blob; make a key with CKA_DESTROYABLE false, or back the key up and accept the risk with \
             --allow-unprotected-key"
        )));
    }
    if requirements.protection && !is_protected {
        return Err(Error::invalid(format!(
            "the vault of {uri} has no {}, so one mistake could destroy every blob; turn it on \
             (`az keyvault update --enable-purge-protection true`; a local vault: create it without \
             --no-purge-protection), or accept the risk with --allow-unprotected-key",
            if protection.soft_delete { "purge protection" } else { "soft delete" }
        )));
    }
    if requirements.protection && protection.exposure == Exposure::Now {
        return Err(Error::invalid(format!(
            "the key {uri} can be taken out of its token (CKA_SENSITIVE, CKA_EXTRACTABLE), so that taking it away there would \
             revoke nothing; make a key that is sensitive and not extractable (`pkcs11-tool --keygen --sensitive`), or accept \
             the risk with --allow-unprotected-key"
        )));
    }
    Ok(algorithm)
}

/// The share of a group of one: the root itself.
pub(crate) fn only_share(root: &Root, runtime: &dyn Runtime) -> Result<Secret<32>> {
    let share = root.split(1, runtime.random()).pop();
    share.ok_or_else(|| Error::new(ErrorKind::Internal, "one party, but no share"))
}

/// Wraps a share under the described version, and proves it by unwrapping under the identity that the nodes use.
pub(crate) async fn wrap_and_prove(
    providers: &Providers,
    key: &KeyId,
    algorithm: WrapAlgorithm,
    identity: &Identity,
    share: Secret<32>,
) -> Result<Wrap> {
    let provider = providers.provider_for(key)?;
    let uri = provider.display_uri(key);
    let wrapped = provider
        .wrap_key(key, identity, algorithm, &share)
        .await
        .map_err(|error| explain(error, &uri, identity))?;
    let back = provider
        .unwrap_key(&wrapped.key, identity, wrapped.alg, &wrapped.value)
        .await
        .map_err(|error| explain(error, &uri, identity))?;
    if !back.ct_eq(&share) {
        return Err(Error::invalid(format!("the key {uri} does not unwrap what it wrapped")));
    }
    Ok(Wrap { kid: wrapped.key.to_string(), alg: wrapped.alg.to_string(), value: wrapped.value })
}

/// Checks that `identity` may unwrap what an old KEK wrapped.
pub(crate) async fn unwraps(providers: &Providers, wrap: &Wrap, identity: &Identity) -> Result<()> {
    let key: KeyId = wrap.kid.parse().map_err(|error| Error::invalid("not a key id").with_source(error))?;
    let alg: WrapAlgorithm =
        wrap.alg.parse().map_err(|error: UnknownAlgorithm| Error::invalid(error.to_string()))?;
    let provider = providers.provider_for(&key)?;
    let unwrapped = provider.unwrap_key(&key, identity, alg, &wrap.value).await;
    unwrapped.map(drop).map_err(|error| explain(error, &provider.display_uri(&key), identity))
}

fn explain(error: KekError, uri: &str, identity: &Identity) -> Error {
    let mut message = format!("the identity `{identity}` can't use the key {uri}: {error}");
    match error.kind() {
        KekErrorKind::Denied(reason) => {
            message.push_str("; ");
            message.push_str(&fix(reason, uri, identity));
            Error::revoked(reason, message)
        }
        _ => Error::from(error.with_message(message)),
    }
}

/// What to type about a key that was named to be put under. It may never have been.
fn fix(reason: DenyReason, uri: &str, identity: &Identity) -> String {
    match (reason, uri.parse::<KeyUri>()) {
        (DenyReason::NotFound, Ok(key)) => remedy::create(&key),
        (_, Ok(key)) => remedy::restore(reason, &key, identity.as_str()),
        (_, Err(_)) => format!("see that `{identity}` has get, wrapKey and unwrapKey"),
    }
}
