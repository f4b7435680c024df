//! The gate in front of the secrets: nothing unwrapped is used without a live lease, and one task per store renews it.
//!
//! Requests ask [`Gate::secrets`] before they use a key and [`Gate::is_live`] before they release what it opened. One
//! unwrap at a time goes to the provider, whatever the traffic, and requests that are given up while they wait for it
//! change nothing about that. While the key is denied or out of reach, requests fail at once with what is known, and the
//! keeper asks again.

mod keeper;
mod renewal;
mod report;
mod transitions;
mod versions;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bulla_kek::{KeyDescription, KeyId, Lease, LeaseEnd, LeaseOptions, LeaseState, Next, Now};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use self::report::Failure;
use self::transitions::Transitions;
use self::versions::Versions;
use crate::engine::Parts;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Action;
use crate::log::{RawRecord, RecordMark};
use crate::party::Party;
use crate::store::StoreInner;
use crate::unlock::Unlocked;

pub use self::report::{KeyFailure, KeyReport};
pub use self::transitions::KeyStateWatch;
pub use self::versions::FollowedVersions;

/// Whether the store's key can be used, and if not, why.
pub type KeyState = LeaseState;

pub(crate) struct Gate {
    state: Mutex<State>,
    /// Held by whoever asks the provider or the log: single-flight.
    renewing: Arc<tokio::sync::Mutex<()>>,
    /// Something changed that the keeper's next wait depends on.
    changed: Arc<Notify>,
    outage_grace: Duration,
    /// Whose gate this is, for tasks that outlive a request.
    store: OnceLock<Weak<StoreInner>>,
}

struct State {
    lease: Lease,
    /// Present only while the lease is live, and wiped with it.
    keys: Option<Arc<Unlocked>>,
    /// The newest record that authenticated, to be opened again at the next renewal.
    newest: RawRecord,
    /// Before that record was read, and found to be the newest.
    newest_read: Now,
    bound: Duration,
    /// Each party's KEK as it was last described.
    keks: Vec<Option<KeyDescription>>,
    /// And what is known of its versions.
    versions: Vec<Versions>,
    transitions: Transitions,
    /// The last failed renewal, so that a crowd of requests does not repeat it.
    failure: Option<Failure>,
    closed: bool,
}

impl Gate {
    /// A gate that is open: `keys` were unlocked by `probe`, of a lease that starts here.
    pub(crate) fn new(parts: &Parts, mut keys: Unlocked, newest: RawRecord) -> Self {
        let bound = bound(&keys);
        let options = LeaseOptions { revocation_bound: bound, outage_grace: parts.outage_grace };
        let mut lease = Lease::new(options);
        let probe = lease.start_probe(keys.sent);
        let now = parts.runtime.now();
        let counts = lease.granted(probe, now);
        let transitions = Transitions::new(lease.state(now), now);
        let mut state = State {
            lease,
            bound,
            keks: Vec::new(),
            newest_read: keys.view.read_started,
            keys: None,
            newest,
            versions: Vec::new(),
            transitions,
            failure: None,
            closed: false,
        };
        state.heard(parts, &mut keys, now);
        state.keys = counts.then(|| Arc::new(keys));
        Self {
            state: Mutex::new(state),
            renewing: Arc::default(),
            changed: Arc::new(Notify::new()),
            outage_grace: parts.outage_grace,
            store: OnceLock::new(),
        }
    }

    /// Starts the keeper, which lives as long as the store.
    pub(crate) fn start(store: &Arc<StoreInner>) {
        let runtime = Arc::clone(&store.parts.runtime);
        // Once per gate: there was nothing in it.
        let _ = store.gate.store.set(Arc::downgrade(store));
        runtime.spawn(Box::pin(keeper::keep(Arc::downgrade(store))));
    }

    /// The secrets, under a live lease; renews it first where it ended.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled` from the provider; `Corrupt` from the log.
    ///
    /// # Cancel safety
    /// Cancel safe: a renewal that was begun goes on.
    pub(crate) async fn secrets(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        let started = store.parts.runtime.now();
        let secrets = self.try_secrets(store).await;
        if let Err(error) = &secrets {
            store.parts.events.failed(Action::Refuse, started, error);
        }
        secrets
    }

