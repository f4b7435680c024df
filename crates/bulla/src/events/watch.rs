//! The one place where calls to key providers are seen: around every provider that an engine was given.

use std::sync::Arc;

use bulla_envelope::secret::Secret;
use bulla_kek::{
    Identity, KekError, KekProvider, KeyDescription, KeyId, Now, WrapAlgorithm, WrappedKey, async_trait,
};

use super::event::outcome_of;
use super::{Action, Event, Events, Outcome};

/// A provider whose calls are events.
#[derive(Debug)]
pub(super) struct Watched {
    provider: Arc<dyn KekProvider>,
    events: Arc<Events>,
}

impl Watched {
    pub(super) fn new(provider: Arc<dyn KekProvider>, events: Arc<Events>) -> Self {
        Self { provider, events }
    }

    fn call(&self, action: Action, key: &KeyId, identity: &Identity) -> Call<'_> {
        // No answer, until there is one: a call that its caller gives up drops this as it is.
        let mut event = self.events.event(action, Outcome::Unavailable);
        event.keys = vec![key.clone()];
        event.identity = Some(identity.clone());
        Call { events: &self.events, event, sent: self.events.now() }
    }
}

/// A call under way; its end, whatever it is, is the event.
struct Call<'a> {
    events: &'a Events,
    event: Event,
    sent: Now,
}

impl Call<'_> {
    fn answered<T>(&mut self, answer: &Result<T, KekError>) {
        match answer {
            Ok(_) => self.event.outcome = Outcome::Done,
            Err(error) => {
                self.event.outcome = outcome_of(error);
                self.event.reason = error.deny_reason();
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.event.at = self.events.now().wall;
        self.event.latency = self.events.since(self.sent);
        self.events.emit(&self.event);
    }
}

#[async_trait]
impl KekProvider for Watched {
    fn accepts(&self, key: &KeyId) -> bool {
        self.provider.accepts(key)
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        let mut call = self.call(Action::Describe, key, identity);
        let answer = self.provider.describe(key, identity).await;
        if let Ok(description) = &answer {
            // Asked without a version, it is the answer that names one.
            call.event.keys = vec![description.key.clone()];
        }
        call.answered(&answer);
        answer
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        let mut call = self.call(Action::Wrap, key, identity);
        let answer = self.provider.wrap_key(key, identity, alg, secret).await;
        call.answered(&answer);
        answer
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        let mut call = self.call(Action::Unwrap, key, identity);
        let answer = self.provider.unwrap_key(key, identity, alg, value).await;
        call.answered(&answer);
        answer
    }

    fn display_uri(&self, key: &KeyId) -> String {
        self.provider.display_uri(key)
    }
}
