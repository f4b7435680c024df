//! Renewal: the log is read, the provider asked, and the answer decides over the lease.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::derive::Anchor;
use bulla_kek::{KekError, KekErrorKind, KeyDescription, LeaseOptions, Now, Probe};
use futures::future::{Either, select};

use super::versions::Versions;
use super::{Failure, Gate, State, bound, lease_ended};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{self, RawRecord, RecordMark};
use crate::store::StoreInner;
use crate::unlock::{Describe, Expected, Locked, Unlocked, unlock};

impl Gate {
    /// Asks the log and the provider, and says what came of it. The caller holds `renewing`.
    pub(super) async fn renew(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        let started = store.parts.runtime.now();
        let renewed = self.try_renew(store).await;
        store.parts.events.renewed(started, &renewed, self.asked());
        renewed
    }

    async fn try_renew(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        let (mut raw, mut read_started) = self.read_log(store).await?;
        let (is_due, known) = self.what_to_describe(store);
        let describe = if is_due { Describe::Newest { known: &known } } else { Describe::InUse };
        let probe = self.start_probe(store);
        let mut outcome = self.unlock(store, &raw, read_started, probe, describe).await;
        // Before "denied" counts, the log is read once more: another node may have rotated.
        if let Err(Locked::Kek(error)) = &outcome
            && matches!(error.kind(), KekErrorKind::Denied(_))
            && let Some((newer, started)) = self.read_log_after(store, raw.mark).await
        {
            raw = newer;
            read_started = started;
            outcome = self.unlock(store, &raw, read_started, probe, describe).await;
        }
        // Nor does it count where only a record that the store's root did not sign names the denied key.
        if let Err(Locked::Kek(error)) = &outcome
            && matches!(error.kind(), KekErrorKind::Denied(_))
            && let Some(other) = self.second_opinion(store, &raw, read_started, probe).await
        {
            outcome = other;
        }
        match outcome {
            Ok(keys) => self.install(store, keys, raw, Some(probe)),
            Err(locked) => Err(self.fail(store, locked, probe)),
        }
    }

    /// What the record that authenticated last says to a denial of the key that `raw`, a newer one, names. `None`: nothing
    /// else. The key's owner decides over the lease, not who can write the bucket: a denial of the known record's key counts.
    async fn second_opinion(
        &self,
        store: &StoreInner,
        raw: &RawRecord,
        read_started: Now,
        probe: Probe,
    ) -> Option<Result<Unlocked, Locked>> {
        let known = self.lock().newest.clone();
        if known.mark == raw.mark {
            return None;
        }
        let forged = || {
            let message = format!("log record {} is not signed by this store's root", raw.mark.number);
            Err(Locked::Other(Error::corrupt(message)))
        };
        let expected = self.expected(store);
        match self.unlock(store, &known, read_started, probe, Describe::InUse).await {
            // A true record, and a key that was given back a moment ago.
            Ok(keys) => Some(keys.follow(raw, expected, read_started).or_else(|_| forged())),
            Err(Locked::Kek(error)) if matches!(error.kind(), KekErrorKind::Denied(_)) => None,
            // Nobody to ask now: what is live still knows its root.
            Err(_) => {
                let keys = self.live(store).ok().flatten()?;
                keys.follow(raw, expected, read_started).is_err().then(forged)
            }
        }
    }

    /// The newest record, and before it was read.
    async fn read_log(&self, store: &StoreInner) -> Result<(RawRecord, Now)> {
        let (known, last_read) = {
            let state = self.lock();
            (state.newest.clone(), state.keys.as_ref().map(|keys| keys.view.read_started))
        };
        let read_started = store.parts.runtime.now();
        match self.read_after(store, known.mark).await {
            Ok(Some(raw)) => Ok((raw, read_started)),
            Ok(None) => Ok((known, read_started)),
            Err(error) => match last_read {
                // The key's owner decides over the lease, not the bucket: it can be renewed on the known record, whose
                // view stays as old as it is. Writers look at its age.
                Some(last_read) if error.kind() != ErrorKind::Corrupt => Ok((known, last_read)),
                Some(_) => Err(self.fail(store, Locked::Other(error), self.start_probe(store))),
                // Nothing is live, and nobody was asked: whoever comes next may try again.
                None => {
                    self.with(store, |state, now| state.failure = Some(Failure::new(now, &error)));
                    Err(error)
                }
            },
        }
    }