    async fn try_secrets(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        if let Some(keys) = self.live(store)? {
            return Ok(keys);
        }
        let renewing = Arc::clone(&self.renewing).lock_owned().await;
        // Somebody else may have renewed it, or have been refused, while this request waited.
        if let Some(keys) = self.live(store)? {
            return Ok(keys);
        }
        self.renew_apart(store, renewing).await
    }

    /// Whether secrets may still be used: the lease is live.
    pub(crate) fn is_live(&self, store: &StoreInner) -> bool {
        self.with(store, |state, now| state.lease.usable(now).is_ok() && state.keys.is_some())
    }

    /// Reads the log and gives back secrets with a view that is younger than this call. Asks the provider only where the
    /// lease ended or a new record does not authenticate under the present root.
    pub(crate) async fn refresh(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        let called = store.parts.runtime.now();
        self.secrets(store).await?;
        let renewing = Arc::clone(&self.renewing).lock_owned().await;
        // A crowd reads once: whoever waited here finds what was read after it called.
        if let Some(keys) = self.live(store)?
            && keys.view.read_started.boot > called.boot
        {
            return Ok(keys);
        }
        let read_started = store.parts.runtime.now();
        let raw = match self.read_after(store, self.mark()).await? {
            Some(raw) => raw,
            None => self.lock().newest.clone(),
        };
        let expected = self.expected(store);
        // The lease may have ended while the log was on its way.
        let Some(keys) = self.live(store)? else { return self.renew_apart(store, renewing).await };
        match keys.follow(&raw, expected, read_started) {
            Ok(followed) => self.install(store, followed, raw, None),
            Err(_) => match self.postponed(store) {
                // Asked about that a moment ago: a damaged log is no reason to ask for every request.
                Some(error) => Err(error),
                None => self.renew_apart(store, renewing).await,
            },
        }
    }

    /// The secrets if there are any, without using them: the lease may have ended.
    pub(crate) fn held(&self) -> Option<Arc<Unlocked>> {
        self.lock().keys.clone()
    }

    /// The secrets under a live lease, without prolonging it or asking anybody.
    pub(crate) fn held_live(&self, store: &StoreInner) -> Option<Arc<Unlocked>> {
        self.with(store, |state, now| state.lease.usable(now).ok().and_then(|()| state.keys.clone()))
    }

    /// What is left of the lease.
    pub(crate) fn remaining(&self, store: &StoreInner) -> Option<Duration> {
        self.with(store, |state, now| state.lease.remaining(now))
    }

    /// Renews in a task of its own, so that a request that is given up does not take the answer with it: else clients in a
    /// hurry would ask the provider without end, and none of them would ever hear it.
    async fn renew_apart(&self, store: &StoreInner, renewing: OwnedMutexGuard<()>) -> Result<Arc<Unlocked>> {
        let gone = || Error::invalid("the store was closed; open it again");
        let owner = self.store.get().and_then(Weak::upgrade).ok_or_else(gone)?;
        let (send, done) = oneshot::channel();
        store.parts.runtime.spawn(Box::pin(async move {
            let renewed = owner.gate.renew(&owner).await;
            drop(renewing);
            // Nobody waits any more where the request was given up.
            let _ = send.send(renewed.map(drop));
        }));
        let stopped = |_| Error::new(ErrorKind::Internal, "the renewal of the lease stopped half-way");
        done.await.map_err(stopped)??;
        // As if it had been live when it was asked for: the use is noted, and time may have passed since.
        self.live(store)?.ok_or_else(lease_ended)
    }

    /// The KEK versions that the newest record names.
    fn asked(&self) -> Vec<KeyId> {
        self.lock().newest.kids()
    }

    /// The KEK that the lease hangs on was denied to a request sent at `sent`: the provider is asked at once, unless
    /// somebody has asked since. So a crowd asks once.
    pub(crate) async fn ask_again(&self, store: &StoreInner, sent: Now) -> Result<()> {
        let renewing = Arc::clone(&self.renewing).lock_owned().await;
        match self.live(store)? {
            Some(keys) if keys.sent.boot > sent.boot => Ok(()),
            _ => self.renew_apart(store, renewing).await.map(drop),
        }
    }

