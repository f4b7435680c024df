//! A token as a [`KekProvider`].

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::secret::Secret;
use bulla_kek::{
    DenyReason, Identity, KekError, KekProvider, KeyDescription, KeyId, Runtime, Scheme, WrapAlgorithm,
    WrappedKey, async_trait, compute,
};
use futures::future::{Either, select};
use tokio::sync::Semaphore;

use crate::choice::Proven;
use crate::dates::Day;
use crate::fault::Fault;
use crate::key::{Key, Use};
use crate::options::Pkcs11Options;
use crate::token::{Connected, Token};
use crate::way::Tools;

/// One token of one module as a provider of key-encryption keys.
///
/// Nothing is loaded before the first call. Calls run off the executor, at most [`Pkcs11Options::max_sessions`] at a time,
/// and are given up after [`Pkcs11Options::call_timeout`].
#[derive(Debug, Clone)]
pub struct Pkcs11Provider {
    shared: Arc<Shared>,
    calls: Arc<Semaphore>,
}

/// What calls on other threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Pkcs11Options,
    pub(crate) token: Token,
    pub(crate) runtime: Arc<dyn Runtime>,
    crypto: &'static CryptoProvider,
    /// The way that was seen to work for a key.
    pub(crate) proven: Mutex<BTreeMap<KeyId, Proven>>,
}

impl Pkcs11Provider {
    /// The token that the options describe.
    pub fn new(options: Pkcs11Options, runtime: Arc<dyn Runtime>) -> Self {
        let calls = Arc::new(Semaphore::new(options.max_sessions.clamp(1, Semaphore::MAX_PERMITS)));
        let shared = Shared {
            token: Token::new(&options),
            options,
            runtime,
            crypto: CryptoProvider::best(),
            proven: Mutex::default(),
        };
        Self { shared: Arc::new(shared), calls }
    }

    /// Asks the token on another thread, for as long as a call may take.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl Fn(&Shared, Connected<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, KekError> {
        let shared = Arc::clone(&self.shared);
        let runtime = Arc::clone(&self.shared.runtime);
        let calls = Arc::clone(&self.calls);
        let call = async {
            // Held by the thread until the module returns, also when nobody waits any more.
            let permit = calls.acquire_owned().await;
            let there = move || {
                let _permit = permit;
                shared.token.ask(|connected| work(&shared, connected))
            };
            compute(&*runtime, there)
                .await
                .unwrap_or_else(|| Err(KekError::unavailable("the runtime is shutting down")))
        };
        let timeout = self.shared.options.call_timeout;
        match select(pin!(call), self.shared.runtime.sleep(timeout)).await {
            Either::Left((done, _)) => done,
            Either::Right(((), _)) => Err(KekError::unavailable(format!(
                "the PKCS#11 module {} did not answer within {} s; the thread in it can't be ended",
                self.shared.options.module.display(),
                timeout.as_secs_f32()
            ))),
        }
    }
}

#[async_trait]
impl KekProvider for Pkcs11Provider {
    fn accepts(&self, key: &KeyId) -> bool {
        key.scheme() == Scheme::Pkcs11 && key.host() == self.shared.token.label()
    }

    async fn describe(&self, key: &KeyId, _identity: &Identity) -> Result<KeyDescription, KekError> {
        self.check_token(key)?;
        let id = key.clone();
        self.ask(move |shared, at| shared.describe(at, &id)).await
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        _identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        self.check_token(key)?;
        versioned(key)?;
        let id = key.clone();
        let secret =
            Secret::from_slice(secret.expose()).expect("it has the length of a secret of its length");
        self.ask(move |shared, at| shared.wrap(at, &id, alg, &secret)).await
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        _identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        self.check_token(key)?;
        versioned(key)?;
        let (id, value) = (key.clone(), value.to_vec());
        self.ask(move |shared, at| shared.unwrap(at, &id, alg, &value)).await
    }
}

impl Pkcs11Provider {
    fn check_token(&self, key: &KeyId) -> Result<(), KekError> {
        if self.accepts(key) {
            return Ok(());
        }
        Err(KekError::invalid(format!("{key} is not on the token {}", self.shared.token.label())))
    }
}

fn versioned(key: &KeyId) -> Result<(), KekError> {
    match key.version() {
        Some(_) => Ok(()),
        None => Err(KekError::invalid(format!("{key} has no version (;id=…); describe gives the newest"))),
    }
}

impl Shared {
    pub(crate) fn tools(&self) -> Tools<'_> {
        Tools { crypto: self.crypto, random: self.runtime.random() }
    }

    fn describe(&self, at: Connected<'_>, id: &KeyId) -> Result<KeyDescription, Fault> {
        let key = Key::find(at, id)?;
        let (algorithm, uses) = self.choose(at, &key)?;
        let operation = |usage: &Use| match usage {
            Use::Wrap => "wrapKey".to_owned(),
            Use::Unwrap => "unwrapKey".to_owned(),
        };
        Ok(KeyDescription {
            kind: key.kind.clone(),
            algorithm,
            enabled: true,
            not_before: key.start.begin(),
            expires: key.end.end(),
            operations: uses.iter().map(operation).collect(),
            protection: key.protection(),
            created: None,
            key: key.id,
        })
    }

    fn wrap(
        &self,
        at: Connected<'_>,
        id: &KeyId,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, Fault> {
        let key = Key::find(at, id)?;
        let ways = self.ways(at, &key, alg, Use::Wrap)?;
        self.valid_now(&key)?;
        let mut failure = None;
        for way in ways {
            let wrapped = self.prove(at, &key, way).and_then(|()| way.wrap(at, &key, self.tools(), secret));
            match wrapped {
                Ok(value) => return Ok(WrappedKey { key: key.id, alg, value }),
                Err(fault) => failure = Some(fault),
            }
        }
        Err(failure.unwrap_or_else(|| Fault::unavailable("the token did not wrap")))
    }

    fn unwrap(
        &self,
        at: Connected<'_>,
        id: &KeyId,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, Fault> {
        let key = Key::find(at, id)?;
        let ways = self.ways(at, &key, alg, Use::Unwrap)?;
        let mut failure = None;
        for way in &ways {
            match way.unwrap(at, &key, value) {
                Ok(Some(secret)) => return Ok(secret),
                Ok(None) => return Err(damaged()),
                Err(fault) => failure = Some(fault),
            }
        }
        // The key, the token or the data? Where a fresh wrap unwraps, it is the data.
        if ways.iter().any(|way| self.round_trip(at, &key, *way).is_ok()) {
            return Err(damaged());
        }
        Err(failure.unwrap_or_else(|| Fault::unavailable("the token did not unwrap")))
    }

    /// Tokens keep the dates and look at them no further.
    fn valid_now(&self, key: &Key) -> Result<(), Fault> {
        if key.start == Day::Unreadable || key.end == Day::Unreadable {
            return Err(Fault::Doubtful(KekError::invalid(format!(
                "{} has a start or end date that its token can't read back; make a key without dates",
                key.id
            ))));
        }
        let now = self.runtime.now().wall;
        let denied = |reason, what| {
            Err(Fault::Final(KekError::denied(reason).with_message(format!("{} {what}", key.id))))
        };
        if key.start.begin().is_some_and(|start| now < start) {
            return denied(DenyReason::NotYetValid, "is not valid yet (CKA_START_DATE)");
        }
        if key.end.end().is_some_and(|end| end <= now) {
            return denied(DenyReason::Expired, "has expired (CKA_END_DATE)");
        }
        Ok(())
    }
}

fn damaged() -> Fault {
    Fault::invalid("the wrapped key is damaged, or was wrapped for another key")
}
