//! Shredding: what nobody needs any more is destroyed after the grace, and nothing else.

use std::time::Duration;

use bulla::kek::DenyReason;
use bulla::{ErrorKind, OpenOptions, Shredded, Store, StoreKeyState, SweepOptions, Trust};
use bulla_envelope::DecodeError;
use bulla_envelope::envelope::Envelope;
use bulla_envelope::record::UnverifiedRecord;
use bulla_testkit::scripted::{Op, already_exists, broken_connection, precondition};

use crate::support::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn shred(store: &Store) -> bulla::Result<Shredded> {
    store.shred(DAY, SweepOptions::default(), |_| {}).await
}

async fn rewrap(world: &World) -> bulla::Rewrap {
    world.store.rewrap(SweepOptions::default(), |_| {}).await.unwrap()
}

/// Which records are stubs.
async fn stubs(world: &World) -> Vec<bool> {
    let mut stubs = Vec::new();
    for key in world.keys("store").await {
        stubs.push(UnverifiedRecord::decode(&world.read(&key).await).err() == Some(DecodeError::Stub));
    }
    stubs
}

#[tokio::test(start_paused = true)]
async fn a_retired_store_key_goes_after_the_grace_and_one_more_count() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let done = rewrap(&world).await;
    pass(DAY - R).await;
    assert_eq!(shred(&world.store).await.unwrap().store_keys, [] as [String; 0]);
    pass(2 * R).await;
    assert_eq!(shred(&world.store).await.unwrap().store_keys, done.from);
    let states = world.store.status().await.unwrap().store_keys;
    assert!(matches!(states.as_slice(), [(_, StoreKeyState::Active)]), "{states:?}");
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
    // Nothing is left to do.
    assert_eq!(shred(&world.store).await.unwrap(), Shredded::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_under_a_retired_key_is_wrapped_again_first() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let key = world.only("blobs").await;
    let late = world.read(&key).await;
    let done = rewrap(&world).await;
    pass(2 * DAY).await;
    // A put that was under way when its writer died arrives.
    world.write(&key, late).await;
    assert_eq!(shred(&world.store).await.unwrap().store_keys, done.from);
    let envelope = Envelope::decode(&world.read(&key).await).unwrap();
    assert_eq!(envelope.wraps[0].kid, done.to);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_envelope_keeps_a_retired_key() {
    let world = World::new().await;
    world.put(&data(10)).await;
    rewrap(&world).await;
    pass(2 * DAY).await;
    let key = world.only("blobs").await;
    let intact = world.read(&key).await;
    world.write(&key, intact[..intact.len() - 1].to_vec()).await;
    assert_eq!(shred(&world.store).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(world.store.status().await.unwrap().store_keys.len(), 2);
    world.write(&key, intact).await;
    assert_eq!(shred(&world.store).await.unwrap().store_keys.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retiring_key_is_never_shredded() {
    let world = World::new().await;
    world.put(&data(10)).await;
    let cut = world.store.rewrap(SweepOptions::default(), |_| {});
    assert!(tokio::time::timeout(R / 2, cut).await.is_err());
    pass(30 * DAY).await;
    assert_eq!(shred(&world.store).await.unwrap(), Shredded::default());
    assert_eq!(world.store.status().await.unwrap().store_keys.len(), 2);
}

// FORMAT-L4
#[tokio::test(start_paused = true)]
async fn old_records_become_stubs_where_they_hold_what_the_newest_does_not() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let first = world.pinned();
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    let second = world.pinned();
    assert_eq!(shred(&world.store).await.unwrap().records, 0, "not before the grace");
    pass(DAY + R).await;
    let shredded = shred(&world.store).await.unwrap();
    assert_eq!((shredded.records, shredded.altered.len()), (2, 0));
    assert_eq!(stubs(&world).await, [true, true, false]);
    // A node that remembers a record that is a stub now opens all the same.
    for floor in [first.floor, second.floor, None] {
        let options = OpenOptions { trust: Trust::Anchor(world.store.anchor()), floor };
        let store = world.reopen(options).await.unwrap();
        assert_eq!(get(&store, &put.digest).await.unwrap(), data(10));
    }
    // The old KEK, enabled or not, opens nothing in this bucket any more.
    world.provider.deny("new", DenyReason::Deleted);
    let options = OpenOptions { trust: Trust::OnFirstUse, floor: None };
    assert_eq!(world.reopen(options).await.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.allow("new");
    // And the log goes on.
    pass(R).await;
    world.rotate_to("k").await.unwrap();
    world.node(2).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_wraps_of_a_shredded_store_key_go_from_old_records_too() {
    let world = World::new().await;
    world.put(&data(10)).await;
    rewrap(&world).await;
    pass(2 * DAY).await;
    // The record without it is new: what is before that is still in its grace.
    let shredded = shred(&world.store).await.unwrap();
    assert_eq!((shredded.store_keys.len(), shredded.records), (1, 2));
    assert_eq!(stubs(&world).await, [true, true, false, false]);
    pass(2 * DAY).await;
    assert_eq!(shred(&world.store).await.unwrap().records, 1);
    assert_eq!(stubs(&world).await, [true, true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_holds_nothing_else_than_the_newest_stays() {
    let world = World::new().await;
    let (key, record) = next_record(&world, |record, _| record.identity = "another".to_owned()).await;
    world.write(&key, record).await;
    pass(2 * DAY).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(shred(&fresh).await.unwrap().records, 0);
    assert_eq!(stubs(&world).await, [false, false]);
}

#[tokio::test(start_paused = true)]
async fn an_altered_old_record_is_reported_and_left_alone() {
    let world = World::new().await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    pass(2 * DAY).await;
    let altered = b"altered".to_vec();
    world.write("store/00000001.cbor", altered.clone()).await;
    let shredded = shred(&world.store).await.unwrap();
    assert_eq!((shredded.records, shredded.altered), (1, vec![1]));
    assert_eq!(world.read("store/00000001.cbor").await, altered);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_put_back_from_a_copy_is_shredded_again() {
    let world = World::new().await;
    let copy = world.read("store/00000001.cbor").await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    pass(2 * DAY).await;
    assert_eq!(shred(&world.store).await.unwrap().records, 2);
    world.write("store/00000001.cbor", copy).await;
    assert_eq!(shred(&world.store).await.unwrap().records, 1);
    assert_eq!(stubs(&world).await, [true, true, false]);
}

// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn after_any_failed_write_of_a_stub_it_is_read_again() {
    for answer in [precondition as fn() -> object_store::Error, already_exists, broken_connection] {
        for applied in [true, false] {
            let world = World::new().await;
            world.provider.new_version("new");
            world.rotate_to("new").await.unwrap();
            pass(2 * DAY).await;
            match applied {
                true => world.script.after(Op::Update, "store/", move || Some(answer())),
                false => world.script.before(Op::Update, "store/", move || Some(answer())),
            }
            assert_eq!(shred(&world.store).await.unwrap().records, 2);
            assert!(world.script.is_done());
            assert_eq!(stubs(&world).await, [true, true, false]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killed_anywhere_the_store_opens_and_it_finishes_later() {
    let mut survives = 0;
    loop {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        let floor = world.pinned();
        rewrap(&world).await;
        world.provider.new_version("new");
        world.rotate_to("new").await.unwrap();
        pass(2 * DAY).await;
        // Its record first, then a stub for each older one; it dies after so many of them.
        let (op, after) = if survives == 0 { (Op::Create, 0) } else { (Op::Update, survives - 1) };
        for attempt in 0..8 {
            world
                .script
                .before_nth(op, "store/", if attempt == 0 { after } else { 0 }, || Some(broken_connection()));
        }
        let died = shred(&world.store).await.is_err();
        let (fresh, ..) = world.node(2).await;
        assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
        let store = engine(&world.runtime, &world.provider)
            .open(bucket(&bulla_testkit::scripted::ScriptedStore::new(world.raw.clone())), floor)
            .await
            .unwrap();
        shred(&store).await.unwrap();
        pass(2 * DAY).await;
        shred(&store).await.unwrap();
        assert_eq!(store.status().await.unwrap().store_keys.len(), 1);
        let left = stubs(&world).await.into_iter().filter(|is_stub| !is_stub).count();
        assert_eq!(left, 1, "only the newest");
        if !died {
            assert!(survives > 3);
            return;
        }
        survives += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_shreds_without_a_live_lease() {
    let world = World::new().await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    pass(2 * DAY).await;
    world.provider.deny("new", DenyReason::Disabled);
    assert_eq!(shred(&world.store).await.unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(stubs(&world).await, [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn gc_shreds_too() {
    let world = World::new().await;
    world.put(&data(10)).await;
    rewrap(&world).await;
    pass(2 * DAY).await;
    let options = bulla::GcOptions { dry_run: true, ..bulla::GcOptions::default() };
    world.store.gc(options, |_| {}).await.unwrap();
    assert_eq!(world.store.status().await.unwrap().store_keys.len(), 2, "a rehearsal changes nothing");
    let report = world.store.gc(bulla::GcOptions::default(), |_| {}).await.unwrap();
    assert_eq!((report.shredded.store_keys.len(), report.shredded.records), (1, 2));
    assert_eq!(world.store.status().await.unwrap().store_keys.len(), 1);
}
