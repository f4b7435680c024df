//! What an event says. There is no place in it for a secret: ids, words, times and counts only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla_envelope::audit::{Action, Outcome, SweepCount};
use bulla_envelope::ids::{StoreId, StoreKeyId};
use bulla_kek::{DenyReason, Identity, KekError, KekErrorKind, KeyId};

use crate::error::{Error, ErrorKind};
use crate::log::RecordMark;

/// Something that happened to a store's keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When it was over.
    pub at: SystemTime,
    /// The node that it happened on: see [`EngineBuilder::node`](crate::EngineBuilder::node).
    pub node: Arc<str>,
    /// The store; `None` before it is known which one it is.
    pub store: Option<StoreId>,
    /// What was done.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Why the provider said no.
    pub reason: Option<DenyReason>,
    /// As whom a provider was asked.
    pub identity: Option<Identity>,
    /// Which KEKs, with their versions where they are known: asked, or opening the store; of a rotation the new one.
    pub keys: Vec<KeyId>,
    /// Which store key: retired, shredded, swept to.
    pub store_key: Option<StoreKeyId>,
    /// The newest log record at that time.
    pub log: Option<RecordMark>,
    /// What a sweep counted.
    pub count: Option<SweepCount>,
    /// How long it took.
    pub latency: Duration,
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Revoked => Self::Denied,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Throttled => Self::Throttled,
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

/// How a provider's call ended.
pub(super) fn outcome_of(error: &KekError) -> Outcome {
    match error.kind() {
        KekErrorKind::Denied(_) => Outcome::Denied,
        KekErrorKind::Throttled => Outcome::Throttled,
        KekErrorKind::Invalid => Outcome::Invalid,
        _ => Outcome::Unavailable,
    }
}

impl Event {
    /// For `tracing`: damage is a warning, what operators do to keys is information, the rest is for debugging.
    pub(super) fn trace(&self) {
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    target: "bulla::event",
                    $level,
                    action = self.action.as_str(),
                    outcome = self.outcome.as_str(),
                    reason = self.reason.map(DenyReason::code),
                    node = &*self.node,
                    store = self.store.map(tracing::field::display),
                    identity = self.identity.as_ref().map(Identity::as_str),
                    keys = (!self.keys.is_empty()).then(|| tracing::field::display(Joined(&self.keys))),
                    store_key = self.store_key.map(tracing::field::display),
                    log = self.log.map(|log| log.number),
                    seen = self.count.map(|count| count.seen),
                    left = self.count.map(|count| count.left),
                    failed = self.count.map(|count| count.failed),
                    latency_us = u64::try_from(self.latency.as_micros()).unwrap_or(u64::MAX),
                )
            };
        }
        match (self.action, self.outcome) {
            (_, Outcome::Corrupt | Outcome::Internal) => event!(tracing::Level::WARN),
            (
                Action::RotateBegin
                | Action::RotateEnd
                | Action::SweepBegin
                | Action::SweepEnd
                | Action::Retire
                | Action::Shred
                | Action::AuditBegin,
                _,
            ) => event!(tracing::Level::INFO),
            // Routine; or said elsewhere too: by the error that the caller gets, by the gate when the key's state changes.
            _ => event!(tracing::Level::DEBUG),
        }
    }
}

/// Key ids, one after the other.
struct Joined<'a>(&'a [KeyId]);

impl std::fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, key) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{key}")?;
        }
        Ok(())
    }
}