    async fn read_log_after(&self, store: &StoreInner, mark: RecordMark) -> Option<(RawRecord, Now)> {
        let read_started = store.parts.runtime.now();
        let newer = self.read_after(store, mark).await.ok()??;
        Some((newer, read_started))
    }

    /// What follows `mark` in the log, but not for ever: a bucket that hangs must not keep a lease from being renewed.
    pub(super) async fn read_after(&self, store: &StoreInner, mark: RecordMark) -> Result<Option<RawRecord>> {
        let limit = (self.revocation_bound() / 4).max(Duration::from_secs(1));
        let read = log::read_after(&store.bucket, mark);
        match select(pin!(read), store.parts.runtime.sleep(limit)).await {
            Either::Left((read, _)) => read,
            Either::Right(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the object store did not answer within {limit:?}"),
            )),
        }
    }

    fn start_probe(&self, store: &StoreInner) -> Probe {
        self.with(store, |state, now| state.lease.start_probe(now))
    }

    /// What to ask beside the next unwrap: once per interval, which version of the key is the newest.
    fn what_to_describe(&self, store: &StoreInner) -> (bool, Vec<Option<KeyDescription>>) {
        self.with(store, |state, now| {
            let is_due = |versions: &Versions| versions.is_due(&store.parts, state.bound, now);
            (state.versions.iter().any(is_due), state.keks.clone())
        })
    }

    /// Asks the provider, but not for ever: an answer that takes longer than the bound would not count anyway, and a
    /// provider that hangs must not keep the keeper from wiping what the lease no longer covers.
    async fn unlock(
        &self,
        store: &StoreInner,
        raw: &RawRecord,
        read_started: Now,
        probe: Probe,
        describe: Describe<'_>,
    ) -> Result<Unlocked, Locked> {
        let limit = self.with(store, |state, now| {
            let bound = state.bound;
            state.lease.remaining(now).map_or(bound, |left| left.max(bound / 8))
        });
        let (providers, expected) = (&store.parts.providers, self.expected(store));
        let asked = unlock(providers, raw, expected, read_started, probe.sent_at(), describe);
        match select(pin!(asked), store.parts.runtime.sleep(limit)).await {
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
        let installed =
            self.with(store, |state, now| state.install(store, keys, raw, probe, self.outage_grace, now));
        self.changed.notify_one();
        installed
    }

    /// Notes a failed renewal. A denial wipes at once.
    fn fail(&self, store: &StoreInner, locked: Locked, probe: Probe) -> Error {
        let random = store.parts.runtime.random();
        let error = self.with(store, |state, now| {
            match &locked {
                Locked::Kek(error) => match error.kind() {
                    KekErrorKind::Denied(reason) => {
                        state.lease.denied(reason, now, random);
                        state.wipe(store);
                    }
                    _ => state.lease.unavailable(probe, error.retry_after(), now, random),
                },
                // A damaged log renews nothing; what is unwrapped lives until its lease ends.
                Locked::Other(_) => state.lease.blocked(probe, now, random),
            }
            let error = Error::from(locked);
            state.failure = Some(Failure::new(now, &error));
            error
        });
        self.changed.notify_one();
        error
    }
}

impl State {
    fn install(
        &mut self,
        store: &StoreInner,
        mut keys: Unlocked,
        raw: RawRecord,
        probe: Option<Probe>,
        outage_grace: Duration,
        now: Now,
    ) -> Result<Arc<Unlocked>> {
        self.bound = bound(&keys);
        self.newest = raw;
        self.newest_read = keys.view.read_started;
        self.lease.set_options(LeaseOptions { revocation_bound: self.bound, outage_grace });
        if let Some(probe) = probe {
            if !self.lease.granted(probe, now) {
                self.wipe(store);
                let error = Error::new(
                    ErrorKind::Unavailable,
                    "the key provider's answer took longer than the revocation bound, or a clock was set meanwhile; retry",
                );
                self.failure = Some(Failure::new(now, &error));
                return Err(error);
            }
            self.heard(&store.parts, &mut keys, now);
            self.failure = None;
        } else if self.lease.usable(now).is_err() {
            self.wipe(store);
            return Err(lease_ended());
        }
        if self.closed {
            return Err(Error::invalid("the store was closed; open it again"));
        }
        // Not a use by itself: a renewal for nobody must not be the reason for the next.
        let keys = Arc::new(keys);
        self.keys = Some(Arc::clone(&keys));
        Ok(keys)
    }
}
