//! Gc: what nobody names goes, and nothing else.

use std::time::Duration;

use bulla::{ErrorKind, GcOptions, GcProgress, GcReport, PutOptions, Store};
use bulla_testkit::bucket::SimBucket;
use bulla_testkit::scripted::{Op, already_exists, broken_connection};
use futures::TryStreamExt;

use crate::support::*;

/// Long enough for a gc with a short grace to have waited for writers.
const WAIT: Duration = Duration::from_secs(121);

async fn gc(store: &Store, grace: Duration) -> bulla::Result<GcReport> {
    // What happened until now is older.
    pass(Duration::from_millis(1)).await;
    store.gc(GcOptions { grace: Some(grace), ..GcOptions::default() }, |_| {}).await
}

/// Data that no envelope names: of a put whose process was killed.
async fn orphans(store: &Store) {
    let mut upload = store.upload(PutOptions::default()).await.unwrap();
    upload.write(data(5 << 20).into()).await.unwrap();
    pass(Duration::from_secs(1)).await;
    drop(upload);
}

#[tokio::test(start_paused = true)]
async fn data_that_no_envelope_names_is_removed_and_what_is_named_stays() {
    let (world, objects) = clocked_world().await;
    let kept = world.put(&large()).await;
    let small = world.put(&data(10)).await;
    let deleted = world.put(&data(100_000)).await;
    orphans(&world.store).await;
    world.store.delete(&deleted.digest).await.unwrap();
    assert_eq!(object_keys(&objects, "data/").len(), 2 + 1 + 1);
    pass(GRACE + Duration::from_secs(1)).await;
    let report = gc(&world.store, GRACE).await.unwrap();
    assert_eq!((report.envelopes, report.data.objects, report.removed.objects), (2, 4, 2));
    assert!(report.removed.bytes > 4 << 20 && report.too_young.objects == 0);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    assert_eq!(get(&world.store, &kept.digest).await.unwrap(), large());
    assert_eq!(get(&world.store, &small.digest).await.unwrap(), data(10));
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 0);
}

#[tokio::test(start_paused = true)]
async fn data_younger_than_the_grace_stays() {
    let (world, objects) = clocked_world().await;
    orphans(&world.store).await;
    pass(GRACE - Duration::from_secs(2)).await;
    let report = gc(&world.store, GRACE).await.unwrap();
    assert_eq!((report.removed.objects, report.too_young.objects), (0, 1));
    pass(Duration::from_secs(2)).await;
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 1);
    assert!(object_keys(&objects, "data/").is_empty());
}

