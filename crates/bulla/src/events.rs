//! Events: what happened to a store's keys, said once, in one place, to whoever listens.
//!
//! ```text
//! watch (every provider call) ─┐                    ┌─► tracing          target `bulla::event`
//! gate, create, rotate ────────┼─► Events::emit ────┼─► metrics          feature `metrics`
//!                              │                    ├─► EventSink        the embedder's
//!                              ┘                    └─► the audit log's queue
//! ```
//!
//! Emitting never blocks, never awaits and never fails: an event is about an operation, not a part of it.

mod event;
#[cfg(feature = "metrics")]
mod metered;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use bulla_envelope::audit::{Action, Outcome, SweepCount};
use bulla_envelope::envelope::STORE_KEY_PREFIX;
use bulla_envelope::ids::StoreId;
use bulla_kek::{KeyId, Now, Observed, Providers, Runtime};

use crate::audit::{Audit, AuditMode};
use crate::error::{Error, Result};
use crate::gate::KeyState;
use crate::log::RecordMark;
use crate::store::Store;
use crate::unlock::Unlocked;

pub use self::event::Event;
#[cfg(feature = "metrics")]
pub use self::metered::describe_metrics;
use self::watch::Watcher;

/// Where events go.
///
/// [`emit`](Self::emit) is called in the middle of what the event is about, under traffic and under locks: it must be
/// quick, must not block and must not call the store. A sink that has more to do hands the event on.
pub trait EventSink: fmt::Debug + Send + Sync {
    /// Takes an event.
    fn emit(&self, event: &Event);
}

/// The events of one store, or of an engine before it is known of which store they are.
pub(crate) struct Events {
    sink: Option<Arc<dyn EventSink>>,
    runtime: Arc<dyn Runtime>,
    node: Arc<str>,
    store: OnceLock<StoreId>,
    /// The key was taken away and not given back since.
    denied: AtomicBool,
    audit: Audit,
}

impl Events {
    pub(crate) fn new(
        sink: Option<Arc<dyn EventSink>>,
        runtime: Arc<dyn Runtime>,
        node: Arc<str>,
        audit: AuditMode,
    ) -> Self {
        Self {
            sink,
            runtime,
            node,
            store: OnceLock::new(),
            denied: AtomicBool::new(false),
            audit: Audit::new(audit),
        }
    }

    /// Events of another store, to the same listeners.
    pub(crate) fn for_another_store(&self) -> Self {
        let audit = self.audit.mode();
        Self::new(self.sink.clone(), Arc::clone(&self.runtime), Arc::clone(&self.node), audit)
    }

    /// From now on events say which store they are of. Once only: a store's id never changes.
    pub(crate) fn set_store(&self, store: StoreId) {
        let _ = self.store.set(store);
    }

    /// Every call to these goes through here, so that no call is missed.
    pub(crate) fn watch(self: &Arc<Self>, providers: &Providers) -> Providers {
        providers.map(|provider| Arc::new(Observed::new(Arc::clone(provider), Watcher(Arc::clone(self)))))
    }

    /// An event of now; what else is known of it is added before it is [`emit`](Self::emit)ted.
    pub(crate) fn event(&self, action: Action, outcome: Outcome) -> Event {
        Event {
            at: self.runtime.now().wall,
            node: Arc::clone(&self.node),
            store: self.store.get().copied(),
            action,
            outcome,
            reason: None,
            identity: None,
            keys: Vec::new(),
            store_key: None,
            log: None,
            count: None,
            latency: Duration::ZERO,
        }
    }

    /// Tells everybody.
    pub(crate) fn emit(&self, event: &Event) {
        event.trace();
        #[cfg(feature = "metrics")]
        metered::count(event);
        if let Some(sink) = &self.sink {
            sink.emit(event);
        }
        self.audit.take(event, self.runtime.now());
    }

    /// The store's part in its audit log.
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// A store was made or opened, or was not.
    pub(crate) fn opened(&self, action: Action, started: Now, store: &Result<Store>) {
        match store {
            Ok(store) => {
                let keys = store.inner().gate.held();
                let mut event = self.event(action, Outcome::Done);
                event.latency = self.since(started);
                event.log = Some(store.mark());
                event.keys = keys.map(|keys| keys.kids()).unwrap_or_default();
                self.emit(&event);
            }
            Err(error) => self.failed(action, started, error),
        }
    }

    /// A renewal of the lease, or what was asked for one in vain.
    pub(crate) fn renewed(&self, started: Now, renewed: &Result<Arc<Unlocked>>, asked: Vec<KeyId>) {
        let mut event = match renewed {
            Ok(keys) => {
                let mut event = self.event(Action::Renew, Outcome::Done);
                event.log = Some(keys.view.mark);
                event.keys = keys.kids();
                event
            }
            Err(error) => {
                let mut event = self.event(Action::Renew, error.into());
                event.reason = error.denied();
                event.keys = asked;
                event
            }
        };
        event.latency = self.since(started);
        self.emit(&event);
    }

    /// The key's state changed: its owner may have taken it away, or given it back.
    pub(crate) fn key_became(&self, state: &KeyState, keys: Vec<KeyId>) {
        let mut event = match state {
            KeyState::Revoked { reason, .. } => {
                self.denied.store(true, Ordering::Relaxed);
                let mut event = self.event(Action::Deny, Outcome::Denied);
                event.reason = Some(*reason);
                event
            }
            // Whatever it was in between: out of reach, say.
            KeyState::Live { .. } if self.denied.swap(false, Ordering::Relaxed) => {
                self.event(Action::Restore, Outcome::Done)
            }
            _ => return,
        };
        event.keys = keys;
        self.emit(&event);
    }

    /// Something about one key that DEKs are wrapped under: a store key, or in direct mode a KEK version.
    pub(crate) fn about(
        &self,
        action: Action,
        kid: &str,
        log: RecordMark,
        count: Option<SweepCount>,
        started: Now,
    ) {
        let mut event = self.event(action, Outcome::Done);
        match kid.strip_prefix(STORE_KEY_PREFIX) {
            Some(id) => event.store_key = id.parse().ok(),
            None => event.keys.extend(kid.parse()),
        }
        event.log = Some(log);
        event.count = count;
        event.latency = self.since(started);
        self.emit(&event);
    }

    /// Something came to nothing.
    pub(crate) fn failed(&self, action: Action, started: Now, error: &Error) {
        let mut event = self.event(action, error.into());
        event.reason = error.denied();
        event.latency = self.since(started);
        self.emit(&event);
    }

    /// The time between then and now, as latencies are measured.
    pub(crate) fn since(&self, then: Now) -> Duration {
        self.runtime.now().boot.saturating_sub(then.boot)
    }

    pub(crate) fn now(&self) -> Now {
        self.runtime.now()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("node", &self.node)
            .field("store", &self.store.get())
            .finish_non_exhaustive()
    }
}
