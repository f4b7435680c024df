//! The calls themselves, each one attempt: the SDK's requests, and from its answers to ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use azure_core::Error;
use azure_security_keyvault_keys::models::{
    EncryptionAlgorithm, KeyClientGetKeyOptions, KeyClientWrapKeyOptions, KeyOperationParameters,
    KeyOperationResult,
};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use bulla_envelope::secret::Secret;
use bulla_kek::{BoxFuture, DenyReason, Identity, KekError, KeyId, Now, WrapAlgorithm};
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::described::{self, Described};
use crate::fault::{Again, Fault};
use crate::hosts::{Allowed, Hosts};
use crate::http::Http;
use crate::options::AzureOptions;

/// Spoken by every vault, Managed HSM and cloud, and all that is needed here.
const API_VERSION: &str = "7.4";
/// How many pairs of host and identity keep their connections and tokens.
const MAX_CLIENTS: usize = 64;

/// The vaults that may be asked, with the tokens for them.
pub(crate) struct Service {
    hosts: Hosts,
    credentials: Credentials,
    http: Http,
    clients: Mutex<BTreeMap<(String, Identity), Arc<KeyClient>>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new(options: &AzureOptions) -> Result<Self, KekError> {
        Ok(Self {
            hosts: Hosts::new(&options.extra_hosts)?,
            credentials: options.credentials.clone(),
            http: Http::new(options)?,
            clients: Mutex::default(),
        })
    }

    /// Whether the key's host may be asked.
    pub(crate) fn accepts(&self, key: &KeyId) -> bool {
        self.hosts.allow(key).is_some()
    }

    /// `GET /keys/NAME[/VERSION]`; `sent` is a reading of the clocks before.
    pub(crate) async fn get(&self, key: &KeyId, identity: &Identity, sent: Now) -> Result<Described, Fault> {
        let answer = self
            .call(key, identity, |client| {
                let (name, version) = (key.name().to_owned(), key.version().map(str::to_owned));
                Box::pin(async move {
                    let options = KeyClientGetKeyOptions { key_version: version, ..Default::default() };
                    client.get_key(&name, Some(options)).await
                })
            })
            .await?;
        let answer = answer.into_model().map_err(|_| not_understood(key))?;
        described::describe(key, answer, sent)
    }

