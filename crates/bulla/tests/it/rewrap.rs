//! Rewrap: every DEK is wrapped again, nothing is ever unreadable, nothing deleted comes back, and no key is retired before
//! a count says that nothing is under it.

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

/// The job of the rewrap that is under way: its key, its name, and what seals it.
struct JobPlace {
    key: String,
    name: String,
    header: EnvelopeHeader,
    root: Root,
}

impl JobPlace {
    async fn of(world: &World) -> Self {
        let root = root(world).await;
        let newest = world.keys("store").await.pop().unwrap();
        let record = UnverifiedRecord::decode(&world.read(&newest).await).unwrap().hint().clone();
        let key = record.store_keys.iter().find(|key| key.state == StoreKeyState::Active).unwrap();
        let name = format!("sweep:{}:store-key:{}", key.since, key.id);
        let header = EnvelopeHeader { store: record.store, root: record.roots[0].id };
        Self { key: root.name_key(JOB_KIND).job_key(&name), name, header, root }
    }

    fn seal(&self, sweep: Sweep) -> Vec<u8> {
        let crypto = bulla::CryptoProvider::best();
        let job = Job::Sweep(Box::new(sweep));
        job.seal(crypto, &self.root.meta_key(), self.header, &self.name, [9; 24]).unwrap()
    }

    fn open(&self, object: &[u8]) -> Sweep {
        let crypto = bulla::CryptoProvider::best();
        match Job::open(crypto, &self.root.meta_key(), self.header, &self.name, object).unwrap() {
            Job::Sweep(sweep) => *sweep,
            other => panic!("{other:?}"),
        }
    }
}

fn all_done() -> Sweep {
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows = [Row { next: 16, ..Row::default() }; 16];
    sweep
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
async fn an_interrupted_rewrap_is_gone_on_with_and_not_begun_anew() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    begin(&world).await;
    let key = active(&world.store).await;
    let (other, ..) = world.node(2).await;
    assert_eq!(get(&other, &put.digest).await.unwrap(), data(10));
    let done = rewrap(&other).await.unwrap();
    assert!(done.resumed);
    assert_eq!(done.to, format!("store-key:{key}"));
    assert_eq!(world.keys("store").await.len(), 3);
    // The next one is new.
    assert!(!rewrap(&other).await.unwrap().resumed);
}

