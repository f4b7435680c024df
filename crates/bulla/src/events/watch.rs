//! The one place where calls to key providers are seen: around every provider that an engine was given.

use std::sync::Arc;

use bulla_kek::{Identity, KekError, KeyId, Now, ObservedCall, Observer, Operation};

use super::event::outcome_of;
use super::{Action, Event, Events, Outcome};

/// Makes calls events.
#[derive(Debug)]
pub(super) struct Watcher(pub(super) Arc<Events>);

impl Observer for Watcher {
    type Call = Call;

    fn asked(&self, operation: Operation, key: &KeyId, identity: &Identity) -> Call {
        let action = match operation {
            Operation::Describe => Action::Describe,
            Operation::Wrap => Action::Wrap,
            Operation::Unwrap => Action::Unwrap,
        };
        // No answer, until there is one: a call that its caller gives up drops this as it is.
        let mut event = self.0.event(action, Outcome::Unavailable);
        event.keys = vec![key.clone()];
        event.identity = Some(identity.clone());
        Call { events: Arc::clone(&self.0), event, sent: self.0.now() }
    }
}

/// A call under way; its end, whatever it is, is the event.
#[derive(Debug)]
pub(super) struct Call {
    events: Arc<Events>,
    event: Event,
    sent: Now,
}

impl ObservedCall for Call {
    fn answered(&mut self, answer: Result<&KeyId, &KekError>) {
        match answer {
            Ok(key) => {
                self.event.outcome = Outcome::Done;
                // Asked without a version, it is the answer that names one.
                self.event.keys = vec![key.clone()];
            }
            Err(error) => {
                self.event.outcome = outcome_of(error);
                self.event.reason = error.deny_reason();
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.event.at = self.events.now().wall;
        self.event.latency = self.events.since(self.sent);
        self.events.emit(&self.event);
    }
}
