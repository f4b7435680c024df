//! The audit log of a store, FORMAT.md §17: events, sealed in batches under `audit/`, each with its predecessor's hash.
//!
//! ```text
//! Events::emit ─► queue (alike ones merged) ─► append: put-if-absent at the next number
//!                                    ▲
//!                              recorder, one task per store: urgent ones at once, routine within minutes
//! ```
//!
//! A store has an audit log once somebody began one; from then on every node that opens it writes there. An event never
//! waits for the log. While nothing can be sealed (the key is denied, the bucket out of reach) events wait in memory, as
//! many as fit, with their own times; a process that dies then takes them with it.

mod append;
mod queue;
mod read;
mod recorder;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulla_envelope::audit::{Action, Checkpoint};
use bulla_kek::Now;
use tokio::sync::Notify;

use self::append::Appender;
use self::queue::Queue;
pub use self::read::AuditLog;
use crate::engine::{Engine, Parts};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, Outcome};
use crate::log::RecordMark;
use crate::store::{Store, StoreInner};
use crate::unlock::Unlocked;

/// Routine events wait this long for others, so that a busy node writes a few small objects an hour.
const ROUTINE: Duration = Duration::from_secs(300);

/// What is urgent waits this long for what comes with it: a command that opens a store and closes it writes one object.
const LINGER: Duration = Duration::from_millis(250);

/// Whether an engine's stores write their audit logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a log is written, waited for, or not written")]
pub enum AuditMode {
    /// Where a store has an audit log, it is written in the background. No operation waits for it or fails by it.
    #[default]
    Follow,
    /// A store without an audit log is not opened, one that is made has one, and opening, rotating and rewrapping end only
    /// when their events are in it, or fail. Reads and writes of blobs do not wait.
    Strict,
    /// Never written, even where a store has one: for tools that look at a store and must not change it.
    Off,
}

/// One store's part in its audit log.
#[derive(Debug)]
pub(crate) struct Audit {
    mode: AuditMode,
    queue: Mutex<Queue>,
    /// Held by whoever appends.
    appender: tokio::sync::Mutex<Appender>,
    /// Something came that the recorder's next wait depends on.
    changed: Notify,
}

