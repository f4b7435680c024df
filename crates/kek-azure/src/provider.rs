//! Key Vault and Managed HSM as a [`KekProvider`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bulla_envelope::crypto::{CryptoProvider, RsaPublicKey};
use bulla_envelope::secret::Secret;
use bulla_kek::{
    DenyReason, Identity, KekError, KekErrorKind, KekProvider, KeyDescription, KeyId, Runtime, WrapAlgorithm,
    WrappedKey, async_trait, compute,
};

use crate::described::Described;
use crate::flights::Flights;
use crate::options::AzureOptions;
use crate::retry::retry;
use crate::service::Service;

/// The length of what A256KW makes of 32 bytes (RFC 3394).
const A256KW_LEN: usize = 40;
/// The lengths of what RSA-OAEP makes: those of the moduli.
const RSA_LEN: std::ops::RangeInclusive<usize> = 256..=512;
/// How many descriptions and proven keys are remembered.
const MAX_REMEMBERED: usize = 1024;

/// Keys in Azure Key Vault and Managed HSM. Cheap to clone; clones share connections, tokens and what was proven.
///
/// | the key is | describe | wrap | unwrap |
/// |---|---|---|---|
/// | disabled | yes, says so | denied | denied |
/// | expired, or not valid yet | yes, says so | denied | yes |
/// | deleted | denied | denied | denied |
///
/// An RSA wrap is made here, from a description that is at most [`AzureOptions::description_max_age`] old. Key Vault itself
/// would still wrap with a disabled key, which needs the public half only; a store whose key is disabled takes nothing new.
#[derive(Clone, Debug)]
pub struct AzureProvider {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: AzureOptions,
    runtime: Arc<dyn Runtime>,
    crypto: &'static CryptoProvider,
    service: Service,
    describing: Arc<Flights<(KeyId, Identity), Result<Described, KekError>>>,
    unwrapping: Arc<Flights<Unwrap, Result<Arc<Secret<32>>, KekError>>>,
    proving: Arc<Flights<(KeyId, Identity), Result<(), KekError>>>,
    /// The newest description of a version, for an identity. A refusal removes it.
    described: Mutex<BTreeMap<(KeyId, Identity), Described>>,
    /// Public keys that proved to be the halves of what the vault unwraps with, by version.
    proven: Mutex<BTreeMap<KeyId, RsaPublicKey>>,
}

