//! The gate in front of the secrets: nothing unwrapped is used without a live lease, and one task per store renews it.
//!
//! Requests ask [`Gate::secrets`] before they use a key and [`Gate::is_live`] before they release what it opened. One
//! unwrap at a time goes to the provider, whatever the traffic; while the key is denied or out of reach, requests fail at
//! once with what is known, and the keeper asks again.

mod keeper;
mod renewal;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulla_kek::{DenyReason, KeyDescription, Lease, LeaseEnd, LeaseOptions, LeaseState, Next, Now};
use tokio::sync::Notify;

use crate::engine::Parts;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Action;
use crate::log::{self, RawRecord, RecordMark};
use crate::store::StoreInner;
use crate::unlock::Unlocked;

/// Whether the store's key can be used, and if not, why.
pub type KeyState = LeaseState;

pub(crate) struct Gate {
    state: Mutex<State>,
    /// Held by whoever asks the provider or the log: single-flight.
    renewing: tokio::sync::Mutex<()>,
    /// Something changed that the keeper's next wait depends on.
    changed: Arc<Notify>,
    outage_grace: Duration,
}

struct State {
    lease: Lease,
    /// Present only while the lease is live, and wiped with it.
    keys: Option<Arc<Unlocked>>,
    /// The newest record that authenticated, to be opened again at the next renewal.
    newest: RawRecord,
    bound: Duration,
    kek: Option<KeyDescription>,
    /// The last failed renewal, so that a crowd of requests does not repeat it.
    failure: Option<Failure>,
    closed: bool,
}

struct Failure {
    at: Now,
    kind: ErrorKind,
    message: String,
    denied: Option<DenyReason>,
    retry_after: Option<Duration>,
}

impl Gate {
    /// A gate that is open: `keys` were unlocked by `probe`, of a lease that starts here.
    pub(crate) fn new(parts: &Parts, keys: Unlocked, newest: RawRecord) -> Self {
        let bound = bound(&keys);
        let options = LeaseOptions { revocation_bound: bound, outage_grace: parts.outage_grace };
        let mut lease = Lease::new(options);
        let probe = lease.start_probe(keys.sent);
        let now = parts.runtime.now();
        let counts = lease.granted(probe, now);
        let state = State {
            lease,
            bound,
            kek: keys.kek.clone(),
            keys: counts.then(|| Arc::new(keys)),
            newest,
            failure: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            renewing: tokio::sync::Mutex::new(()),
            changed: Arc::new(Notify::new()),
            outage_grace: parts.outage_grace,
        }
    }

    /// Starts the keeper, which lives as long as the store.
    pub(crate) fn start(store: &Arc<StoreInner>) {
        let runtime = Arc::clone(&store.parts.runtime);
        runtime.spawn(Box::pin(keeper::keep(Arc::downgrade(store))));
    }

    /// The secrets, under a live lease; renews it first where it ended.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled` from the provider; `Corrupt` from the log.
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
        let _renewing = self.renewing.lock().await;
        // Somebody else may have renewed it, or have been refused, while this request waited.
        if let Some(keys) = self.live(store)? {
            return Ok(keys);
        }
        self.renew(store).await
    }

    /// Whether `keys` may still be used: the lease is live, and they are not of one that ended in between.
    pub(crate) fn is_live(&self, store: &StoreInner) -> bool {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        state.lease.usable(now).is_ok() && state.keys.is_some()
    }

    /// Reads the log and gives back secrets with a view that is fresh as of now. Asks the provider only where the lease
    /// ended or a new record does not authenticate under the present root.
    pub(crate) async fn refresh(&self, store: &StoreInner) -> Result<Arc<Unlocked>> {
        self.secrets(store).await?;
        let _renewing = self.renewing.lock().await;
        let read_started = store.parts.runtime.now();
        let raw = match log::read_after(&store.bucket, self.mark()).await? {
            Some(raw) => raw,
            None => self.lock().newest.clone(),
        };
        let expected = self.expected(store);
        // The lease may have ended while the log was on its way.
        let Some(keys) = self.live(store)? else { return self.renew(store).await };
        match keys.follow(&raw, expected, read_started) {
            Ok(followed) => self.install(store, followed, raw, None),
            Err(_) => self.renew(store).await,
        }
    }

    /// The secrets if there are any, without using them: the lease may have ended.
    pub(crate) fn held(&self) -> Option<Arc<Unlocked>> {
        self.lock().keys.clone()
    }

    /// The secrets under a live lease, without prolonging it or asking anybody.
    pub(crate) fn held_live(&self, store: &StoreInner) -> Option<Arc<Unlocked>> {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        state.lease.usable(now).ok()?;
        state.keys.clone()
    }

    /// What is left of the lease.
    pub(crate) fn remaining(&self, store: &StoreInner) -> Option<Duration> {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        state.lease.remaining(now)
    }

    /// The newest record seen.
    pub(crate) fn mark(&self) -> RecordMark {
        self.lock().newest.mark
    }

    /// R, as the log says.
    pub(crate) fn revocation_bound(&self) -> Duration {
        self.lock().bound
    }

    /// What the provider last said of the KEK.
    pub(crate) fn kek(&self) -> Option<KeyDescription> {
        self.lock().kek.clone()
    }

    pub(crate) fn key_state(&self, store: &StoreInner) -> KeyState {
        let mut state = self.lock();
        let now = store.parts.runtime.now();
        state.lease.state(now)
    }

    /// Ends the lease for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.keys = None;
        state.closed = true;
        drop(state);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The secrets if the lease is live. `Ok(None)`: ask the provider. An error: it was asked a moment ago.
    fn live(&self, store: &StoreInner) -> Result<Option<Arc<Unlocked>>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::invalid("the store was closed; open it again"));
        }
        // Read inside the lock: the lease takes an older reading for a clock that was set back.
        let now = store.parts.runtime.now();
        let usable = state.lease.usable(now);
        if usable.is_ok()
            && let Some(keys) = state.keys.clone()
        {
            let wake = state.lease.note_use(now);
            drop(state);
            if wake {
                self.changed.notify_one();
            }
            return Ok(Some(keys));
        }
        state.wipe(store);
        let may_ask = match usable {
            Ok(()) | Err(LeaseEnd::Expired) => true,
            Err(_) => state.lease.next(now) == Next::Probe,
        };
        // A failure that left the lease merely expired (a damaged log, say) is not repeated by every request either.
        let recent = state.failure.as_ref().filter(|failure| {
            let since = now.boot.saturating_sub(failure.at.boot);
            !may_ask || since < Duration::from_millis(200).min(state.bound / 8)
        });
        match recent {
            Some(failure) => Err(failure.to_error()),
            None => Ok(None),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    fn wipe(&mut self, store: &StoreInner) {
        if self.keys.take().is_some() {
            store.cache.clear();
        }
    }
}

impl Failure {
    fn new(at: Now, error: &Error) -> Self {
        Self {
            at,
            kind: error.kind(),
            message: error.to_string(),
            denied: error.denied(),
            retry_after: error.retry_after(),
        }
    }

    fn to_error(&self) -> Error {
        match self.denied {
            Some(reason) => Error::revoked(reason, self.message.clone()),
            None => Error::new(self.kind, self.message.clone()),
        }
        .with_retry_after(self.retry_after)
    }
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
