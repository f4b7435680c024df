//! The recorder: one task per store with an audit log, which writes what waits.

use std::sync::{Arc, Weak};

use futures::future::{Either, select};

use crate::store::StoreInner;

/// Starts the recorder, which lives as long as the store.
pub(super) fn start(store: &Arc<StoreInner>) {
    store.parts.runtime.spawn(Box::pin(record(Arc::downgrade(store))));
}

async fn record(store: Weak<StoreInner>) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        if inner.gate.is_closed() {
            return;
        }
        let (runtime, events) = (Arc::clone(&inner.parts.runtime), Arc::clone(&inner.parts.events));
        let (now, lease) = (runtime.now(), inner.gate.remaining(&inner));
        let due = events.audit().lock().due(now, lease, inner.gate.revocation_bound());
        match due {
            Some(wait) if wait.is_zero() => {
                // What went wrong is noted in the queue, which says when to try again.
                let _ = inner.flush_audit().await;
            }
            // While waiting only the weak reference is held, so that a dropped store goes at once.
            Some(wait) => {
                drop(inner);
                let changed = std::pin::pin!(events.audit().changed.notified());
                match select(changed, runtime.sleep(wait)).await {
                    Either::Left(_) | Either::Right(_) => {}
                }
            }
            None => {
                drop(inner);
                events.audit().changed.notified().await;
            }
        }
    }
}
