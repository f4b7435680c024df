//! What can be said of a store's key without asking anybody.

use std::time::{Duration, SystemTime};

use bulla_kek::{DenyReason, Now};

use super::{Gate, KeyState};
use crate::error::{Error, ErrorKind};
use crate::store::StoreInner;

/// The state of a store's key, with what an operator asks next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyReport {
    /// Whether the key can be used, and if not, why.
    pub state: KeyState,
    /// Since when it has been in this state.
    pub since: SystemTime,
    /// The last attempt to renew the lease that failed, until one succeeds.
    pub last_failure: Option<KeyFailure>,
    /// When the provider is asked next if nothing happens; `None`: when the store is used.
    pub next_probe: Option<SystemTime>,
}

/// An attempt to renew the lease that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyFailure {
    /// When.
    pub at: SystemTime,
    /// What the caller does next.
    pub kind: ErrorKind,
    /// What happened, in a sentence.
    pub message: String,
}

impl Gate {
    pub(crate) fn report(&self, store: &StoreInner) -> KeyReport {
        // Lets a change that nobody noticed yet be one first.
        let now_known = self.key_state(store);
        self.with(store, |state, now| KeyReport {
            state: now_known,
            since: state.transitions.since(),
            last_failure: state.failure.as_ref().map(Failure::report),
            next_probe: if state.closed { None } else { state.lease.next_probe(now) },
        })
    }
}

/// A failed renewal, as every request is told of it until the next.
pub(super) struct Failure {
    pub(super) at: Now,
    kind: ErrorKind,
    pub(super) message: String,
    denied: Option<DenyReason>,
    retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(at: Now, error: &Error) -> Self {
        Self {
            at,
            kind: error.kind(),
            message: error.to_string(),
            denied: error.denied(),
            retry_after: error.retry_after(),
        }
    }

    pub(super) fn to_error(&self) -> Error {
        match self.denied {
            Some(reason) => Error::revoked(reason, self.message.clone()),
            None => Error::new(self.kind, self.message.clone()),
        }
        .with_retry_after(self.retry_after)
    }

    fn report(&self) -> KeyFailure {
        KeyFailure { at: self.at.wall, kind: self.kind, message: self.message.clone() }
    }
}
