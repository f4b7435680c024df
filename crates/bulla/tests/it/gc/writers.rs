//! Writers that a gc with a short grace overtakes, or nearly: nothing that they acknowledge is collected.

use std::sync::{Arc, Mutex};

use super::*;

/// A node's upload of [`large`], all of it sent but not committed.
async fn uploaded(store: &Store) -> bulla::Upload {
    let mut upload = store.upload(PutOptions::default()).await.unwrap();
    upload.write(large().into()).await.unwrap();
    pass(Duration::from_secs(1)).await;
    upload
}

fn digest() -> bulla::Digest {
    bulla::Digest::of(bulla::Algorithm::Sha256, &large())
}

// FORMAT-P13
#[tokio::test(start_paused = true)]
async fn a_put_that_commits_while_a_gc_waits_copies_its_data_and_stays() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let upload = uploaded(&world.store).await;
    let commit = async {
        pass(R).await;
        upload.commit().await
    };
    let (report, put) = tokio::join!(gc(&other, Duration::ZERO), commit);
    assert!(put.unwrap().created);
    // One extent was sent before the gc began; the other, the rest, at the commit.
    assert_eq!(report.unwrap().removed.objects, 1);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    assert_eq!(get(&other, &digest()).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn a_long_upload_that_goes_on_outruns_a_gc() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let bytes = data(30 << 20);
    let slowly = async {
        let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
        for piece in bytes.chunks(1 << 20) {
            upload.write(piece.to_vec().into()).await.unwrap();
            pass(Duration::from_secs(10)).await;
        }
        upload.commit().await
    };
    let collect = async {
        pass(Duration::from_secs(100)).await;
        gc(&other, Duration::ZERO).await
    };
    let (put, report) = tokio::join!(slowly, collect);
    assert!(report.unwrap().removed.objects >= 2);
    assert_eq!(get(&other, &put.unwrap().digest).await.unwrap(), bytes);
    assert_eq!(object_keys(&objects, "data/").len(), 8);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_through_a_gc_fails_and_leaves_nothing_visible() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let upload = uploaded(&world.store).await;
    assert_eq!(gc(&other, Duration::ZERO).await.unwrap().removed.objects, 1);
    let error = upload.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("put the blob again"), "{error}");
    assert!(object_keys(&objects, "blobs/").is_empty() && object_keys(&objects, "data/").is_empty());
    assert!(world.put(&large()).await.created);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_began_after_the_gc_is_not_disturbed() {
    let (world, _objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    world.put(&data(100_000)).await;
    let puts = async {
        for size in [200_000, 300_000, 5 << 20] {
            pass(Duration::from_secs(20)).await;
            assert!(world.put(&data(size)).await.created);
        }
    };
    let (report, ()) = tokio::join!(gc(&other, Duration::ZERO), puts);
    assert_eq!(report.unwrap().removed.objects, 0);
    assert_eq!(world.count(Op::Copy, ""), 0);
}

// FORMAT-P13
/// Its view of the horizon is a moment older than the gc: its envelope is there before the gc looks.
#[tokio::test(start_paused = true)]
async fn a_writer_that_does_not_know_the_horizon_yet_is_waited_for() {
    let (world, _objects) = clocked_world().await;
    let (other, _, script) = world.node(2).await;
    let upload = uploaded(&world.store).await;
    script.take_requests();
    world.script.take_requests();
    let commit = async {
        pass(Duration::from_secs(1)).await;
        let put = upload.commit().await;
        assert_eq!(world.count(Op::Get, "jobs/"), 0, "it has read the horizon a moment ago");
        put
    };
    let (report, put) = tokio::join!(gc(&other, Duration::ZERO), commit);
    assert!(put.unwrap().created);
    assert_eq!(report.unwrap().removed.objects, 0);
    assert_eq!(get(&other, &digest()).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn a_gc_with_the_usual_grace_waits_for_nobody_and_one_with_a_shorter_for_r() {
    let (world, _objects) = clocked_world().await;
    for (grace, waits) in [(GRACE, false), (2 * GRACE, false), (GRACE - Duration::from_secs(1), true)] {
        let began = tokio::time::Instant::now();
        gc(&world.store, grace).await.unwrap();
        assert_eq!(began.elapsed() >= R, waits, "{grace:?}");
        assert!(waits || began.elapsed() < Duration::from_secs(1));
    }
}

/// The create is on its way for as long as a whole gc takes: the envelope must not stay, for its data is gone.
#[tokio::test(start_paused = true)]
async fn a_create_that_arrives_after_its_data_was_collected_is_withdrawn() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let held = world.script.hold(Op::Create, "blobs/");
    let collect = async {
        pass(Duration::from_secs(1)).await;
        let report = gc(&other, Duration::ZERO).await;
        drop(held);
        report
    };
    let put = world.store.put_bytes(large(), PutOptions::default());
    let (put, report) = tokio::join!(put, collect);
    assert_eq!(report.unwrap().removed.objects, 2);
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(object_keys(&objects, "blobs/").len(), 1, "a tombstone");
    assert_eq!(get(&other, &digest()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// As above, and it took the place of an envelope that others rely on.
#[tokio::test(start_paused = true)]
async fn what_a_withdrawn_envelope_replaced_is_put_back() {
    let (world, _objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let ttl = PutOptions { ttl: Some(100 * GRACE), ..PutOptions::default() };
    assert!(other.put_bytes(large(), ttl).await.unwrap().created);
    pass(Duration::from_secs(1)).await;
    let held = world.script.hold(Op::Update, "blobs/");
    let collect = async {
        pass(Duration::from_secs(1)).await;
        let report = gc(&other, Duration::ZERO).await;
        drop(held);
        report
    };
    let put = world.store.put_bytes(large(), PutOptions::default());
    let (put, report) = tokio::join!(put, collect);
    assert_eq!(report.unwrap().removed.objects, 2);
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Conflict);
    let (fresh, ..) = world.node(3).await;
    assert_eq!(get(&fresh, &digest()).await.unwrap(), large());
    assert!(fresh.stat(&digest()).await.unwrap().expires.is_some());
}

/// The envelope came after the gc had looked, and its data is still there: it is copied before the put is acknowledged.
#[tokio::test(start_paused = true)]
async fn an_envelope_that_the_gc_did_not_see_is_acknowledged_with_copied_data() {
    let (world, objects) = clocked_world().await;
    let (other, _, script) = world.node(2).await;
    let held = world.script.hold(Op::Create, "blobs/");
    // The gc is about to remove what it has found.
    let removing = script.hold(Op::Delete, "data/");
    let late = async {
        pass(WAIT + Duration::from_secs(1)).await;
        drop(held);
        pass(Duration::from_secs(5)).await;
        drop(removing);
    };
    let put = world.store.put_bytes(large(), PutOptions::default());
    let (put, report, ()) = tokio::join!(put, gc(&other, Duration::ZERO), late);
    assert!(put.unwrap().created);
    assert_eq!(report.unwrap().removed.objects, 2);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    let (fresh, ..) = world.node(3).await;
    assert_eq!(get(&fresh, &digest()).await.unwrap(), large());
}

/// The first create was given up and arrives later; meanwhile the data was copied. What is found is our own envelope, but it
/// names the data of before.
#[tokio::test(start_paused = true)]
async fn our_own_envelope_that_names_data_of_before_the_copy_is_replaced() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let upload = uploaded(&world.store).await;
    let first = Arc::new(Mutex::new(None));
    let (runtime, sees, taken) = (world.runtime.clone(), objects.clone(), Arc::clone(&first));
    world.script.after(Op::Create, "blobs/", move || {
        // As if it had not been applied yet.
        let (key, envelope) = sees.objects().into_iter().find(|(key, _)| key.starts_with("blobs/")).unwrap();
        sees.tamper(&key, None);
        *taken.lock().unwrap() = Some((key, envelope));
        runtime.suspend(R);
        Some(broken_connection())
    });
    // The next attempt knows the horizon and copies; before it creates, the first one arrives.
    let arriving = objects.clone();
    world.script.before(Op::Create, "blobs/", move || {
        let (key, envelope) = first.lock().unwrap().take().unwrap();
        arriving.tamper(&key, Some(envelope));
        None
    });
    let commit = async {
        pass(Duration::from_secs(1)).await;
        upload.commit().await
    };
    let (report, put) = tokio::join!(gc(&other, Duration::ZERO), commit);
    assert!(put.unwrap().created && world.script.is_done());
    assert_eq!(report.unwrap().removed.objects, 1);
    let (fresh, ..) = world.node(3).await;
    assert_eq!(get(&fresh, &digest()).await.unwrap(), large());
}

/// Its writer was killed before it could look. Another's put of the same blob must not rely on it.
#[tokio::test(start_paused = true)]
async fn an_envelope_that_the_gc_did_not_see_is_shared_with_nobody() {
    let (world, _objects) = clocked_world().await;
    let (killed, _, killed_script) = world.node(2).await;
    let (other, _, script) = world.node(3).await;
    // From here on it knows the horizon.
    put(&killed, &data(100_000)).await;
    let create = killed_script.hold(Op::Create, "blobs/");
    let removing = script.hold(Op::Delete, "data/");
    // Let it send the create, and never look at the answer.
    let never = killed_script.hold(Op::Get, "jobs/");
    let dead = async {
        let put = killed.put_bytes(large(), PutOptions::default());
        assert!(tokio::time::timeout(2 * WAIT, put).await.is_err());
    };
    let late = async {
        pass(WAIT + Duration::from_secs(1)).await;
        drop(create);
        pass(Duration::from_secs(1)).await;
        let put = world.put(&large()).await;
        drop(removing);
        put
    };
    let (report, put, ()) = tokio::join!(gc(&other, Duration::ZERO), late, dead);
    drop(never);
    assert!(report.unwrap().removed.objects >= 2);
    assert!(put.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

/// What was there for long is shared, although it is older than any horizon.
#[tokio::test(start_paused = true)]
async fn an_envelope_that_every_gc_has_seen_is_shared() {
    let (world, objects) = clocked_world().await;
    world.put(&large()).await;
    pass(2 * GRACE).await;
    gc(&world.store, Duration::ZERO).await.unwrap();
    assert!(!world.put(&large()).await.created);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
}

/// A process sleeps for a day after it has found out what to remove, and then goes on.
#[tokio::test(start_paused = true)]
async fn a_gc_that_sleeps_removes_nothing_that_was_put_meanwhile() {
    let (world, objects) = clocked_world().await;
    let (other, runtime, script) = world.node(2).await;
    orphans(&world.store).await;
    let upload = uploaded(&world.store).await;
    let removing = script.hold(Op::Delete, "data/");
    let later = async {
        pass(WAIT + Duration::from_secs(1)).await;
        runtime.suspend(24 * GRACE);
        pass(GRACE / 4).await;
        let mut digests = vec![upload.commit().await.unwrap().digest];
        digests.push(world.put(&data(100_000)).await.digest);
        drop(removing);
        digests
    };
    let (report, digests) = tokio::join!(gc(&other, Duration::ZERO), later);
    assert_eq!(report.unwrap().removed.objects, 2);
    assert_eq!(object_keys(&objects, "data/").len(), 3);
    assert_eq!(get(&world.store, &digests[0]).await.unwrap(), large());
    assert_eq!(get(&world.store, &digests[1]).await.unwrap(), data(100_000));
}

#[tokio::test(start_paused = true)]
async fn the_horizon_never_falls() {
    let (world, objects) = clocked_world().await;
    pass(2 * GRACE).await;
    gc(&world.store, Duration::ZERO).await.unwrap();
    let before = object_keys(&objects, "jobs/");
    let horizon = stored(&objects, &before[0]);
    assert_eq!(before.len(), 1);
    world.script.take_requests();
    gc(&world.store, GRACE).await.unwrap();
    assert_eq!((object_keys(&objects, "jobs/"), stored(&objects, &before[0])), (before, horizon));
}

#[tokio::test(start_paused = true)]
async fn a_horizon_with_a_lost_answer_is_raised_once() {
    for answer in [already_exists, broken_connection] {
        let (world, _objects) = clocked_world().await;
        world.script.after(Op::Create, "jobs/", move || Some(answer()));
        gc(&world.store, GRACE).await.unwrap();
        assert_eq!(world.count(Op::Create, "jobs/") + world.count(Op::Update, "jobs/"), 1);
    }
}

/// Fails closed: nobody can tell what is being collected.
#[tokio::test(start_paused = true)]
async fn a_damaged_horizon_stops_puts_and_gcs_and_is_named() {
    let (world, objects) = clocked_world().await;
    pass(2 * GRACE).await;
    gc(&world.store, GRACE).await.unwrap();
    let key = object_keys(&objects, "jobs/").pop().unwrap();
    objects.tamper(&key, Some(b"damage".as_slice().into()));
    let (fresh, ..) = world.node(2).await;
    let error = fresh.put_bytes(large(), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&key), "{error}");
    assert_eq!(gc(&fresh, GRACE).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(put(&fresh, &data(10)).await.created, "a blob in its envelope has no data to lose");
    objects.tamper(&key, None);
    assert!(put(&fresh, &large()).await.created);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_puts_reads_the_horizon_once_per_half_bound() {
    let (world, _objects) = clocked_world().await;
    for size in 0..20 {
        world.put(&data(100_000 + size)).await;
    }
    assert_eq!(world.count(Op::Get, "jobs/"), 1);
    for size in 0..40 {
        pass(R / 10).await;
        world.put(&data(200_000 + size)).await;
    }
    assert!((7..=9).contains(&world.count(Op::Get, "jobs/")));
    world.put(&data(65_536)).await;
    assert_eq!(world.count(Op::Get, "jobs/"), 0);
}