    /// The newest record seen.
    pub(crate) fn mark(&self) -> RecordMark {
        self.lock().newest.mark
    }

    /// The newest record that authenticated, and since when it is known to be the newest. No secret is in it.
    pub(crate) fn known(&self) -> (RawRecord, Now) {
        let state = self.lock();
        (state.newest.clone(), state.newest_read)
    }

    /// R, as the log says.
    pub(crate) fn revocation_bound(&self) -> Duration {
        self.lock().bound
    }

    /// What the provider last said of a party's KEK.
    pub(crate) fn kek(&self, party: Party) -> Option<KeyDescription> {
        self.lock().keks.get(party.index()).cloned().flatten()
    }

    /// What is known of the versions of a party's KEK.
    pub(crate) fn versions(&self, party: Party) -> FollowedVersions {
        self.lock().versions.get(party.index()).map(Versions::report).unwrap_or_default()
    }

    pub(crate) fn key_state(&self, store: &StoreInner) -> KeyState {
        self.with(store, |state, now| state.lease.state(now))
    }

    pub(crate) fn watch(&self) -> KeyStateWatch {
        self.lock().transitions.watch()
    }

    /// Ends the lease for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.keys = None;
        state.lease = Lease::new(state.lease.options());
        state.closed = true;
        state.transitions.end();
        drop(state);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state, or changes it, at a time that is read inside the lock: the lease takes an older reading for a
    /// clock that was set back. What the lease became by it, or by the time alone, is told once it is unlocked.
    fn with<T>(&self, store: &StoreInner, act: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        let result = act(&mut state, now);
        let lease = state.lease.state(now);
        let transition = state.transitions.note(lease, now);
        let failure = match &transition {
            Some(_) => state.failure.as_ref().map(|failure| failure.message.clone()),
            None => None,
        };
        drop(state);
        if let Some(transition) = transition {
            transition.tell(store.store_id, failure.as_deref());
            store.parts.events.key_became(&lease, self.asked());
        }
        result
    }

    /// The secrets if the lease is live. `Ok(None)`: ask the provider. An error: it was asked a moment ago.
    fn live(&self, store: &StoreInner) -> Result<Option<Arc<Unlocked>>> {
        let (found, wake) = self.with(store, |state, now| state.live(store, now));
        if wake {
            self.changed.notify_one();
        }
        found
    }

    /// The last failure, where it is not time yet to ask again.
    fn postponed(&self, store: &StoreInner) -> Option<Error> {
        self.with(store, |state, now| match state.lease.next(now) {
            Next::Probe => None,
            _ => state.failure.as_ref().map(Failure::to_error),
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    /// As [`Gate::live`], and whether the keeper is to look again.
    fn live(&mut self, store: &StoreInner, now: Now) -> (Result<Option<Arc<Unlocked>>>, bool) {
        if self.closed {
            return (Err(Error::invalid("the store was closed; open it again")), false);
        }
        let usable = self.lease.usable(now);
        if usable.is_ok()
            && let Some(keys) = self.keys.clone()
        {
            return (Ok(Some(keys)), self.lease.note_use(now));
        }
        self.wipe(store);
        let may_ask = match usable {
            Ok(()) | Err(LeaseEnd::Expired) => true,
            Err(_) => self.lease.next(now) == Next::Probe,
        };
        // A failure that left the lease merely expired (a damaged log, say) is not repeated by every request either.
        let recent = self.failure.as_ref().filter(|failure| {
            let since = now.boot.checked_sub(failure.at.boot);
            !may_ask || since.is_some_and(|since| since < Duration::from_millis(200).min(self.bound / 8))
        });
        (recent.map_or(Ok(None), |failure| Err(failure.to_error())), false)
    }

    fn wipe(&mut self, store: &StoreInner) {
        if self.keys.take().is_some() {
            store.cache.clear();
        }
    }
}

fn lease_ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the lease ended meanwhile; retry")
}

fn bound(keys: &Unlocked) -> Duration {
    Duration::from_millis(keys.view.record.revocation_bound_ms)
}

impl Drop for StoreInner {
    fn drop(&mut self) {
        // Lets keeper and recorder see that their store is gone.
        self.gate.changed.notify_one();
        self.parts.events.audit().wake();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
