//! The keeper: one task per store that renews its lease while it is in use, probes a denied key, wipes, and starts the
//! rotation to a newer version of the key.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bulla_kek::Next;
use futures::future::{Either, select};

use super::{Gate, versions};
use crate::store::StoreInner;

/// Renews the lease while the store is in use, probes a denied key, wipes when the lease ends.
pub(super) async fn keep(store: Weak<StoreInner>) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        let wait = inner.gate.turn(&inner).await;
        if inner.gate.is_closed() {
            return;
        }
        let runtime = Arc::clone(&inner.parts.runtime);
        inner.gate.tell_of_versions(&inner);
        if let Some((party, from)) = inner.gate.with(&inner, |state, _| state.take_rotation()) {
            runtime.spawn(Box::pin(versions::follow(Arc::clone(&inner), party, from)));
        }
        match wait {
            Some(wait) => {
                // While waiting only the weak reference is held, so that a dropped store goes at once.
                let changed = Arc::clone(&inner.gate.changed);
                drop(inner);
                let sleep = runtime.sleep(wait);
                match select(Box::pin(changed.notified()), sleep).await {
                    Either::Left(_) | Either::Right(_) => {}
                }
            }
            None => {
                let changed = Arc::clone(&inner.gate.changed);
                drop(inner);
                changed.notified().await;
            }
        }
    }
}

impl Gate {
    /// One turn of the keeper: how long to wait before the next, `None` until something changes.
    async fn turn(&self, store: &StoreInner) -> Option<Duration> {
        if self.next(store)? == Next::Probe {
            self.probe(store).await?;
        }
        match self.next(store)? {
            // A success that did not count, or a failure before the provider was asked: not in a tight loop.
            Next::Probe => Some(Duration::from_millis(50)),
            Next::Wait(wait) => Some(wait.max(Duration::from_millis(1))),
            Next::Idle => None,
        }
    }

    /// Renews, and wipes on time whatever that waits for: bucket, provider, or somebody else's renewal.
    async fn probe(&self, store: &StoreInner) -> Option<()> {
        let mut renewal = pin!(async {
            let _renewing = self.renewing.lock().await;
            if self.next(store)? == Next::Probe
                && let Err(error) = self.renew(store).await
            {
                tracing::debug!(%error, "the lease was not renewed");
            }
            Some(())
        });
        loop {
            let until_the_end =
                self.with(store, |state, now| state.lease.remaining(now).unwrap_or(state.bound));
            match select(renewal.as_mut(), store.parts.runtime.sleep(until_the_end)).await {
                Either::Left((done, _)) => return done,
                Either::Right(_) => drop(self.next(store)?),
            }
        }
    }

    /// What the lease wants; wipes what it no longer covers. `None`: the store was closed.
    fn next(&self, store: &StoreInner) -> Option<Next> {
        self.with(store, |state, now| {
            if state.closed {
                return None;
            }
            if state.lease.usable(now).is_err() {
                state.wipe(store);
            }
            Some(state.lease.next(now))
        })
    }
}
