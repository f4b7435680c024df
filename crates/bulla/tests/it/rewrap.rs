//! Rewrap: every DEK is wrapped again, nothing is ever unreadable, nothing deleted comes back, and no key is retired before
//! a count says that nothing is under it.

mod envelopes;
mod jobs;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla::{
    Count, ErrorKind, PutOptions, Rewrap, Store, StoreKeyState, SweepEvent, SweepOptions, SweepPhase,
};
use bulla_envelope::envelope::{Envelope, EnvelopeHeader};
use bulla_envelope::ids::StoreKeyId;
use bulla_envelope::job::{Claim, JOB_KIND, Job, Row, Sweep};
use bulla_envelope::record::UnverifiedRecord;
use bulla_envelope::secret::Root;
use bulla_testkit::scripted::{Op, already_exists, broken_connection, precondition};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::support::*;

async fn rewrap(store: &Store) -> bulla::Result<Rewrap> {
    store.rewrap(SweepOptions::default(), |_| {}).await
}

/// Runs a rewrap and keeps what it said.
async fn watched(store: &Store) -> (bulla::Result<Rewrap>, Vec<SweepEvent>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let result = {
        let events = Arc::clone(&events);
        store.rewrap(SweepOptions::default(), move |event| events.lock().unwrap().push(event)).await
    };
    let events = std::mem::take(&mut *events.lock().unwrap());
    (result, events)
}

/// The kids of an envelope's wraps.
async fn kids(world: &World, key: &str) -> Vec<String> {
    let envelope = Envelope::decode(&world.read(key).await).unwrap();
    envelope.wraps.into_iter().map(|wrap| wrap.kid).collect()
}

async fn states(store: &Store) -> Vec<StoreKeyState> {
    store.status().await.unwrap().store_keys.into_iter().map(|(_, state)| state).collect()
}

async fn active(store: &Store) -> StoreKeyId {
    let keys = store.status().await.unwrap().store_keys;
    keys.into_iter().find(|(_, state)| *state == StoreKeyState::Active).unwrap().0
}

/// Begins a rewrap and drops it after its record, before the sweep.
async fn begin(world: &World) {
    let begun = tokio::time::timeout(R / 2, rewrap(&world.store)).await;
    assert!(begun.is_err(), "it waits R first");
    assert_eq!(states(&world.store).await, [StoreKeyState::Retiring, StoreKeyState::Active]);
}