/// What an unwrap asks: key, identity, algorithm, value.
type Unwrap = (KeyId, Identity, &'static str, Vec<u8>);

impl AzureProvider {
    /// The provider that these options describe. It asks nobody yet.
    ///
    /// # Errors
    /// `Invalid` where a host or certificate of the options is none, or no TLS was built in.
    pub fn new(options: AzureOptions, runtime: Arc<dyn Runtime>) -> Result<Self, KekError> {
        Self::with_crypto(options, runtime, CryptoProvider::best())
    }

    /// As [`new`](Self::new), with a crypto back end of the caller's choice.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_crypto(
        options: AzureOptions,
        runtime: Arc<dyn Runtime>,
        crypto: &'static CryptoProvider,
    ) -> Result<Self, KekError> {
        let service = Service::new(&options)?;
        let inner = Inner {
            options,
            runtime,
            crypto,
            service,
            describing: Arc::default(),
            unwrapping: Arc::default(),
            proving: Arc::default(),
            described: Mutex::default(),
            proven: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl KekProvider for AzureProvider {
    fn accepts(&self, key: &KeyId) -> bool {
        self.inner.service.accepts(key)
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        Ok(self.inner.describe(key, identity).await?.description)
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        versioned(key)?;
        let value = match alg {
            WrapAlgorithm::RsaOaep256 => {
                let public = self.inner.usable_public_key(key, identity).await?;
                self.inner.prove(key, identity, &public).await?;
                self.inner.wrap_here(public, secret).await?
            }
            // The service has the key, and looks at its attributes itself.
            WrapAlgorithm::A256Kw => self.inner.wrap_there(key, identity, alg, secret).await?,
            other => return Err(not_a_vaults(other)),
        };
        Ok(WrappedKey { key: key.clone(), alg, value })
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        versioned(key)?;
        let secret = self.inner.unwrap(key, identity, alg, value).await?;
        Ok(copy(&secret))
    }
}

/// RSA-OAEP with SHA-1 is on offer there; it is for tokens that have nothing newer.
fn not_a_vaults(alg: WrapAlgorithm) -> KekError {
    KekError::invalid(format!("{alg} is not used with key vaults; use RSA-OAEP-256 or A256KW"))
}

impl Inner {
    async fn describe(self: &Arc<Self>, key: &KeyId, identity: &Identity) -> Result<Described, KekError> {
        let inner = Arc::clone(self);
        let place = (key.clone(), identity.clone());
        let (key, identity) = place.clone();
        self.describing
            .join(place, move || async move {
                let answer = retry(&*inner.runtime, &inner.options, key.host(), || {
                    inner.service.get(&key, &identity, inner.runtime.now())
                })
                .await;
                inner.note(&key, &identity, &answer);
                answer
            })
            .await
    }

    async fn unwrap(
        self: &Arc<Self>,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Arc<Secret<32>>, KekError> {
        let fits = match alg {
            WrapAlgorithm::RsaOaep256 => RSA_LEN.contains(&value.len()),
            WrapAlgorithm::A256Kw => value.len() == A256KW_LEN,
            other => return Err(not_a_vaults(other)),
        };
        if !fits {
            return Err(KekError::invalid(format!("{} bytes are no wrap of 32 bytes by {alg}", value.len())));
        }
        let inner = Arc::clone(self);
        let place: Unwrap = (key.clone(), identity.clone(), alg.as_str(), value.to_vec());
        let (key, identity, _, value) = place.clone();
        self.unwrapping
            .join(place, move || async move {
                let answer = retry(&*inner.runtime, &inner.options, key.host(), || {
                    inner.service.unwrap(&key, &identity, alg, &value)
                })
                .await;
                if let Err(error) = &answer {
                    inner.note_refusal(&key, &identity, error);
                }
                answer.map(Arc::new)
            })
            .await
    }

    async fn wrap_there(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<Vec<u8>, KekError> {
        retry(&*self.runtime, &self.options, key.host(), || self.service.wrap(key, identity, alg, secret))
            .await
    }

    /// The public key, if the description says that the key may wrap now.
    async fn usable_public_key(
        self: &Arc<Self>,
        key: &KeyId,
        identity: &Identity,
    ) -> Result<RsaPublicKey, KekError> {
        let Described { description, public, .. } = self.recent(key, identity).await?;
        let denied = |reason: DenyReason| {
            Err(KekError::denied(reason).with_message(format!("{reason}: {}", description.key)))
        };
        if description.kind.wrap_algorithm() != Some(WrapAlgorithm::RsaOaep256) {
            return Err(KekError::invalid(format!(
                "{key} is {}, which RSA-OAEP-256 does not fit",
                description.kind
            )));
        }
        if !description.enabled {
            return denied(DenyReason::Disabled);
        }
        let now = self.runtime.now().wall;
        if description.expires.is_some_and(|end| end <= now) {
            return denied(DenyReason::Expired);
        }
        if description.not_before.is_some_and(|start| now < start) {
            return denied(DenyReason::NotYetValid);
        }
        if !description.permits("wrapKey") {
            return denied(DenyReason::OperationNotPermitted);
        }
        public
            .ok_or_else(|| KekError::invalid(format!("the public key of {key} is not one that can be used")))
    }

    /// A description that is young enough.
    async fn recent(self: &Arc<Self>, key: &KeyId, identity: &Identity) -> Result<Described, KekError> {
        let known = {
            let described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
            described.get(&(key.clone(), identity.clone())).cloned()
        };
        let now = self.runtime.now().boot;
        match known {
            Some(known) if now.saturating_sub(known.asked.boot) < self.options.description_max_age => {
                Ok(known)
            }
            _ => self.describe(key, identity).await,
        }
    }

    /// Wraps a random secret with the public key and has the vault unwrap it, once per process and version: whoever could
    /// put another public key into a description would read everything that is wrapped with it.
    async fn prove(
        self: &Arc<Self>,
        key: &KeyId,
        identity: &Identity,
        public: &RsaPublicKey,
    ) -> Result<(), KekError> {
        if self.is_proven(key, public) {
            return Ok(());
        }
        let inner = Arc::clone(self);
        let place = (key.clone(), identity.clone());
        let ((key, identity), public) = (place.clone(), public.clone());
        self
            .proving
            .join(place, move || async move {
                if inner.is_proven(&key, &public) {
                    return Ok(());
                }
                let probe = Secret::random(inner.runtime.random());
                let wrapped = inner.wrap_here(public.clone(), &probe).await?;
                let back = inner.unwrap(&key, &identity, WrapAlgorithm::RsaOaep256, &wrapped).await;
                match back {
                    Ok(back) if back.ct_eq(&probe) => {
                        let mut proven = inner.proven.lock().unwrap_or_else(PoisonError::into_inner);
                        make_room(&mut proven);
                        proven.insert(key, public);
                        Ok(())
                    }
                    Err(error) if error.kind() != KekErrorKind::Invalid => Err(error),
                    _ => Err(KekError::invalid(format!(
                        "{} gives out a public key for {key} that is not of the key it unwraps with; nothing was wrapped",
                        key.host()
                    ))),
                }
            })
            .await
    }

    fn is_proven(&self, key: &KeyId, public: &RsaPublicKey) -> bool {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.get(key).is_some_and(|have| have == public)
    }

    async fn wrap_here(
        self: &Arc<Self>,
        public: RsaPublicKey,
        secret: &Secret<32>,
    ) -> Result<Vec<u8>, KekError> {
        let (inner, secret) = (Arc::clone(self), copy(secret));
        let wrapped = compute(&*self.runtime, move || {
            inner.crypto.rsa.wrap(&public, secret.expose(), inner.runtime.random())
        })
        .await;
        match wrapped {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(KekError::invalid("the public key can't be used").with_source(error)),
            None => Err(KekError::unavailable("the runtime is shutting down")),
        }
    }

    fn note(&self, key: &KeyId, identity: &Identity, answer: &Result<Described, KekError>) {
        match answer {
            Ok(answer) => {
                let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
                make_room(&mut described);
                described.insert((answer.description.key.clone(), identity.clone()), answer.clone());
            }
            Err(error) => self.note_refusal(key, identity, error),
        }
    }

    /// After a refusal nothing is wrapped on the word of an earlier description.
    fn note_refusal(&self, key: &KeyId, identity: &Identity, error: &KekError) {
        if matches!(error.kind(), KekErrorKind::Denied(_)) {
            let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
            described.retain(|(have, whose), _| !(have.same_key(key) && whose == identity));
        }
    }
}

/// What is forgotten is asked and proven again.
fn make_room<K, V>(map: &mut BTreeMap<K, V>) {
    if map.len() >= MAX_REMEMBERED {
        map.clear();
    }
}

fn copy(secret: &Secret<32>) -> Secret<32> {
    Secret::from_slice(secret.expose()).expect("it has the length of a secret of its length")
}

fn versioned(key: &KeyId) -> Result<(), KekError> {
    match key.version() {
        Some(_) => Ok(()),
        None => Err(KekError::invalid(format!("{key} has no version; describe gives the newest"))),
    }
}