/// This machine's clock is days off: it does not matter.
#[tokio::test(start_paused = true)]
async fn the_buckets_clock_decides_what_is_old() {
    let (world, _objects) = clocked_world().await;
    orphans(&world.store).await;
    let (ahead, runtime, _) = world.node(2).await;
    runtime.set_wall_forward(100 * GRACE);
    assert_eq!(gc(&ahead, GRACE).await.unwrap().removed.objects, 0);
    pass(GRACE + Duration::from_secs(1)).await;
    let (behind, runtime, _) = world.node(3).await;
    runtime.set_wall_back(100 * GRACE);
    assert_eq!(gc(&behind, GRACE).await.unwrap().removed.objects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_go_and_changes_nothing() {
    let (world, objects) = clocked_world().await;
    let brief = PutOptions { ttl: Some(Duration::from_secs(1)), ..PutOptions::default() };
    world.store.put_bytes(data(10), brief).await.unwrap();
    orphans(&world.store).await;
    pass(GRACE).await;
    let before = objects.objects();
    world.script.take_requests();
    for grace in [GRACE, Duration::ZERO] {
        let options = GcOptions { grace: Some(grace), dry_run: true };
        let report = world.store.gc(options, |_| {}).await.unwrap();
        assert_eq!((report.expired, report.removed.objects), (1, 1));
    }
    let requests = world.script.take_requests();
    assert!(requests.iter().all(|(op, _)| matches!(op, Op::Get | Op::Head | Op::List)), "{requests:?}");
    assert_eq!(objects.objects(), before);
    let report = gc(&world.store, GRACE).await.unwrap();
    assert_eq!((report.expired, report.removed.objects), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_envelope_that_cant_be_opened_blocks_and_is_named() {
    let (world, objects) = clocked_world().await;
    let put = world.put(&large()).await;
    let key = object_keys(&objects, "blobs/").pop().unwrap();
    orphans(&world.store).await;
    pass(2 * GRACE).await;
    for damage in [b"damage".to_vec(), vec![7; (1 << 20) + 1]] {
        objects.tamper(&key, Some(damage.into()));
        let error = gc(&world.store, GRACE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&put.digest.to_string()), "{error}");
        assert_eq!(object_keys(&objects, "data/").len(), 3);
    }
    objects.tamper(&key, Some(b"damage".as_slice().into()));
    world.store.delete(&put.digest).await.unwrap();
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 3);
}

#[tokio::test(start_paused = true)]
async fn an_object_among_the_envelopes_that_is_none_blocks_and_is_named() {
    let (world, objects) = clocked_world().await;
    orphans(&world.store).await;
    pass(2 * GRACE).await;
    objects.tamper("blobs/notes.txt", Some(b"remember the milk!!!".as_slice().into()));
    let error = gc(&world.store, GRACE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("`blobs/notes.txt`"), "{error}");
    assert_eq!(object_keys(&objects, "data/").len(), 1);
}

/// Another node brought in a key that this one has not heard of.
#[tokio::test(start_paused = true)]
async fn an_envelope_under_a_newer_key_is_no_damage() {
    let (world, objects) = clocked_world().await;
    let (key, record) = replace_store_key(&world, bulla_envelope::record::StoreKeyState::Retiring).await;
    world.write(&key, record).await;
    let (newer, ..) = world.node(2).await;
    put(&newer, &large()).await;
    pass(2 * GRACE).await;
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 0);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn foreign_objects_among_the_data_are_left_alone_and_reported() {
    let (world, objects) = clocked_world().await;
    orphans(&world.store).await;
    for key in ["data/readme", "data/7f/gaytemzugu3doobzmfrggzdfmy", "data/7f/x/y"] {
        objects.tamper(key, Some(b"123".as_slice().into()));
    }
    pass(2 * GRACE).await;
    let report = gc(&world.store, GRACE).await.unwrap();
    assert_eq!((report.removed.objects, report.foreign.objects, report.foreign.bytes), (1, 3, 9));
    assert!(report.foreign_names.contains(&"data/readme".to_owned()));
    assert_eq!(object_keys(&objects, "data/").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn expired_blobs_go_first_and_their_data_with_the_next_gc() {
    let (world, objects) = clocked_world().await;
    let brief = PutOptions { ttl: Some(Duration::from_secs(100)), ..PutOptions::default() };
    let put = world.store.put_bytes(large(), brief).await.unwrap();
    pass(Duration::from_secs(99)).await;
    assert_eq!(gc(&world.store, GRACE).await.unwrap().expired, 0);
    pass(2 * GRACE).await;
    let report = gc(&world.store, GRACE).await.unwrap();
    assert_eq!((report.expired, report.removed.objects), (1, 0));
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    assert_eq!(world.store.list().try_collect::<Vec<_>>().await.unwrap(), []);
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 2);
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_expired_blob_that_is_put_again_meanwhile_stays() {
    let (world, _objects) = clocked_world().await;
    let (other, _, script) = world.node(2).await;
    let brief = PutOptions { ttl: Some(Duration::from_secs(1)), ..PutOptions::default() };
    let put = world.store.put_bytes(data(10), brief).await.unwrap();
    pass(2 * GRACE).await;
    let held = script.hold(Op::Update, "blobs/");
    let again = async {
        pass(Duration::from_secs(1)).await;
        assert!(world.put(&data(10)).await.created);
        drop(held);
    };
    let (report, ()) = tokio::join!(gc(&other, GRACE), again);
    assert_eq!(report.unwrap().expired, 0);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn an_expired_blobs_removal_with_a_lost_answer_counts() {
    let (world, _objects) = clocked_world().await;
    let brief = PutOptions { ttl: Some(Duration::from_secs(1)), ..PutOptions::default() };
    world.store.put_bytes(data(10), brief).await.unwrap();
    pass(2 * GRACE).await;
    world.script.after(Op::Update, "blobs/", || Some(broken_connection()));
    assert_eq!(gc(&world.store, GRACE).await.unwrap().expired, 1);
}

/// A create-if-absent that comes late would otherwise bring a deleted blob back.
#[tokio::test(start_paused = true)]
async fn tombstones_are_never_removed() {
    let (world, objects) = clocked_world().await;
    let put = world.put(&large()).await;
    world.store.delete(&put.digest).await.unwrap();
    let tombstone = object_keys(&objects, "blobs/");
    pass(100 * GRACE).await;
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 2);
    assert_eq!(gc(&world.store, Duration::ZERO).await.unwrap().envelopes, 0);
    assert_eq!(object_keys(&objects, "blobs/"), tombstone);
}

/// So many objects of nobody.
fn many_orphans(objects: &SimBucket, count: u64) {
    for n in 0..count {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        let name = bulla_envelope::ids::ExtentName::from_bytes(bytes);
        objects.tamper(&bulla_envelope::names::extent_key(&name), Some(b"x".as_slice().into()));
    }
}

#[tokio::test(start_paused = true)]
async fn before_each_batch_the_log_is_read_again_and_the_lease_is_live() {
    let (world, objects) = clocked_world().await;
    many_orphans(&objects, 600);
    pass(2 * GRACE).await;
    world.script.take_requests();
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 600);
    let requests = world.script.take_requests();
    let deletes =
        requests.iter().enumerate().filter(|(_, (op, key))| *op == Op::Delete && key.contains("data/"));
    let deletes: Vec<usize> = deletes.map(|(at, _)| at).collect();
    assert_eq!(deletes.len(), 600);
    for first in [deletes[0], deletes[256], deletes[512]] {
        assert!(count(&requests[first - 3..first], Op::Get, "store/") > 0);
    }

    many_orphans(&objects, 600);
    pass(2 * GRACE).await;
    let (runtime, provider) = (world.runtime.clone(), world.provider.clone());
    world.script.after(Op::Delete, "data/", move || {
        runtime.suspend(2 * R);
        provider.deny("k", bulla::kek::DenyReason::Disabled);
        None
    });
    assert_eq!(gc(&world.store, GRACE).await.unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(object_keys(&objects, "data/").len(), 600 - 256, "what was sent off already, and no more");
}

/// A listing of a folder may miss a file that is renamed over while it runs.
#[tokio::test(start_paused = true)]
async fn an_envelope_that_the_first_listing_missed_is_found_by_the_second() {
    let (world, objects) = clocked_world().await;
    let put = world.put(&large()).await;
    pass(2 * GRACE).await;
    let key = object_keys(&objects, "blobs/").pop().unwrap();
    let envelope = stored(&objects, &key);
    let (hidden, shown) = (objects.clone(), objects.clone());
    let (hidden_key, shown_key) = (key.clone(), key.clone());
    world.script.before(Op::List, "blobs", move || {
        hidden.tamper(&hidden_key, None);
        None
    });
    world.script.before(Op::List, "blobs", move || {
        shown.tamper(&shown_key, Some(envelope));
        None
    });
    let report = gc(&world.store, GRACE).await.unwrap();
    assert!(world.script.is_done());
    assert_eq!((report.envelopes, report.removed.objects), (1, 0));
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn a_killed_gc_that_is_run_again_finishes() {
    let moments = [(Op::Put, "jobs/"), (Op::Create, "jobs/"), (Op::Get, "blobs/"), (Op::Delete, "data/")];
    for killed_at in moments {
        let (world, objects) = clocked_world().await;
        let put = world.put(&large()).await;
        orphans(&world.store).await;
        pass(2 * GRACE).await;
        let (node, _, script) = world.node(2).await;
        let held = script.hold(killed_at.0, killed_at.1);
        assert!(tokio::time::timeout(2 * WAIT, gc(&node, Duration::ZERO)).await.is_err(), "{killed_at:?}");
        drop((held, node));
        assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 1, "{killed_at:?}");
        assert_eq!(object_keys(&objects, "data/").len(), 2);
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
    }
}

#[tokio::test(start_paused = true)]
async fn probes_and_clocks_of_killed_processes_go_after_a_day_and_no_job_does() {
    let (world, objects) = clocked_world().await;
    let leftovers = ["jobs/clock-00", "jobs/probe-00-1"];
    for key in [leftovers[0], leftovers[1], "jobs/gaytemzugu3doobzmfrggzdfmy"] {
        objects.tamper(key, Some(b"123".as_slice().into()));
    }
    gc(&world.store, GRACE).await.unwrap();
    assert_eq!(object_keys(&objects, "jobs/").len(), 4);
    pass(25 * GRACE).await;
    gc(&world.store, GRACE).await.unwrap();
    let left = object_keys(&objects, "jobs/");
    assert_eq!(left.len(), 2, "the horizon and the job");
    assert!(leftovers.iter().all(|key| !left.contains(&(*key).to_owned())));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_seconds_does_not_end_a_gc() {
    let (world, _objects) = clocked_world().await;
    world.put(&large()).await;
    orphans(&world.store).await;
    pass(2 * GRACE).await;
    world.script.before(Op::Get, "blobs/", || Some(broken_connection()));
    world.script.before(Op::Delete, "data/", || Some(broken_connection()));
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 1);
    assert!(world.script.is_done());
}

#[tokio::test(start_paused = true)]
async fn several_gcs_at_once_remove_the_same() {
    let (world, objects) = clocked_world().await;
    let put = world.put(&large()).await;
    orphans(&world.store).await;
    pass(2 * GRACE).await;
    let ((a, ..), (b, ..)) = (world.node(2).await, world.node(3).await);
    let done = tokio::join!(gc(&world.store, GRACE), gc(&a, Duration::ZERO), gc(&b, Duration::from_secs(9)));
    assert!(done.0.is_ok() && done.1.is_ok() && done.2.is_ok(), "{done:?}");
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn progress_is_told() {
    let (world, _objects) = clocked_world().await;
    world.put(&large()).await;
    orphans(&world.store).await;
    pass(2 * GRACE).await;
    let mut told = Vec::new();
    let options = GcOptions { grace: Some(Duration::ZERO), dry_run: false };
    // It can run on another thread.
    fn sendable<F: Future + Send>(future: F) -> F {
        future
    }
    sendable(world.store.gc(options, |progress| told.push(progress))).await.unwrap();
    assert!(matches!(told.first(), Some(GcProgress::Waiting(wait)) if *wait >= R));
    assert!(told.contains(&GcProgress::Marking(1)));
    assert!(
        matches!(told.last(), Some(GcProgress::Collecting { seen, removed }) if (seen.objects, removed.objects) == (3, 1))
    );
}

mod sessions;
mod writers;

/// FORMAT-E14
#[tokio::test(start_paused = true)]
async fn a_renewed_blobs_data_is_still_shared() {
    let (world, objects) = clocked_world().await;
    let digest = world.put(&data(100_000)).await.digest;
    let data_before = object_keys(&objects, "data/");
    for _ in 0..2 {
        pass(25 * GRACE).await;
        gc(&world.store, 24 * GRACE).await.unwrap();
        let old = world.store.stat(&digest).await.unwrap().modified;
        assert!(world.store.renew(&digest, old).await.unwrap());
        assert!(!world.put(&data(100_000)).await.created, "what is there is good enough");
    }
    assert_eq!(object_keys(&objects, "data/"), data_before);
    assert_eq!(get(&world.store, &digest).await.unwrap(), data(100_000));
}
