//! Rewrap: a new store key, and every DEK wrapped under it. Data is not touched, and reads and writes go on.
//!
//! ```text
//! record n      store key 1 active
//! record n+1    store key 2 active, 1 retiring       new DEKs are wrapped under 2; both unwrap
//!               wait R                               every node has seen n+1, or acknowledges nothing before it does
//!               sweep                                every DEK under 1 is wrapped under 2
//!               count                                every envelope is opened: 0 under 1
//! record n+2    store key 2 active, 1 retired        still unwraps; gc shreds it later
//! ```
//!
//! Killed anywhere and run again, it goes on where it was. In direct mode the same sweep ends a rotation: the KEKs are what
//! is retired, and a record without them ends it.

use std::time::Duration;

use bulla_envelope::ids::StoreKeyId;
use bulla_envelope::job::Sweep;
use bulla_envelope::record::{KekState, LogRecord, MAX_STORE_KEYS, Mode, StoreKeyEntry, StoreKeyState};
use bulla_envelope::secret::StoreKey;
use bulla_kek::Now;

use crate::count::Count;
use crate::deks::store_key_kid;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Action, SweepCount};
use crate::gc::IN_FLIGHT;
use crate::store::{Store, StoreInner};
use crate::sweep::{Observer, SweepEvent, SweepOptions, SweepPhase, Work};
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 8;

/// Sweeps until a count is zero. More than one is needed only after a writer died at the wrong moment, or where somebody
/// put an old job object back.
const SWEEPS: usize = 4;

/// What a rewrap did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrap {
    /// The keys that DEKs were wrapped under before: retired now.
    pub from: Vec<String>,
    /// The key that they are under now.
    pub to: String,
    /// Whether it had been begun before, here or elsewhere.
    pub resumed: bool,
    /// Envelopes that this process wrapped again.
    pub rewrapped: u64,
    /// What there is now.
    pub count: Count,
}

impl Store {
    /// Replaces the store key: every DEK is wrapped again, under a new one. Takes at least the revocation bound. One that
    /// was interrupted, here or on another node, is gone on with; several nodes may share one by all calling this.
    ///
    /// In direct mode, where DEKs are wrapped by the KEK, it finishes what a rotation left to do.
    ///
    /// # Errors
    /// `Corrupt` where an envelope does not open: nothing is retired until it is restored or deleted. `Invalid` in direct
    /// mode where nothing is left to do. `Conflict`, `Revoked`, `Unavailable`, `Throttled`: run it again. Whatever the
    /// error, the store stays readable.
    ///
    /// # Cancel safety
    /// A dropped rewrap is an interrupted one: run it again.
    pub async fn rewrap(
        &self,
        options: SweepOptions,
        observe: impl Fn(SweepEvent) + Send + Sync,
    ) -> Result<Rewrap> {
        self.inner().rewrap(&options, &observe).await
    }
}

/// Which keys a sweep is to make unused.
#[derive(Debug)]
pub(crate) struct Target {
    /// The key to wrap under.
    to: Named,
    /// Those that are retiring.
    from: Vec<Named>,
    /// When this process saw the record that says so.
    seen: Now,
}

/// A key, and since when it has its state: in direct mode an old KEK can come back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    kid: String,
    since: u64,
}

impl Target {
    /// `None`: nothing is retiring.
    pub(crate) fn of(keys: &Unlocked, seen: Now) -> Option<Self> {
        let record = &keys.view.record;
        let (active, from): (Vec<Named>, Vec<Named>) = match record.mode {
            Mode::Direct => split(record.keks.iter().map(|kek| {
                let named = Named { kid: kek.kid.clone(), since: kek.since };
                (named, kek.state == KekState::Active, kek.state == KekState::Retiring)
            })),
            _ => split(record.store_keys.iter().map(|key| {
                let named = Named { kid: store_key_kid(&key.id), since: key.since };
                (named, key.state == StoreKeyState::Active, key.state == StoreKeyState::Retiring)
            })),
        };
        let to = active.into_iter().next()?;
        (!from.is_empty()).then_some(Self { to, from, seen })
    }