impl Audit {
    pub(crate) fn new(mode: AuditMode) -> Self {
        Self {
            mode,
            queue: Mutex::new(Queue::new(mode != AuditMode::Off)),
            appender: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Lets the recorder see that its store is gone.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(crate) fn mode(&self) -> AuditMode {
        self.mode
    }

    /// Takes an event, if there is a log to write it to.
    pub(crate) fn take(&self, event: &Event, now: Now) {
        if self.lock().push(event, now) {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreInner {
    /// Looks whether the store has an audit log, and if so begins to write it. In strict mode a new store has one from
    /// the beginning.
    ///
    /// # Errors
    /// Only in strict mode.
    pub(crate) async fn join_audit(self: &Arc<Self>, is_new: bool) -> Result<()> {
        let audit = self.parts.events.audit();
        if audit.mode == AuditMode::Off {
            return Ok(());
        }
        if is_new && audit.mode == AuditMode::Strict {
            let keys = self.gate.secrets(self).await?;
            self.begin_audit_queue(&keys);
            return Ok(());
        }
        let began = match self.audit_began().await {
            Ok(began) => began,
            // To be on the safe side: appending looks again.
            Err(_) if audit.mode == AuditMode::Follow => true,
            Err(error) => return Err(error),
        };
        if began {
            recorder::start(self);
            return Ok(());
        }
        audit.lock().stop();
        match audit.mode {
            AuditMode::Strict => Err(Error::invalid(
                "the store has no audit log and this engine is strict about it; begin one (`bulla audit start STORE`)",
            )),
            _ => Ok(()),
        }
    }

    fn begin_audit_queue(self: &Arc<Self>, keys: &Unlocked) {
        let events = &self.parts.events;
        let was_off = events.audit().lock().begin();
        let mut event = events.event(Action::AuditBegin, Outcome::Done);
        event.log = Some(keys.view.mark);
        event.keys = keys.kids();
        events.emit(&event);
        if was_off || self.parts.events.audit().mode == AuditMode::Strict {
            recorder::start(self);
        }
    }

    /// In strict mode: waits until everything told so far is in the audit log.
    pub(crate) async fn settle_audit(&self) -> Result<()> {
        if self.parts.events.audit().mode != AuditMode::Strict {
            return Ok(());
        }
        self.flush_audit().await.map_err(|error| {
            Error::new(
                error.kind(),
                "what was done is not in the audit log, which can't be written; do it again",
            )
            .with_retry_after(error.retry_after())
            .with_source(error)
        })
    }
}

impl Engine {
    /// Ends `open` and `create` of a store: tells how they ended, and joins the store's audit log.
    pub(crate) async fn audited(
        &self,
        action: Action,
        started: Now,
        parts: &Parts,
        opened: Result<Store>,
    ) -> Result<Store> {
        let joined = match &opened {
            Ok(store) => store.inner().join_audit(action == Action::Create).await,
            Err(_) => Ok(()),
        };
        parts.events.opened(action, started, &opened);
        let store = opened?;
        joined?;
        store.inner().settle_audit().await?;
        Ok(store)
    }
}

impl Store {
    /// Begins the store's audit log: from now on every node that opens the store writes there what happens to its keys.
    /// There is no end to it. `false` where there was one already.
    ///
    /// Nodes that have the store open keep no log until they open it again.
    ///
    /// # Errors
    /// `Invalid` where this engine's [`AuditMode`] is off; `Revoked`, `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have begun the log; call it again.
    pub async fn begin_audit(&self) -> Result<bool> {
        let inner = self.inner();
        let audit = inner.parts.events.audit();
        if audit.mode == AuditMode::Off {
            return Err(Error::invalid("this engine writes no audit logs; build it with another audit mode"));
        }
        let keys = inner.gate.secrets(inner).await?;
        if inner.audit_began().await? {
            return Ok(false);
        }
        inner.begin_audit_queue(&keys);
        inner.flush_audit().await?;
        Ok(true)
    }

    /// Writes what this node has not yet written to the audit log.
    ///
    /// # Errors
    /// `Unavailable` while nothing can be sealed, because the key is denied or the lease has ended, or where the bucket
    /// is out of reach: the events wait. `Corrupt` where the log was rolled back or damaged.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written twice and nothing is lost.
    pub async fn flush_audit(&self) -> Result<()> {
        self.inner().flush_audit().await
    }

    /// The whole audit log, checked from its first batch to its last.
    ///
    /// # Errors
    /// `NotFound` where no audit log was begun; `Corrupt` where a batch is missing, altered or out of place; `Revoked`,
    /// `Unavailable`, `Throttled` as everywhere.
    pub async fn audit_log(&self) -> Result<AuditLog> {
        self.inner().read_audit().await
    }

    /// Whether the store is at or after a checkpoint: its own log has the record that the checkpoint names, and its audit
    /// log begins with exactly the entries that were signed. Otherwise the bucket was rolled back, or forked.
    ///
    /// # Errors
    /// `Invalid` where the checkpoint is of another store; `Corrupt` where the store is not at or after it; `NotFound`
    /// where there is no audit log any more; `Revoked`, `Unavailable`, `Throttled` as everywhere.
    pub async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let inner = self.inner();
        if checkpoint.origin != Checkpoint::origin_of(&inner.store_id) {
            return Err(Error::invalid(format!(
                "the checkpoint is of {}, and this store is {}",
                checkpoint.origin, inner.store_id
            )));
        }
        let keys = inner.gate.refresh(inner).await?;
        crate::unlock::check_floor(&keys.view.record, keys.view.mark, RecordMark::from(checkpoint.log))?;
        let log = inner.read_audit().await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::corrupt(
                "the store has no audit log, though a checkpoint of it exists: the bucket was rolled back or emptied; \
                 restore its newest state",
            ),
            _ => error,
        })?;
        log.check(checkpoint)
    }
}
