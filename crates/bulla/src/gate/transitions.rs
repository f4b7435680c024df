//! What the key's state became, once per change: for whoever watches, and as an event.

use std::mem::discriminant;
use std::time::SystemTime;

use bulla_envelope::ids::StoreId;
use bulla_kek::{LeaseState, Now};
use tokio::sync::watch;

use super::KeyState;

/// Follows the state of a store's key. Costs no calls to anybody: the store's own renewals drive it.
///
/// A change is from one of these to another: live, live while the provider is out of reach, expired, revoked (for each
/// reason), unavailable. A renewal that only moves the lease's end is none. An unused store's key *expires* after R and is
/// live again at the next use: both are changes, and neither is an alarm.
#[derive(Clone, Debug)]
pub struct KeyStateWatch {
    receiver: watch::Receiver<KeyState>,
}

impl KeyStateWatch {
    /// The state after the last change.
    #[must_use]
    pub fn current(&self) -> KeyState {
        *self.receiver.borrow()
    }

    /// Waits for a change that this watch has not given yet, and gives the state after it; `None` once the store was closed
    /// or its last handle dropped. Who looks seldom sees the newest state, not each one between.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not given yet is given by the next call.
    pub async fn changed(&mut self) -> Option<KeyState> {
        self.receiver.changed().await.ok()?;
        Some(*self.receiver.borrow_and_update())
    }
}

/// The last change, and who is told of the next.
pub(super) struct Transitions {
    state: KeyState,
    since: SystemTime,
    /// A loss was told, and no return yet.
    alarmed: bool,
    /// Gone when the store was closed.
    watched: Option<watch::Sender<KeyState>>,
}

impl Transitions {
    pub(super) fn new(state: KeyState, now: Now) -> Self {
        Self { state, since: now.wall, alarmed: false, watched: Some(watch::Sender::new(state)) }
    }

    /// Since when it has been as it is.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    pub(super) fn watch(&self) -> KeyStateWatch {
        let receiver = match &self.watched {
            Some(watched) => watched.subscribe(),
            // Of a closed store: its state, and then the end.
            None => watch::channel(self.state).1,
        };
        KeyStateWatch { receiver }
    }

    pub(super) fn end(&mut self) {
        self.watched = None;
    }

    /// Takes note of the state; what to say of it if it changed.
    pub(super) fn note(&mut self, state: KeyState, now: Now) -> Option<Transition> {
        if is_same(&self.state, &state) {
            self.state = state;
            return None;
        }
        let from = std::mem::replace(&mut self.state, state);
        self.since = now.wall;
        // That a store was closed is no news of its key.
        self.watched.as_ref()?.send_replace(state);
        let is_live = matches!(state, LeaseState::Live { outage_since: None, .. });
        let ends_alarm = is_live && self.alarmed;
        // That an unused lease ran out is no loss, and no return either.
        self.alarmed = !is_live && (self.alarmed || !matches!(state, LeaseState::Expired));
        Some(Transition { from, to: state, ends_alarm })
    }
}

/// A change of the key's state.
pub(super) struct Transition {
    from: KeyState,
    to: KeyState,
    ends_alarm: bool,
}

impl Transition {
    /// One event. Not under the gate's lock: a subscriber may ask the store something.
    pub(super) fn tell(&self, store: StoreId, failure: Option<&str>) {
        let (from, to) = (name(&self.from), name(&self.to));
        match &self.to {
            LeaseState::Revoked { reason, .. } => {
                let reason = reason.code();
                tracing::warn!(%store, from, to, reason, failure, "the key is revoked: everything unwrapped was wiped");
            }
            // As loud as its loss was, for who sees warnings only.
            LeaseState::Live { outage_since: None, .. } if self.ends_alarm => {
                tracing::warn!(%store, from, to, "the key can be used again");
            }
            LeaseState::Live { outage_since: None, .. } => {
                tracing::info!(%store, from, to, "the key can be used");
            }
            LeaseState::Live { .. } => {
                tracing::warn!(%store, from, to, reason = failure, "the lease is not renewed; it goes on until its end");
            }
            LeaseState::Expired => tracing::debug!(%store, from, to, "the lease ran out unused"),
            _ => {
                tracing::warn!(%store, from, to, reason = failure, "the key is out of reach: everything unwrapped was wiped")
            }
        }
    }
}

/// The state in a word, as events and `status` have it.
fn name(state: &KeyState) -> &'static str {
    match state {
        LeaseState::Live { outage_since: None, .. } => "live",
        LeaseState::Live { .. } => "outage",
        LeaseState::Expired => "expired",
        LeaseState::Revoked { .. } => "revoked",
        _ => "unavailable",
    }
}

fn is_same(a: &KeyState, b: &KeyState) -> bool {
    match (a, b) {
        (LeaseState::Live { outage_since: a, .. }, LeaseState::Live { outage_since: b, .. }) => {
            a.is_some() == b.is_some()
        }
        (LeaseState::Revoked { reason: a, .. }, LeaseState::Revoked { reason: b, .. }) => a == b,
        _ => discriminant(a) == discriminant(b),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bulla_kek::{DenyReason, Runtime, TokioRuntime};

    use super::*;

    #[test]
    fn a_return_is_told_as_loudly_as_the_loss() {
        let now = TokioRuntime.now();
        let since = UNIX_EPOCH;
        let live = |outage_since| LeaseState::Live {
            granted: UNIX_EPOCH,
            until: UNIX_EPOCH + Duration::from_secs(60),
            outage_since,
        };
        let revoked = LeaseState::Revoked { reason: DenyReason::Disabled, since };
        for (states, ends_alarm) in [
            (&[live(None)][..], false),
            (&[live(None), LeaseState::Expired, live(None)], false),
            (&[live(None), revoked, live(None)], true),
            (&[live(None), revoked, live(None), LeaseState::Expired, live(None)], false),
            (&[live(None), live(Some(since)), live(None)], true),
            // Nobody used the store meanwhile.
            (&[live(None), live(Some(since)), LeaseState::Expired, live(None)], true),
            (&[LeaseState::Unavailable { since }, live(None)], true),
        ] {
            let mut transitions = Transitions::new(LeaseState::Expired, now);
            let told = states.iter().filter_map(|state| transitions.note(*state, now)).last().unwrap();
            assert_eq!(told.ends_alarm, ends_alarm, "{states:?}");
        }
    }
}
