//! Wrapping and unwrapping DEKs: under a store key, here and without asking anybody, or in direct mode by the KEK itself.
//!
//! A wrap is used only if the authenticated log names its key (FORMAT-P7); another one is refused and nobody is asked. A
//! wrap that its key does not open is damage of one object, never a verdict on the key (FORMAT-P9). A KEK that is *denied*
//! is a verdict: the gate asks again at once, and what was asked for is `Revoked`.

use bulla_envelope::envelope::{STORE_KEY_PREFIX, Wrap};
use bulla_envelope::ids::StoreKeyId;
use bulla_envelope::record::{KekEntry, KekState, Mode};
use bulla_envelope::secret::{Dek, Secret};
use bulla_kek::{Identity, KekError, KekErrorKind, KeyId, WrapAlgorithm};
use futures::future::{Either, select};

use crate::error::{Error, ErrorKind, Result};
use crate::party;
use crate::store::StoreInner;
use crate::unlock::Unlocked;

/// What became of a wrapped DEK.
#[derive(Debug)]
pub(crate) enum Unwrapped {
    /// The authenticated log does not name the key: nobody was asked.
    UnknownKey,
    /// The key does not open it.
    Damaged,
    /// The DEK.
    Dek(Dek),
}

impl Unlocked {
    /// The kid that new envelopes are wrapped under.
    pub(crate) fn active_kid(&self) -> String {
        match self.active_kek() {
            Some(kek) => kek.kid.clone(),
            None => store_key_kid(&self.active_store_key),
        }
    }

    /// Whether `kid` is the one that new envelopes are wrapped under.
    pub(crate) fn is_active(&self, kid: &str) -> bool {
        kid == self.active_kid()
    }

    /// In direct mode the KEK that wraps DEKs.
    fn active_kek(&self) -> Option<&KekEntry> {
        let record = &self.view.record;
        match record.mode {
            Mode::Direct => record.keks.iter().find(|kek| kek.state == KekState::Active),
            _ => None,
        }
    }

    /// In direct mode the KEK that made `wrap`, active or retiring.
    fn kek_of(&self, wrap: &Wrap) -> Option<&KekEntry> {
        let record = &self.view.record;
        match record.mode {
            Mode::Direct => record.keks.iter().find(|kek| kek.kid == wrap.kid && kek.alg == wrap.alg),
            _ => None,
        }
    }

    /// Whether the log names the key that made `wrap`.
    pub(crate) fn names(&self, wrap: &Wrap) -> bool {
        match wrap.store_key() {
            Some(id) => self.store_key(&id).is_some(),
            None => self.kek_of(wrap).is_some(),
        }
    }

    /// As whom the KEK that wraps DEKs is used: in direct mode there is one party.
    pub(crate) fn identity(&self) -> Result<Identity> {
        party::identity(&self.view.record, 0)
    }
}

impl StoreInner {
    /// Wraps a DEK under the key that is active in the view of `keys`.
    ///
    /// # Errors
    /// In direct mode those of the key provider.
    pub(crate) async fn wrap_dek(&self, keys: &Unlocked, dek: &Dek) -> Result<Wrap> {
        let Some(kek) = keys.active_kek() else {
            let value = keys.active_store_key().wrap_key(dek.expose());
            return Ok(Wrap::under_store_key(&keys.active_store_key, value));
        };
        let (key, alg) = parse(kek)?;
        let provider = self.parts.providers.provider_for(&key)?;
        let identity = keys.identity()?;
        let secret = Secret::from_slice(dek.expose())
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a DEK is 32 bytes"))?;
        let wrapped = self.ask(keys, kek, provider.wrap_key(&key, &identity, alg, &secret)).await?;
        let wrap = Wrap { kid: wrapped.key.to_string(), alg: wrapped.alg.to_string(), value: wrapped.value };
        // Whatever else the provider used, readers would not ask for it.
        if wrap.kid != kek.kid || wrap.alg != kek.alg {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the key provider wrapped with {} instead of {}", wrap.kid, kek.kid),
            ));
        }
        Ok(wrap)
    }

    /// Unwraps a DEK by the key that made the wrap, if the view of `keys` names it.
    ///
    /// # Errors
    /// In direct mode those of the key provider, but for a damaged wrap.
    pub(crate) async fn unwrap_dek(&self, keys: &Unlocked, wrap: &Wrap) -> Result<Unwrapped> {
        if let Some(id) = wrap.store_key() {
            return Ok(match keys.store_key(&id).map(|key| key.unwrap_key(&wrap.value)) {
                None => Unwrapped::UnknownKey,
                Some(Err(_)) => Unwrapped::Damaged,
                Some(Ok(dek)) => Unwrapped::Dek(Dek::from(dek)),
            });
        }
        let Some(kek) = keys.kek_of(wrap) else { return Ok(Unwrapped::UnknownKey) };
        let (key, alg) = parse(kek)?;
        let provider = self.parts.providers.provider_for(&key)?;
        let identity = keys.identity()?;
        match self.ask(keys, kek, provider.unwrap_key(&key, &identity, alg, &wrap.value)).await {
            Ok(dek) => Ok(Unwrapped::Dek(Dek::from(dek))),
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(Unwrapped::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Waits for the provider's answer, but no longer than the revocation bound. Where it denies the KEK that the lease
    /// hangs on, the gate asks again at once.
    async fn ask<T>(
        &self,
        keys: &Unlocked,
        kek: &KekEntry,
        call: impl Future<Output = Result<T, KekError>>,
    ) -> Result<T> {
        let sent = self.parts.runtime.now();
        let limit = self.gate.revocation_bound();
        let answer = match select(std::pin::pin!(call), self.parts.runtime.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(KekError::unavailable("the key provider did not answer in time")),
        };
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if matches!(error.kind(), KekErrorKind::Denied(_)) && keys.opened_by.contains(&kek.kid) {
            // Its answer decides over the lease; this request fails either way.
            let _ = self.gate.ask_again(self, sent).await;
        }
        Err(error.into())
    }
}

fn parse(kek: &KekEntry) -> Result<(KeyId, WrapAlgorithm)> {
    let key = kek.kid.parse();
    let key =
        key.map_err(|error| Error::corrupt("a key id in the log can't be parsed").with_source(error))?;
    let alg = kek.alg.parse();
    let alg = alg.map_err(|error| Error::corrupt("the log names an unknown algorithm").with_source(error))?;
    Ok((key, alg))
}

pub(crate) fn store_key_kid(id: &StoreKeyId) -> String {
    format!("{STORE_KEY_PREFIX}{id}")
}