#[tokio::test(start_paused = true)]
async fn what_was_waited_and_swept_before_is_not_done_again() {
    let world = World::new().await;
    for i in 0..50_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    // Dies on its way from the sweep to the record: the count is not kept.
    for attempt in 0..5 {
        let skip = usize::from(attempt == 0);
        world.script.before_nth(Op::Create, "store/", skip, || Some(broken_connection()));
    }
    assert_eq!(rewrap(&world.store).await.unwrap_err().kind(), ErrorKind::Unavailable);
    world.script.take_requests();
    let started = tokio::time::Instant::now();
    let done = rewrap(&world.store).await.unwrap();
    assert!(started.elapsed() < R / 2, "it waited again");
    assert_eq!(done.rewrapped, 0);
    // Read once more, to be counted; written no more.
    let requests = world.script.take_requests();
    assert_eq!((count(&requests, Op::Get, "blobs/"), count(&requests, Op::Update, "blobs/")), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_begin_at_once_one_begins_and_both_finish() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    let (a, b) = tokio::join!(rewrap(&world.store), rewrap(&other));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((&a.to, a.rewrapped + b.rewrapped), (&b.to, 1));
    assert_eq!(world.keys("store").await.len(), 3);
    assert_eq!(get(&other, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn several_nodes_share_a_sweep() {
    let world = World::new().await;
    for i in 0..200_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let (b, ..) = world.node(2).await;
    let (c, ..) = world.node(3).await;
    // So slow that each has its part in it.
    let options = SweepOptions { rate: NonZeroU32::new(20), ..SweepOptions::default() };
    let run = async |store: &Store| store.rewrap(options, |_| {}).await.unwrap().rewrapped;
    let parts = tokio::join!(run(&world.store), run(&b), run(&c));
    assert_eq!(parts.0 + parts.1 + parts.2, 200, "{parts:?}");
    assert!([parts.0, parts.1, parts.2].iter().all(|part| *part > 20), "{parts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_node_that_died_is_taken_over() {
    let world = World::new().await;
    for i in 0..100_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    let now = bulla::kek::Runtime::now(&world.runtime).unix_ms();
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows = [Row { claim: Some(Claim { node: [1; 16], until: now + 15_000 }), ..Row::default() }; 16];
    world.write(&place.key, place.seal(sweep)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(rewrap(&world.store).await.unwrap().rewrapped, 100);
    assert!((Duration::from_secs(14)..R).contains(&started.elapsed()), "{:?}", started.elapsed());
}

/// A node whose clock is a year ahead does not block the others for a year.
#[tokio::test(start_paused = true)]
async fn a_claim_made_under_a_wrong_clock_is_not_waited_for() {
    let world = World::new().await;
    world.put(&data(10)).await;
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows[3].claim = Some(Claim { node: [1; 16], until: 253_402_300_799_999 });
    world.write(&place.key, place.seal(sweep)).await;
    let done = tokio::time::timeout(R, rewrap(&world.store)).await;
    assert!(done.unwrap().is_ok());
}

/// A job object may be an old one that somebody put back, or lie: the count decides.
// FORMAT-P14
#[tokio::test(start_paused = true)]
async fn a_job_that_says_done_retires_nothing() {
    let world = World::new().await;
    world.put(&data(10)).await;
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    world.write(&place.key, place.seal(all_done())).await;
    let (done, events) = watched(&world.store).await;
    let done = done.unwrap();
    assert_eq!((done.rewrapped, done.count.under(&done.from[0])), (1, 0));
    let counts: Vec<&Count> = events
        .iter()
        .filter_map(|event| if let SweepEvent::Counted(count) = event { Some(count) } else { None })
        .collect();
    assert_eq!(counts.len(), 2);
    assert!(!counts[0].is_safe_to_retire(&done.from[0]));
    assert!(counts[1].is_safe_to_retire(&done.from[0]));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cant_be_read_is_begun_anew() {
    for junk in [b"junk".to_vec(), Vec::new(), vec![0; 10_000]] {
        let world = World::new().await;
        world.put(&data(10)).await;
        begin(&world).await;
        let place = JobPlace::of(&world).await;
        world.write(&place.key, junk).await;
        assert_eq!(rewrap(&world.store).await.unwrap().rewrapped, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_later_version_is_left_alone() {
    let world = World::new().await;
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    world.write(&place.key, vec![0x83, 0x02, 0x40, 0x40]).await;
    let error = rewrap(&world.store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_say_how_far_it_is() {
    let world = World::new().await;
    for i in 0..100_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let options = SweepOptions { rate: NonZeroU32::new(5), ..SweepOptions::default() };
    // R passes, then half of the sweep.
    let cut = tokio::time::timeout(R + Duration::from_secs(10), world.store.rewrap(options, |_| {})).await;
    assert!(cut.is_err());
    let place = JobPlace::of(&world).await;
    let sweep = place.open(&world.read(&place.key).await);
    assert!(sweep.waited);
    let done: u64 = sweep.rows.iter().map(|row| row.rewrapped).sum();
    assert!((30..=55).contains(&done), "{done}");
    let rest = rewrap(&world.store).await.unwrap();
    assert!(rest.rewrapped <= 100 - done, "{} after {done}", rest.rewrapped);
}

// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn after_any_failed_write_of_an_envelope_it_is_read_again() {
    for (applied, answer) in [
        (true, precondition as fn() -> object_store::Error),
        (true, already_exists),
        (true, broken_connection),
        (false, precondition),
        (false, already_exists),
        (false, broken_connection),
    ] {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        match applied {
            true => world.script.after(Op::Update, "blobs/", move || Some(answer())),
            false => world.script.before(Op::Update, "blobs/", move || Some(answer())),
        }
        let done = rewrap(&world.store).await.unwrap();
        assert!(world.script.is_done());
        assert_eq!(done.rewrapped, 1, "{applied}");
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
    }
}

// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn after_any_failed_write_of_a_job_it_is_read_again() {
    for answer in [precondition as fn() -> object_store::Error, already_exists, broken_connection] {
        for applied in [true, false] {
            let world = World::new().await;
            world.put(&data(10)).await;
            for op in [Op::Create, Op::Update, Op::Update, Op::Update] {
                match applied {
                    true => world.script.after(op, "jobs/", move || Some(answer())),
                    false => world.script.before(op, "jobs/", move || Some(answer())),
                }
            }
            assert_eq!(rewrap(&world.store).await.unwrap().rewrapped, 1);
            assert!(world.script.is_done());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_deleted_meanwhile_does_not_come_back() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    // Between the read and the conditional write.
    let held = world.script.hold(Op::Update, "blobs/");
    let delete = async {
        pass(2 * R).await;
        other.delete(&put.digest).await.unwrap();
        drop(held);
    };
    let (done, ()) = tokio::join!(rewrap(&world.store), delete);
    let done = done.unwrap();
    assert_eq!((done.rewrapped, done.count.envelopes), (0, 0));
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_blob_deleted_before_is_skipped() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.store.delete(&put.digest).await.unwrap();
    let tombstone = world.read(&world.only("blobs").await).await;
    assert_eq!(rewrap(&world.store).await.unwrap().count.envelopes, 0);
    assert_eq!(world.read(&world.only("blobs").await).await, tombstone);
}

#[tokio::test(start_paused = true)]
async fn a_blob_replaced_meanwhile_is_the_newer_word() {
    let world = World::new().await;
    let options = PutOptions { ttl: Some(Duration::from_secs(3600)), ..PutOptions::default() };
    let put = world.store.put_bytes(data(10), options).await.unwrap();
    let (other, ..) = world.node(2).await;
    // A put without an expiry replaces one with.
    let held = world.script.hold(Op::Update, "blobs/");
    let replace = async {
        pass(2 * R).await;
        other.put_bytes(data(10), PutOptions::default()).await.unwrap();
        drop(held);
    };
    let (done, ()) = tokio::join!(rewrap(&world.store), replace);
    let done = done.unwrap();
    assert_eq!(done.count.under(&done.to), 1);
    assert_eq!(world.store.stat(&put.digest).await.unwrap().expires, None);
    assert_eq!(kids(&world, &world.only("blobs").await).await, [done.to]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_blob_is_swept_like_others() {
    let world = World::new().await;
    let options = PutOptions { ttl: Some(Duration::from_secs(1)), ..PutOptions::default() };
    world.store.put_bytes(data(10), options).await.unwrap();
    pass(Duration::from_secs(2)).await;
    let done = rewrap(&world.store).await.unwrap();
    assert_eq!((done.rewrapped, done.count.under(&done.to)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_envelope_is_named_and_keeps_the_key_from_being_retired() {
    let world = World::new().await;
    let good = world.put(&data(10)).await;
    let bad = world.put(&data(11)).await;
    let keys = world.keys("blobs").await;
    let key = {
        let mut found = None;
        for key in keys {
            let sealed = Envelope::decode(&world.read(&key).await).unwrap().sealed.len();
            // One byte longer.
            let longer = found.as_ref().is_none_or(|(_, before)| sealed > *before);
            if longer {
                found = Some((key, sealed));
            }
        }
        found.unwrap().0
    };
    let mut object = world.read(&key).await;
    let intact = object.clone();
    *object.last_mut().unwrap() ^= 1;
    world.write(&key, object).await;

    let (result, events) = watched(&world.store).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&key), "{error}");
    assert!(error.to_string().contains("bulla rm"), "{error}");
    assert!(
        events.iter().any(|event| matches!(event, SweepEvent::Failed { key: named, .. } if *named == key))
    );
    assert!(!events.iter().any(|event| matches!(event, SweepEvent::Retired(_))));
    // The sweep went on after it.
    let good_key = world.keys("blobs").await.into_iter().find(|other| *other != key).unwrap();
    assert_eq!(kids(&world, &good_key).await, [format!("store-key:{}", active(&world.store).await)]);
    assert_eq!(states(&world.store).await, [StoreKeyState::Retiring, StoreKeyState::Active]);

    world.write(&key, intact).await;
    let done = rewrap(&world.store).await.unwrap();
    assert!(done.resumed);
    assert_eq!(done.count.under(&done.to), 2);
    assert_eq!(get(&world.store, &good.digest).await.unwrap(), data(10));
    assert_eq!(get(&world.store, &bad.digest).await.unwrap(), data(11));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_or_huge_object_among_envelopes_keeps_the_key_from_being_retired() {
    let world = World::new().await;
    world.put(&data(10)).await;
    let real = world.only("blobs").await;
    let foreign = format!("{}/stray", real.rsplit_once('/').unwrap().0);
    for object in [vec![1; 100], vec![1; (1 << 20) + 1]] {
        world.write(&foreign, object).await;
        let error = rewrap(&world.store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&foreign), "{error}");
    }
    world.remove(&foreign).await;
    rewrap(&world.store).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upload_session_that_does_not_open_keeps_the_key_from_being_retired() {
    let world = World::new().await;
    world.put(&data(10)).await;
    world.write("uploads/session", b"later".to_vec()).await;
    let error = rewrap(&world.store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("uploads/session"), "{error}");
    assert_eq!(states(&world.store).await, [StoreKeyState::Retiring, StoreKeyState::Active]);
    world.remove("uploads/session").await;
    assert!(rewrap(&world.store).await.unwrap().resumed);
}

/// A writer that died between its create and its acknowledgement may leave an envelope under a key that was retired.
#[tokio::test(start_paused = true)]
async fn what_a_dead_writer_left_under_a_retired_key_is_readable_and_wrapped_again_by_the_next_rewrap() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let key = world.only("blobs").await;
    let late = world.read(&key).await;
    let first = rewrap(&world.store).await.unwrap();
    world.write(&key, late).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
    assert_eq!(kids(&world, &key).await, first.from);
    let second = rewrap(&world.store).await.unwrap();
    assert_eq!(second.rewrapped, 1);
    assert_eq!(kids(&world, &key).await, [second.to]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_sweeper_leaves_nothing_under_a_key_that_was_replaced_meanwhile() {
    let world = World::new().await;
    world.put(&data(10)).await;
    begin(&world).await;
    let replaced = active(&world.store).await;
    let (key, record) = replace_store_key(&world, StoreKeyState::Retiring).await;
    let (runtime, raw) = (world.runtime.clone(), world.raw.clone());
    // Read, opened, wrapped again; and before the write this machine sleeps while another begins the next rewrap.
    world.script.before(Op::Update, "blobs/", move || {
        runtime.suspend(2 * R);
        futures::executor::block_on(raw.put(&Path::from(key), record.into())).unwrap();
        None
    });
    rewrap(&world.store).await.unwrap();
    assert!(world.script.is_done());
    let newest = active(&world.store).await;
    assert_ne!(newest, replaced);
    assert_eq!(kids(&world, &world.only("blobs").await).await, [format!("store-key:{newest}")]);
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_by_sweep_and_count_alike() {
    let world = World::new().await;
    for i in 0..100_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    pass(R).await;
    let place = JobPlace::of(&world).await;
    world.write(&place.key, place.seal(Sweep { waited: true, ..Sweep::new() })).await;
    let started = tokio::time::Instant::now();
    let options = SweepOptions { rate: NonZeroU32::new(10), concurrency: NonZeroUsize::new(64) };
    world.store.rewrap(options, |_| {}).await.unwrap();
    let took = started.elapsed();
    assert!((Duration::from_secs(18)..Duration::from_secs(30)).contains(&took), "{took:?}");
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