#[tokio::test(start_paused = true)]
async fn every_dek_is_wrapped_again_and_nothing_else_changes() {
    let world = World::new().await;
    let puts = [world.put(&data(10)).await, world.put(&large()).await, world.put(b"").await];
    let before = active(&world.store).await;
    let data_before: Vec<_> = world.keys("data").await;
    let mut envelopes = Vec::new();
    for key in world.keys("blobs").await {
        envelopes.push((key.clone(), Envelope::decode(&world.read(&key).await).unwrap()));
    }
    world.script.take_requests();

    let done = rewrap(&world.store).await.unwrap();

    let after = active(&world.store).await;
    assert_ne!(before, after);
    assert_eq!(done.from, [format!("store-key:{before}")]);
    assert_eq!(done.to, format!("store-key:{after}"));
    assert_eq!((done.rewrapped, done.resumed), (3, false));
    assert_eq!(done.count.envelopes, 3);
    assert_eq!((done.count.under(&done.from[0]), done.count.under(&done.to)), (0, 3));
    // FORMAT-E13
    for (key, old) in envelopes {
        let new = Envelope::decode(&world.read(&key).await).unwrap();
        assert_eq!((new.header, &new.sealed), (old.header, &old.sealed));
        assert_eq!(kids(&world, &key).await, std::slice::from_ref(&done.to));
    }
    assert_eq!(world.keys("data").await, data_before);
    let requests = world.script.take_requests();
    assert!(requests.iter().all(|(_, key)| !key.starts_with("data/")), "data was touched");
    assert_eq!(states(&world.store).await, [StoreKeyState::Retired, StoreKeyState::Active]);
    assert_eq!(world.keys("jobs").await.len(), 0, "the job goes with the work");
    let (fresh, ..) = world.node(2).await;
    for (put, content) in puts.iter().zip([data(10), large(), Vec::new()]) {
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), content);
        assert_eq!(get(&fresh, &put.digest).await.unwrap(), content);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewrap_asks_the_key_provider_for_nothing_but_the_lease() {
    let world = World::new().await;
    for i in 0..40_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    let before = world.provider.calls();
    rewrap(&world.store).await.unwrap();
    let after = world.provider.calls();
    assert_eq!(after.wrap, before.wrap);
    // One R of waiting, renewed at every half of it.
    assert!(after.unwrap - before.unwrap <= 3, "{before:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn it_waits_until_every_writer_has_seen_the_new_key() {
    let world = World::new().await;
    world.put(&data(10)).await;
    let started = tokio::time::Instant::now();
    let (result, events) = watched(&world.store).await;
    result.unwrap();
    assert!(started.elapsed() >= R);
    let waits = events.iter().filter(|event| matches!(event, SweepEvent::Waiting(_))).count();
    assert_eq!(waits, 1);
}

#[tokio::test(start_paused = true)]
async fn events_tell_the_whole_story() {
    let world = World::new().await;
    for i in 0..20_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    let (done, events) = watched(&world.store).await;
    let done = done.unwrap();
    assert!(
        matches!(&events[0], SweepEvent::Started { from, to, resumed: false } if *from == done.from && *to == done.to)
    );
    assert!(matches!(events[1], SweepEvent::Waiting(_)));
    let rows = events.iter().filter(|event| matches!(event, SweepEvent::RowDone(_))).count();
    assert_eq!(rows, 16);
    for phase in [SweepPhase::Rewrap, SweepPhase::Count] {
        let last = events.iter().rev().find_map(|event| match event {
            SweepEvent::Progress(progress) if progress.phase == phase => Some(progress),
            _ => None,
        });
        let last = last.unwrap();
        assert_eq!((last.done, last.total, last.envelopes), (256, 256, 20), "{phase}");
    }
    assert!(matches!(&events[events.len() - 2], SweepEvent::Counted(count) if count.envelopes == 20));
    assert!(matches!(&events[events.len() - 1], SweepEvent::Retired(kids) if *kids == done.from));
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_go_on_throughout() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    for i in 0..50_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    let (other, ..) = world.node(2).await;
    let options = SweepOptions { rate: NonZeroU32::new(10), ..SweepOptions::default() };
    let rewrapping = world.store.rewrap(options, |_| {});
    let traffic = async {
        for i in 100..300_u32 {
            pass(Duration::from_millis(400)).await;
            assert_eq!(get(&other, &put.digest).await.unwrap(), data(10));
            put_bytes(&other, i).await;
        }
    };
    let (done, ()) = tokio::join!(rewrapping, traffic);
    let done = done.unwrap();
    assert_eq!(done.count.under(&done.from[0]), 0);
    let (fresh, ..) = world.node(3).await;
    let listed: Vec<_> = fresh.list().try_collect().await.unwrap();
    assert_eq!(listed.len(), 251);
    for entry in listed {
        get(&fresh, &entry.digest).await.unwrap();
    }
}

async fn put_bytes(store: &Store, i: u32) {
    put(store, &i.to_be_bytes()).await;
}

#[tokio::test(start_paused = true)]
async fn the_kek_can_be_rotated_in_the_middle() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    begin(&world).await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    let done = rewrap(&world.store).await.unwrap();
    assert!(done.resumed);
    world.provider.deny("k", bulla::kek::DenyReason::Deleted);
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_stops_it_and_giving_it_back_lets_it_go_on() {
    let world = World::new().await;
    for i in 0..50_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let provider = world.provider.clone();
    world.script.before_nth(Op::Update, "blobs/", 10, move || {
        provider.deny("k", bulla::kek::DenyReason::Disabled);
        None
    });
    let options = SweepOptions { rate: NonZeroU32::new(1), ..SweepOptions::default() };
    let error = world.store.rewrap(options, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Revoked);
    world.provider.allow("k");
    pass(R).await;
    assert!(rewrap(&world.store).await.unwrap().resumed);
}
