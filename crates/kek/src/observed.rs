//! A provider whose calls are seen by somebody: for events, evidence, counting. Whoever watches forwards nothing himself, so
//! that no method of the provider can be forgotten.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bulla_envelope::secret::Secret;

use crate::error::KekError;
use crate::identity::Identity;
use crate::key_id::KeyId;
use crate::provider::{KekProvider, KeyDescription, WrapAlgorithm, WrappedKey};

/// What a provider is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a provider does these")]
pub enum Operation {
    /// What a key is.
    Describe,
    /// To encrypt a secret.
    Wrap,
    /// To decrypt one.
    Unwrap,
}

/// Who sees the calls to a provider.
pub trait Observer: Debug + Send + Sync {
    /// A call under way. It is dropped at the call's end, also where whoever made the call gives it up.
    type Call: ObservedCall;

    /// A call begins.
    fn asked(&self, operation: Operation, key: &KeyId, identity: &Identity) -> Self::Call;
}

/// A call under way.
pub trait ObservedCall: Send {
    /// The call was answered: with the key, and the version that the provider used or described, or with an error. No
    /// secret is shown.
    fn answered(&mut self, answer: Result<&KeyId, &KekError>);
}

/// A provider, and who sees the calls to it.
#[derive(Debug)]
pub struct Observed<O> {
    provider: Arc<dyn KekProvider>,
    observer: O,
}

impl<O: Observer> Observed<O> {
    /// Shows every call to `provider` to `observer`.
    pub fn new(provider: Arc<dyn KekProvider>, observer: O) -> Self {
        Self { provider, observer }
    }

    /// Who sees the calls.
    pub fn observer(&self) -> &O {
        &self.observer
    }
}

#[async_trait]
impl<O: Observer> KekProvider for Observed<O> {
    fn accepts(&self, key: &KeyId) -> bool {
        self.provider.accepts(key)
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        let mut call = self.observer.asked(Operation::Describe, key, identity);
        let answer = self.provider.describe(key, identity).await;
        call.answered(answer.as_ref().map(|description| &description.key));
        answer
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        let mut call = self.observer.asked(Operation::Wrap, key, identity);
        let answer = self.provider.wrap_key(key, identity, alg, secret).await;
        call.answered(answer.as_ref().map(|wrapped| &wrapped.key));
        answer
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        let mut call = self.observer.asked(Operation::Unwrap, key, identity);
        let answer = self.provider.unwrap_key(key, identity, alg, value).await;
        call.answered(answer.as_ref().map(|_| key));
        answer
    }

    fn display_uri(&self, key: &KeyId) -> String {
        self.provider.display_uri(key)
    }
}
