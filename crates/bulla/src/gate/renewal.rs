//! Renewal: the log is read, the provider asked, and the answer decides over the lease.

use std::sync::Arc;

use bulla_envelope::derive::Anchor;
use bulla_kek::{KekError, KekErrorKind, LeaseOptions, Now, Probe};
use futures::future::{Either, select};

use super::{Failure, Gate, bound};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{self, RawRecord, RecordMark};
use crate::store::StoreInner;
use crate::unlock::{Expected, Locked, Unlocked, unlock};

impl Gate {
    /// Asks the log and the provider, and says what came of it. The caller holds `renewing`.
    pub(super) async fn renew(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        let before = self.key_state(store);
        let started = store.parts.runtime.now();
        let renewed = self.try_renew(store).await;
        let asked = self.lock().newest.kids();
        store.parts.events.renewed(started, &renewed, asked, &before, &self.key_state(store));
        renewed
    }

    async fn try_renew(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        let (mut raw, mut read_started) = self.read_log(store).await?;
        let probe = self.start_probe(store);
        let mut outcome = self.unlock(store, &raw, read_started, probe).await;
        // Before "denied" counts, the log is read once more: another node may have rotated.
        if let Err(Locked::Kek(error)) = &outcome
            && matches!(error.kind(), KekErrorKind::Denied(_))
            && let Some((newer, started)) = self.read_log_after(store, raw.mark).await
        {
            raw = newer;
            read_started = started;
            outcome = self.unlock(store, &raw, read_started, probe).await;
        }
        // Nor does it count where only a record that the store's root did not sign names the denied key.
        if let Err(Locked::Kek(error)) = &outcome
            && matches!(error.kind(), KekErrorKind::Denied(_))
            && self.is_forged(store, &raw, read_started, probe).await
        {
            let message = format!("log record {} is not signed by this store's root", raw.mark.number);
            outcome = Err(Locked::Other(Error::corrupt(message)));
        }
        match outcome {
            Ok(keys) => self.install(store, keys, raw, Some(probe)),
            Err(locked) => Err(self.fail(store, locked, probe)),
        }
    }

    /// Whether `raw` is newer than what authenticated last, and the root of that did not sign it. `false` also where that
    /// root can't be had any more: then the key really is denied.
    async fn is_forged(&self, store: &StoreInner, raw: &RawRecord, read_started: Now, probe: Probe) -> bool {
        let known = self.lock().newest.clone();
        if known.mark == raw.mark {
            return false;
        }
        let live = self.live(store).ok().flatten();
        match live {
            Some(keys) => keys.follow(raw, self.expected(store), read_started).is_err(),
            None => match self.unlock(store, &known, read_started, probe).await {
                Ok(keys) => keys.follow(raw, self.expected(store), read_started).is_err(),
                Err(_) => false,
            },
        }
    }

    async fn read_log(&self, store: &StoreInner) -> Result<(RawRecord, Now)> {
        let (known, last_read) = {
            let state = self.lock();
            (state.newest.clone(), state.keys.as_ref().map(|keys| keys.view.read_started))
        };
        let read_started = store.parts.runtime.now();
        match log::read_after(&store.bucket, known.mark).await {
            Ok(Some(raw)) => Ok((raw, read_started)),
            Ok(None) => Ok((known, read_started)),
            Err(error) => match last_read {
                // The key's owner decides over the lease, not the bucket: it can be renewed on the known record, whose
                // view stays as old as it is. Writers look at its age.
                Some(last_read) if error.kind() != ErrorKind::Corrupt => Ok((known, last_read)),
                _ => {
                    self.remember(store, &error);
                    Err(error)
                }
            },
        }
    }

    async fn read_log_after(&self, store: &StoreInner, mark: RecordMark) -> Option<(RawRecord, Now)> {
        let read_started = store.parts.runtime.now();
        let newer = log::read_after(&store.bucket, mark).await.ok()??;
        Some((newer, read_started))
    }

    fn start_probe(&self, store: &StoreInner) -> Probe {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        state.lease.start_probe(now)
    }

    /// Asks the provider, but not for ever: an answer that takes longer than the bound would not count anyway, and a
    /// provider that hangs must not keep the keeper from wiping what the lease no longer covers.
    async fn unlock(
        &self,
        store: &StoreInner,
        raw: &RawRecord,
        read_started: Now,
        probe: Probe,
    ) -> Result<Unlocked, Locked> {
        let limit = {
            let mut state = self.lock();
            let bound = state.bound;
            let now = store.parts.runtime.now();
            state.lease.remaining(now).map_or(bound, |left| left.max(bound / 8))
        };
        let asked = unlock(&store.parts.providers, raw, self.expected(store), read_started, probe.sent_at());
        match select(std::pin::pin!(asked), store.parts.runtime.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(Locked::Kek(KekError::unavailable(format!(
                "the key provider did not answer within {limit:?}"
            )))),
        }
    }

    pub(super) fn expected(&self, store: &StoreInner) -> Expected {
        let anchor: Anchor = store.anchor;
        Expected { anchor: Some(anchor), floor: Some(self.mark()) }
    }

    /// Makes `keys` the ones in use. With a probe they also renew the lease.
    pub(super) fn install(
        &self,
        store: &StoreInner,
        keys: Unlocked,
        raw: RawRecord,
        probe: Option<Probe>,
    ) -> Result<Arc<Unlocked>> {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        let bound = bound(&keys);
        state.bound = bound;
        state.newest = raw;
        state.lease.set_options(LeaseOptions { revocation_bound: bound, outage_grace: self.outage_grace });
        if let Some(probe) = probe {
            if !state.lease.granted(probe, now) {
                state.wipe(store);
                let error = Error::new(
                    ErrorKind::Unavailable,
                    "the key provider's answer took longer than the revocation bound, or a clock was set meanwhile; retry",
                );
                state.failure = Some(Failure::new(now, &error));
                return Err(error);
            }
            state.kek.clone_from(&keys.kek);
            state.failure = None;
        } else if state.lease.usable(now).is_err() {
            state.wipe(store);
            return Err(Error::new(ErrorKind::Unavailable, "the lease ended meanwhile; retry"));
        }
        if state.closed {
            return Err(Error::invalid("the store was closed; open it again"));
        }
        state.lease.note_use(now);
        let keys = Arc::new(keys);
        state.keys = Some(Arc::clone(&keys));
        drop(state);
        self.changed.notify_one();
        Ok(keys)
    }

    /// Notes a failed renewal. A denial wipes at once.
    fn fail(&self, store: &StoreInner, locked: Locked, probe: Probe) -> Error {
        let random = store.parts.runtime.random();
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        let error = match locked {
            Locked::Kek(error) => {
                match error.kind() {
                    KekErrorKind::Denied(reason) => {
                        state.lease.denied(reason, now, random);
                        state.wipe(store);
                    }
                    _ => state.lease.unavailable(probe, error.retry_after(), now, random),
                }
                Error::from(error)
            }
            // A damaged log renews nothing; what is unwrapped lives until its lease ends.
            Locked::Other(error) => {
                state.lease.unavailable(probe, None, now, random);
                error
            }
        };
        state.failure = Some(Failure::new(now, &error));
        drop(state);
        self.changed.notify_one();
        error
    }

    fn remember(&self, store: &StoreInner, error: &Error) {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        state.failure = Some(Failure::new(now, error));
    }
}