    /// The name of the job that nodes share. Another time to the same key is another job.
    fn job(&self) -> String {
        format!("sweep:{}:{}", self.to.since, self.to.kid)
    }

    fn kids(&self) -> Vec<String> {
        self.from.iter().map(|named| named.kid.clone()).collect()
    }

    fn has(&self, kid: &str, since: u64) -> bool {
        self.from.iter().any(|named| named.kid == kid && named.since == since)
    }
}

fn split(keys: impl Iterator<Item = (Named, bool, bool)>) -> (Vec<Named>, Vec<Named>) {
    let (mut active, mut retiring) = (Vec::new(), Vec::new());
    for (named, is_active, is_retiring) in keys {
        if is_active {
            active.push(named);
        } else if is_retiring {
            retiring.push(named);
        }
    }
    (active, retiring)
}

impl StoreInner {
    async fn rewrap(&self, options: &SweepOptions, observe: Observer<'_>) -> Result<Rewrap> {
        let (target, resumed) = self.begin_rewrap().await?;
        self.sweep_to(&target, resumed, options, observe).await
    }

    /// The rewrap that is under way, or a new one.
    async fn begin_rewrap(&self) -> Result<(Target, bool)> {
        for attempt in 0..ATTEMPTS {
            let keys = self.gate.refresh(self).await?;
            if let Some(target) = Target::of(&keys, self.parts.runtime.now()) {
                return Ok((target, true));
            }
            let record = &keys.view.record;
            if record.mode == Mode::Direct {
                return Err(Error::invalid(
                    "the store is in direct mode: its data keys are wrapped by the KEK itself, so there is no store key to \
                     replace; `bulla rotate STORE` wraps them again under a new KEK version",
                ));
            }
            if record.store_keys.len() >= MAX_STORE_KEYS {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "the log is full of retired store keys; run `bulla gc STORE` a day after the last rewrap, then again",
                ));
            }
            if self.append(self.with_new_store_key(&keys)).await?.is_some() {
                let keys = self.gate.refresh(self).await?;
                if let Some(target) = Target::of(&keys, self.parts.runtime.now()) {
                    return Ok((target, false));
                }
            }
            // Another node was first.
            self.back_off(attempt).await;
        }
        Err(Error::new(ErrorKind::Conflict, "other nodes keep changing the log; run the rewrap again"))
    }

    fn with_new_store_key(&self, keys: &Unlocked) -> LogRecord {
        let random = self.parts.runtime.random();
        let now = self.parts.runtime.now().unix_ms();
        let mut record = keys.next_record(now);
        for old in record.store_keys.iter_mut().filter(|key| key.state == StoreKeyState::Active) {
            old.state = StoreKeyState::Retiring;
            old.since = now;
        }
        let store_key = StoreKey::random(random);
        record.store_keys.push(StoreKeyEntry {
            id: StoreKeyId::random(random),
            state: StoreKeyState::Active,
            root: keys.root_id,
            value: keys.root.store_key_wrapping_key().wrap_key(store_key.expose()),
            since: now,
        });
        record
    }

    /// Takes part in the sweep that makes the retiring keys unused, counts, and retires them.
    pub(crate) async fn sweep_to(
        &self,
        target: &Target,
        resumed: bool,
        options: &SweepOptions,
        observe: Observer<'_>,
    ) -> Result<Rewrap> {
        let (job, kids) = (target.job(), target.kids());
        observe(SweepEvent::Started { from: kids.clone(), to: target.to.kid.clone(), resumed });
        let (events, started) = (&self.parts.events, self.parts.runtime.now());
        events.about(Action::SweepBegin, &target.to.kid, self.gate.mark(), None, started);
        let direct = target.to.is_kek();
        self.await_writers(&job, &target.seen, direct, observe).await?;
        let mut rewrapped = 0;
        for _ in 0..SWEEPS {
            let sweep = Work::new(self, SweepPhase::Rewrap, options, direct, observe);
            sweep.sweep(&job).await?;
            rewrapped += sweep.rewrapped();
            let count = Work::new(self, SweepPhase::Count, options, direct, observe).count().await?;
            for kid in &kids {
                let (seen, left, failed) = (count.envelopes, count.under(kid), count.failed);
                let counted = SweepCount { seen, left, failed };
                events.about(Action::SweepEnd, kid, self.gate.mark(), Some(counted), started);
            }
            count.require_whole()?;
            if kids.iter().all(|kid| count.is_safe_to_retire(kid)) {
                self.retire(target).await?;
                self.remove_job(&job).await;
                for kid in &kids {
                    events.about(Action::Retire, kid, self.gate.mark(), None, started);
                }
                self.settle_audit().await?;
                observe(SweepEvent::Retired(kids.clone()));
                return Ok(Rewrap { from: kids, to: target.to.kid.clone(), resumed, rewrapped, count });
            }
            // What the job says is done was not, or something came late. Everything once more.
            tracing::info!(?count, "envelopes are left under retiring keys; sweeping again");
            self.change_sweep(&job, |sweep| {
                *sweep = Sweep { waited: true, ..Sweep::new() };
                (true, ())
            })
            .await?;
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "envelopes keep appearing under the old key; run the command again",
        ))
    }

    /// Waits until no writer can acknowledge an envelope under an old key any more: a put acknowledges only under a log
    /// view younger than R. Only one process has to have waited.
    ///
    /// What a writer that died had under way can arrive later. A retired store key opens it still; a KEK that is gone would
    /// not, so in direct mode that is waited for too.
    async fn await_writers(&self, job: &str, seen: &Now, direct: bool, observe: Observer<'_>) -> Result<()> {
        if self.change_sweep(job, |sweep| (false, sweep.waited)).await? {
            return Ok(());
        }
        let runtime = &self.parts.runtime;
        // R can't change in this version; the larger of old and new would be this one.
        let in_flight = if direct && !self.bucket.is_folder() { IN_FLIGHT } else { Duration::ZERO };
        let bound = self.gate.revocation_bound() + in_flight;
        loop {
            // The boot clock: nobody sets it.
            let left = bound.saturating_sub(runtime.now().boot.saturating_sub(seen.boot));
            if left.is_zero() {
                break;
            }
            observe(SweepEvent::Waiting(left));
            runtime.sleep(left).await;
        }
        self.change_sweep(job, |sweep| (!std::mem::replace(&mut sweep.waited, true), ())).await
    }

    /// The record in which the keys that nothing is under are retired, or, of KEKs, gone.
    async fn retire(&self, target: &Target) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            let keys = self.gate.refresh(self).await?;
            let now = self.parts.runtime.now().unix_ms();
            let mut record = keys.next_record(now);
            let before = (record.keks.len(), record.store_keys.clone());
            match record.mode {
                Mode::Direct => {
                    if record.roots.iter().flat_map(|root| &root.groups).flatten().any(|wrap| {
                        record.keks.iter().any(|kek| kek.kid == wrap.kid && target.has(&kek.kid, kek.since))
                    }) {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            "a rotation is not finished: run `bulla rotate STORE` again, with the same options",
                        ));
                    }
                    record
                        .keks
                        .retain(|kek| kek.state != KekState::Retiring || !target.has(&kek.kid, kek.since));
                }
                _ => {
                    for key in &mut record.store_keys {
                        if key.state == StoreKeyState::Retiring
                            && target.has(&store_key_kid(&key.id), key.since)
                        {
                            key.state = StoreKeyState::Retired;
                            key.since = now;
                        }
                    }
                }
            }
            if before == (record.keks.len(), record.store_keys.clone()) {
                // Another node was first.
                return Ok(());
            }
            if self.append(record).await?.is_some() {
                self.gate.refresh(self).await?;
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(Error::new(ErrorKind::Conflict, "other nodes keep changing the log; run the command again"))
    }
}

impl Named {
    fn is_kek(&self) -> bool {
        !self.kid.starts_with(bulla_envelope::envelope::STORE_KEY_PREFIX)
    }
}
