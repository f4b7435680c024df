//! What an event says. There is no place in it for a secret: ids, words, times and counts only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla_envelope::ids::{StoreId, StoreKeyId};
use bulla_kek::{DenyReason, Identity, KekError, KekErrorKind, KeyId};

use crate::error::{Error, ErrorKind};
use crate::log::RecordMark;

/// What was done, or was about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// A provider was asked what a key is.
    Describe,
    /// A provider was asked to wrap a secret.
    Wrap,
    /// A provider was asked to unwrap one.
    Unwrap,
    /// A store was made.
    Create,
    /// A store was opened.
    Open,
    /// The lease was renewed: the root unwrapped anew, or not.
    Renew,
    /// The key's owner has taken the key away: everything unwrapped was wiped.
    Deny,
    /// The key's owner has given the key back.
    Restore,
    /// Something was refused without asking a provider, or because of what it last said: a request while the key is
    /// denied or out of reach, an unfit key, a log that does not check out.
    Refuse,
    /// A rotation wrote the record under which both the old and the new key open the store.
    RotateBegin,
    /// A rotation wrote the record that leaves the new key alone.
    RotateEnd,
    /// A rewrap brought in a new store key, or a direct-mode rotation a new KEK version: the sweep begins.
    SweepBegin,
    /// A sweep counted what is left under the old key.
    SweepEnd,
    /// A key that nothing is under any more was retired.
    Retire,
    /// The last wrap of a retired key was destroyed.
    Shred,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Outcome {
    /// As asked.
    Done,
    /// The provider said no; [`Event::reason`] says why.
    Denied,
    /// No answer, or no useful one.
    Unavailable,
    /// Too many requests.
    Throttled,
    /// The call or its data was wrong: an unfit key, a damaged wrap.
    Invalid,
    /// Somebody else was first.
    Conflict,
    /// There is no such store.
    NotFound,
    /// What is stored does not check out: altered, rolled back, forged.
    Corrupt,
    /// A bug.
    Internal,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a count has these parts")]
pub struct SweepCount {
    /// Envelopes and upload sessions that were looked at and opened.
    pub seen: u64,
    /// How many of them are under the old key.
    pub left: u64,
    /// How many did not open, so that nobody can say what they are under.
    pub failed: u64,
}

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

impl Action {
    /// A stable word for logs, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Create => "create",
            Self::Open => "open",
            Self::Renew => "renew",
            Self::Deny => "deny",
            Self::Restore => "restore",
            Self::Refuse => "refuse",
            Self::RotateBegin => "rotate_begin",
            Self::RotateEnd => "rotate_end",
            Self::SweepBegin => "sweep_begin",
            Self::SweepEnd => "sweep_end",
            Self::Retire => "retire",
            Self::Shred => "shred",
        }
    }
}

impl Outcome {
    /// A stable word for logs, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }
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

impl From<&KekError> for Outcome {
    fn from(error: &KekError) -> Self {
        match error.kind() {
            KekErrorKind::Denied(_) => Self::Denied,
            KekErrorKind::Throttled => Self::Throttled,
            KekErrorKind::Invalid => Self::Invalid,
            _ => Self::Unavailable,
        }
    }
}

impl Event {
    /// For `tracing`: refusals and denials are warnings, what operators do is information, routine is for debugging.
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
            // A crowd of requests is refused as a crowd; the denial itself is said once.
            (Action::Refuse, Outcome::Denied | Outcome::Unavailable | Outcome::Throttled) => {
                event!(tracing::Level::DEBUG);
            }
            (Action::Deny, _) | (_, Outcome::Corrupt | Outcome::Internal) => event!(tracing::Level::WARN),
            (Action::Describe | Action::Wrap | Action::Unwrap | Action::Renew, _) => {
                event!(tracing::Level::DEBUG);
            }
            _ => event!(tracing::Level::INFO),
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
