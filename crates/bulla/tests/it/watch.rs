//! The state of the key, as whoever watches it is told: each change once, with its reason, at no cost.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla::kek::{DenyReason, Runtime};
use bulla::{ErrorKind, KeyState, KeyStateWatch};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

fn word(state: &KeyState) -> String {
    match state {
        KeyState::Live { outage_since: None, .. } => "live".into(),
        KeyState::Live { .. } => "outage".into(),
        KeyState::Revoked { reason, .. } => format!("revoked: {}", reason.code()),
        KeyState::Unavailable { .. } => "unavailable".into(),
        _ => "expired".into(),
    }
}

/// Writes down what a watch gives, until it ends.
fn record(mut watch: KeyStateWatch) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(vec![word(&watch.current())]));
    let sink = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Some(state) = watch.changed().await {
            assert_eq!(state, watch.current());
            sink.lock().unwrap().push(word(&state));
        }
        sink.lock().unwrap().push("end".into());
    });
    seen
}

/// Reads once a second, whatever comes of it.
async fn traffic(world: &World, digest: &bulla::Digest, time: Duration) {
    for _ in 0..time.as_secs() {
        pass(SECOND).await;
        let _ = get(&world.store, digest).await;
    }
}

/// One event of the engine about the key's state: its fields by name, in order.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("bulla")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        #[derive(Default)]
        struct Fields(Vec<(String, String)>);
        impl Visit for Fields {
            fn record_str(&mut self, field: &Field, value: &str) {
                self.0.push((field.name().to_owned(), value.to_owned()));
            }
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0.push((field.name().to_owned(), format!("{value:?}")));
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let value =
            |name: &str| fields.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        if let (Some(from), Some(to), Some(store)) = (value("from"), value("to"), value("store")) {
            assert!(!store.is_empty());
            let reason = value("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
            self.0.lock().unwrap().push(format!("{from} > {to}{reason}"));
        } else if let (Some(failure), Some(_)) = (value("failure"), value("store")) {
            self.0.lock().unwrap().push(format!("not followed: {failure}"));
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn each_change_is_told_once_with_its_reason() {
    let events = Events::default();
    // While there is only one, events that another test's thread meets first are switched off for all.
    let _second = tracing::Dispatch::new(Events::default());
    let _guard = tracing::subscriber::set_default(events.clone());
    let world = World::new().await;
    let seen = record(world.store.watch_key_state());
    let put = world.put(&data(10)).await;
    // Renewals are no changes.
    traffic(&world, &put.digest, 5 * R).await;
    world.provider.deny("k", DenyReason::Forbidden);
    traffic(&world, &put.digest, R).await;
    // Refused all the time, and for another reason then.
    world.provider.deny("k", DenyReason::Deleted);
    traffic(&world, &put.digest, R).await;
    world.provider.allow("k");
    traffic(&world, &put.digest, R).await;
    // An outage that is over in time.
    world.provider.set_down(true);
    traffic(&world, &put.digest, R / 2).await;
    world.provider.set_down(false);
    traffic(&world, &put.digest, R).await;
    // One that is not.
    world.provider.set_down(true);
    traffic(&world, &put.digest, 2 * R).await;
    world.provider.set_down(false);
    traffic(&world, &put.digest, R).await;
    // Nobody uses it.
    pass(3 * R).await;
    traffic(&world, &put.digest, SECOND).await;
    world.store.close().await;
    pass(SECOND).await;
    let expected = [
        "live",
        "revoked: Forbidden",
        "revoked: Deleted",
        "live",
        "outage",
        "live",
        "outage",
        "unavailable",
        "live",
        "expired",
        "live",
        "end",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    let told = [
        "live > revoked: Forbidden",
        "revoked > revoked: Deleted",
        "revoked > live",
        "live > outage: the key service does not answer",
        "outage > live",
        "live > outage: the key service does not answer",
        "outage > unavailable: the key service does not answer",
        "unavailable > live",
        "live > expired",
        "expired > live",
    ];
    assert_eq!(*events.0.lock().unwrap(), told);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_lease_is_told_when_it_ends() {
    let world = World::new().await;
    let mut watch = world.store.watch_key_state();
    let started = world.runtime.now();
    let state = watch.changed().await.unwrap();
    assert_eq!(state, KeyState::Expired);
    assert_eq!(world.runtime.now().boot - started.boot, R);
}

#[tokio::test(start_paused = true)]
async fn watching_asks_nobody() {
    let world = World::new().await;
    let seen = record(world.store.watch_key_state());
    pass(2 * R).await;
    let calls = world.provider.calls();
    world.script.take_requests();
    for _ in 0..100 {
        pass(R).await;
        let _ = world.store.watch_key_state().current();
        drop((world.store.key_report(), world.store.last_status()));
    }
    assert_eq!(world.provider.calls(), calls);
    assert_eq!(world.script.take_requests(), []);
    assert_eq!(*seen.lock().unwrap(), ["live", "expired"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_store() {
    for close in [true, false] {
        let world = World::new().await;
        let mut watch = world.store.watch_key_state();
        if close {
            world.store.close().await;
            assert_eq!(world.store.watch_key_state().changed().await, None, "one that begins after the end");
        } else {
            drop(world);
        }
        assert_eq!(watch.changed().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_says_since_when_what_failed_and_what_comes_next() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let opened = world.runtime.now().wall;
    traffic(&world, &put.digest, 3 * R).await;
    let report = world.store.key_report();
    assert_eq!((report.since, report.last_failure), (opened, None), "renewals change nothing");
    let next = report.next_probe.unwrap();
    assert!(next.duration_since(world.runtime.now().wall).unwrap() <= R / 2);

    world.provider.deny("k", DenyReason::Disabled);
    traffic(&world, &put.digest, R).await;
    let report = world.store.key_report();
    let KeyState::Revoked { reason: DenyReason::Disabled, since } = report.state else {
        panic!("{report:?}")
    };
    assert_eq!(report.since, since);
    let failure = report.last_failure.unwrap();
    assert_eq!((failure.kind, failure.message.as_str()), (ErrorKind::Revoked, "the key is disabled"));
    let next = report.next_probe.unwrap();
    assert!(next.duration_since(world.runtime.now().wall).unwrap() <= 15 * SECOND);

    // The status of before is there, and says that it is.
    assert_eq!(world.store.status().await.unwrap_err().kind(), ErrorKind::Revoked);
    let status = world.store.last_status();
    assert_eq!(status.store, world.store.id());
    assert!(status.read < since);
    assert!(matches!(status.key_report.state, KeyState::Revoked { .. }));
    assert_eq!(status.warnings, ["nothing can be read: the key is disabled"]);

    world.provider.allow("k");
    traffic(&world, &put.digest, R).await;
    let report = world.store.key_report();
    assert!(report.since > since && report.last_failure.is_none(), "{report:?}");
    pass(3 * R).await;
    assert_eq!(world.store.key_report().next_probe, None, "when it is used");
}

#[tokio::test(start_paused = true)]
async fn that_a_version_is_not_followed_is_told_once_per_attempt() {
    let events = Events::default();
    let _second = tracing::Dispatch::new(Events::default());
    let _guard = tracing::subscriber::set_default(events.clone());
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let version = world.provider.new_version("k");
    world.provider.set_enabled(&version, false);
    traffic(&world, &put.digest, Duration::from_secs(3600 * 5 / 2)).await;
    let told = std::mem::take(&mut *events.0.lock().unwrap());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|told| told.starts_with("not followed: the key https://sim.vault")), "{told:?}");
}