    /// `POST /keys/NAME/VERSION/unwrapkey`
    pub(crate) async fn unwrap(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, Fault> {
        let answer = self
            .call(key, identity, |client| {
                let (name, version) = (key.name().to_owned(), key.version().unwrap_or_default().to_owned());
                let parameters = parameters(alg, value);
                Box::pin(
                    async move { client.unwrap_key(&name, &version, parameters.try_into()?, None).await },
                )
            })
            .await?;
        // A secret may be in it: not a word of what can't be read goes anywhere.
        let value = operation_result(key, answer.into_model().map_err(|_| not_understood(key))?)?;
        Secret::from_slice(&value)
            .ok_or_else(|| Fault::invalid(format!("what {key} unwrapped is not a key of 32 bytes")))
    }

    /// `POST /keys/NAME/VERSION/wrapkey`
    pub(crate) async fn wrap(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<Vec<u8>, Fault> {
        let answer = self
            .call(key, identity, |client| {
                let (name, version) = (key.name().to_owned(), key.version().map(str::to_owned));
                let parameters = parameters(alg, secret.expose());
                Box::pin(async move {
                    let options = KeyClientWrapKeyOptions { key_version: version, ..Default::default() };
                    client.wrap_key(&name, parameters.try_into()?, Some(options)).await
                })
            })
            .await?;
        let value = operation_result(key, answer.into_model().map_err(|_| not_understood(key))?)?;
        if value.is_empty() {
            return Err(not_understood(key));
        }
        Ok(value.to_vec())
    }

    /// One attempt, repeated once with a new token where the old one is refused: it may be stale, and "who are you?" must
    /// not count as "no" before that is known.
    async fn call<T>(
        &self,
        key: &KeyId,
        identity: &Identity,
        request: impl Fn(Arc<KeyClient>) -> BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, Fault> {
        let mut fresh = false;
        loop {
            let client = self.client(key, identity)?;
            let fault = match request(Arc::clone(&client)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => Fault::of(&error, key.host()),
            };
            match fault.again {
                Again::FreshToken => {
                    self.forget(key, identity, &client);
                    if fresh {
                        return Err(fault);
                    }
                    fresh = true;
                }
                Again::Missing => return Err(self.missing(key, &client, fault).await),
                _ => return Err(fault),
            }
        }
    }

    /// Key Vault says `KeyNotFound` of deleted keys too, so the deleted ones are looked through. An identity that may not
    /// do that learns no more.
    async fn missing(&self, key: &KeyId, client: &KeyClient, fault: Fault) -> Fault {
        match client.get_deleted_key(key.name(), None).await {
            Ok(_) => {
                let message =
                    format!("{}: {} keeps {}", DenyReason::Deleted, key.host(), key.without_version());
                Fault { error: KekError::denied(DenyReason::Deleted).with_message(message), again: Again::No }
            }
            Err(error) => match Fault::of(&error, key.host()) {
                // Neither "deleted" nor "never was", and "never was" must not be said lightly.
                unknown if matches!(unknown.again, Again::Later | Again::After(_)) => unknown,
                _ => fault,
            },
        }
    }

    fn client(&self, key: &KeyId, identity: &Identity) -> Result<Arc<KeyClient>, Fault> {
        let Some(allowed) = self.hosts.allow(key) else {
            return Err(Fault::invalid(format!("{} is not a key vault that may be asked here", key.host())));
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (key.host().to_owned(), identity.clone());
        if let Some(client) = clients.get(&place) {
            return Ok(Arc::clone(client));
        }
        let credential =
            self.credentials.of(identity, &self.http).map_err(|error| Fault { error, again: Again::No })?;
        let options = KeyClientOptions {
            api_version: API_VERSION.to_owned(),
            client_options: self.http.for_vault(),
            verify_challenge_resource: Some(allowed == Allowed::Azure),
        };
        let client = KeyClient::new(&format!("https://{}/", key.host()), credential, Some(options))
            .map_err(|_| Fault::invalid(format!("{} is not a host", key.host())))?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let client = Arc::new(client);
        clients.insert(place, Arc::clone(&client));
        Ok(client)
    }

    /// Forgets this client, and with it its tokens.
    fn forget(&self, key: &KeyId, identity: &Identity, client: &Arc<KeyClient>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (key.host().to_owned(), identity.clone());
        if clients.get(&place).is_some_and(|have| Arc::ptr_eq(have, client)) {
            clients.remove(&place);
        }
    }
}

fn parameters(alg: WrapAlgorithm, value: &[u8]) -> KeyOperationParameters {
    let algorithm = match alg {
        WrapAlgorithm::RsaOaep256 => EncryptionAlgorithm::RsaOaep256,
        WrapAlgorithm::A256Kw => EncryptionAlgorithm::A256Kw,
        other => EncryptionAlgorithm::UnknownValue(other.as_str().to_owned()),
    };
    KeyOperationParameters { algorithm: Some(algorithm), value: Some(value.to_vec()), ..Default::default() }
}

/// The value of an answer, if it is the asked key's.
fn operation_result(key: &KeyId, answer: KeyOperationResult) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let value = Zeroizing::new(answer.result.unwrap_or_default());
    match described::answered_key(key, answer.kid.as_deref()) {
        Some(_) => Ok(value),
        None => Err(Fault::useless(format!("{} answers with another key when asked for {key}", key.host()))),
    }
}

fn not_understood(key: &KeyId) -> Fault {
    Fault::useless(format!("{} answers with something that is not a key vault's", key.host()))
}
