//! Put: nothing is lost, nothing half is visible.

use std::time::Duration;

use bulla::{ErrorKind, PutOptions};
use bulla_envelope::record::StoreKeyState;
use bulla_testkit::scripted::{Op, already_exists, broken_connection, precondition};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn every_size_comes_back() {
    let world = World::new().await;
    for len in [0, 1, 16_383, 16_384, 65_536, 65_537, 81_920, 4 << 20, (4 << 20) + 1, (8 << 20) + 12_345] {
        let bytes = data(len);
        let put = world.put(&bytes).await;
        assert_eq!((put.size, put.created), (len as u64, true));
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes, "{len}");
        let pieces: Vec<_> =
            world.store.get(&put.digest).await.unwrap().into_verified_stream().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), bytes, "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn small_blobs_are_one_object() {
    let world = World::new().await;
    world.put(&data(65_536)).await;
    assert_eq!(world.keys("data").await.len(), 0);
    assert_eq!(world.keys("blobs").await.len(), 1);
}

// FORMAT-P5
#[tokio::test(start_paused = true)]
async fn nothing_before_the_envelope_is_visible() {
    let world = World::new().await;
    let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
    upload.write(large().into()).await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert!(!world.keys("data").await.is_empty());
    assert_eq!(world.keys("blobs").await.len(), 0);
    assert_eq!(world.store.list().try_collect::<Vec<_>>().await.unwrap(), []);
    let put = upload.commit().await.unwrap();
    assert!(world.store.contains(&put.digest).await.unwrap());
}

// FORMAT-P5
#[tokio::test(start_paused = true)]
async fn a_mismatch_is_an_error_and_leaves_nothing() {
    let world = World::new().await;
    let wrong = bulla::Digest::of(bulla::Algorithm::Sha256, b"something else");
    for (digest, size) in [(Some(wrong.clone()), None), (None, Some(5))] {
        let options = PutOptions { digest, size, ttl: None };
        let error = world.store.put_bytes(large(), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(world.keys("data").await.len(), 0);
        assert_eq!(world.keys("blobs").await.len(), 0);
    }
    assert!(!world.store.contains(&wrong).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_upload_leaves_orphans_only() {
    let world = World::new().await;
    let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
    upload.write(large().into()).await.unwrap();
    drop(upload);
    pass(Duration::from_secs(1)).await;
    assert_eq!(world.keys("blobs").await.len(), 0);
    assert!(!world.keys("data").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn abort_removes_what_was_uploaded() {
    let world = World::new().await;
    let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
    upload.write(large().into()).await.unwrap();
    upload.abort().await;
    assert_eq!(world.keys("data").await.len(), 0);
}

/// Ctrl-C, while the write waits for room: `abort` still knows the PUT that it waited for, and outlasts it.
#[tokio::test(start_paused = true)]
async fn abort_after_a_write_that_was_given_up_leaves_nothing() {
    let world = World::new().await;
    let held = world.script.hold(Op::Put, "data/");
    let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
    let write = upload.write(vec![7; 40 << 20].into());
    assert!(tokio::time::timeout(Duration::from_secs(1), write).await.is_err(), "it has room for everything");
    let abort = tokio::spawn(upload.abort());
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    abort.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.keys("data").await.len(), 0, "a PUT arrived after everything was removed");
}

/// After a failed conditional write: our own blob id there = success.
// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn our_own_envelope_after_a_lost_answer_is_success() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        world.script.after(Op::Create, "blobs/", move || Some(answer()));
        let put = world.put(&large()).await;
        assert!(put.created && world.script.is_done());
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
        assert_eq!(world.keys("data").await.len(), 2);
    }
}

/// After a failed conditional write: nothing there = retry (S3's 409 for a conflicting request in flight).
#[tokio::test(start_paused = true)]
async fn nothing_there_after_a_refused_create_is_a_retry() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        world.script.before(Op::Create, "blobs/", move || Some(answer()));
        let put = world.put(&large()).await;
        assert!(put.created && world.script.is_done());
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
    }
}

#[tokio::test(start_paused = true)]
async fn two_writers_of_one_digest_share_one_blob() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let bytes = large();
    let (a, b) = tokio::join!(put(&world.store, &bytes), put(&other, &bytes));
    assert_eq!(a.digest, b.digest);
    assert!(a.created != b.created);
    assert_eq!(get(&other, &a.digest).await.unwrap(), bytes);
    assert_eq!(world.keys("data").await.len(), 2, "the loser's data is dropped");
}

/// Data is dropped only if every create got a definite answer; otherwise it is gc's.
#[tokio::test(start_paused = true)]
async fn data_stays_where_a_create_got_no_definite_answer() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    // Our create vanishes without an answer; before we read again, another node's equal blob is there.
    let bytes = large();
    let theirs = bytes.clone();
    world.script.before(Op::Create, "blobs/", || Some(broken_connection()));
    let racing = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        put(&other, &theirs).await
    };
    let (ours, theirs) = tokio::join!(put(&world.store, &bytes), racing);
    assert!(!ours.created && theirs.created);
    assert_eq!(world.keys("data").await.len(), 4, "ours may still become visible");
}

/// "Exists already" is no definite answer either before a read shows whose it is: found by the simulation.
#[tokio::test(start_paused = true)]
async fn data_stays_where_a_refused_create_could_not_be_read_back() {
    let world = World::new().await;
    world.script.after(Op::Create, "blobs/", || Some(already_exists()));
    world.script.before(Op::Get, "blobs/", || Some(broken_connection()));
    let error = world.store.put_bytes(large(), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let digest = bulla::Digest::of(bulla::Algorithm::Sha256, &large());
    assert_eq!(get(&world.store, &digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn anothers_envelope_with_missing_data_is_replaced() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let gone = world.keys("data").await[0].clone();
    world.remove(&gone).await;
    assert!(world.put(&large()).await.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn anothers_envelope_with_data_of_another_length_is_replaced() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let cut = world.keys("data").await[0].clone();
    let bytes = world.read(&cut).await;
    world.write(&cut, bytes[..bytes.len() - 1].to_vec()).await;
    assert!(world.put(&large()).await.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn anothers_envelope_that_expires_earlier_is_replaced() {
    let world = World::new().await;
    let brief = PutOptions { ttl: Some(Duration::from_secs(100)), ..PutOptions::default() };
    let longer = PutOptions { ttl: Some(Duration::from_secs(200)), ..PutOptions::default() };
    assert!(world.store.put_bytes(data(10), brief.clone()).await.unwrap().created);
    assert!(world.store.put_bytes(data(10), longer.clone()).await.unwrap().created);
    let put = world.put(&data(10)).await;
    assert!(put.created, "a blob without expiry outlives any");
    assert!(!world.store.put_bytes(data(10), longer).await.unwrap().created);
    pass(Duration::from_secs(1000)).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn an_expired_blob_is_not_found() {
    let world = World::new().await;
    let options = PutOptions { ttl: Some(Duration::from_secs(100)), ..PutOptions::default() };
    let put = world.store.put_bytes(data(10), options).await.unwrap();
    pass(Duration::from_secs(99)).await;
    assert!(world.store.get(&put.digest).await.is_ok());
    pass(Duration::from_secs(2)).await;
    assert_eq!(world.store.get(&put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!world.store.contains(&put.digest).await.unwrap());
    assert!(world.put(&data(10)).await.created);
}

/// "Can't open" needs a definite integrity failure; then a put repairs.
#[tokio::test(start_paused = true)]
async fn a_damaged_envelope_is_replaced() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let key = world.only("blobs").await;
    let mut bytes = world.read(&key).await;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    world.write(&key, bytes).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(crate::support::put(&fresh, &large()).await.created);
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), large());
}

/// An outage of the bucket or of the key is not an integrity failure: nothing is replaced.
#[tokio::test(start_paused = true)]
async fn an_unreadable_bucket_replaces_nothing() {
    let world = World::new().await;
    world.put(&large()).await;
    let before = world.read(&world.only("blobs").await).await;
    world.script.before(Op::Get, "blobs/", || Some(broken_connection()));
    let error = world.store.put_bytes(large(), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.read(&world.only("blobs").await).await, before);
}

/// A paused process: lease and log view grew older than R between reading the log and the end of the create.
#[tokio::test(start_paused = true)]
async fn a_paused_writer_reads_the_log_again_before_it_acknowledges() {
    let world = World::new().await;
    let runtime = world.runtime.clone();
    world.script.after(Op::Create, "blobs/", move || {
        runtime.suspend(2 * R);
        None
    });
    let unwraps = world.provider.calls().unwrap;
    world.put(&data(10)).await;
    let requests = world.script.take_requests();
    let created = requests.iter().position(|(op, key)| *op == Op::Create && key.contains("blobs/")).unwrap();
    assert!(count(&requests[created..], Op::Get, "store/") > 0);
    assert!(world.provider.calls().unwrap > unwraps, "a lease that is over is renewed before acknowledging");
}

/// As above, with the store key retired while the process slept: the envelope is wrapped again before it is acknowledged.
#[tokio::test(start_paused = true)]
async fn a_paused_writer_wraps_again_where_its_store_key_was_retired() {
    let world = World::new().await;
    let (key, record) = replace_store_key(&world, StoreKeyState::Retired).await;
    let (runtime, raw) = (world.runtime.clone(), world.raw.clone());
    world.script.after(Op::Create, "blobs/", move || {
        runtime.suspend(2 * R);
        futures::executor::block_on(raw.put(&Path::from(key), record.into())).unwrap();
        None
    });
    let put = world.put(&large()).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), large());
}

/// And paused again while it wraps again.
#[tokio::test(start_paused = true)]
async fn a_writer_paused_twice_wraps_twice() {
    let world = World::new().await;
    let (first_key, first) = replace_store_key(&world, StoreKeyState::Retired).await;
    world.write(&first_key, first.clone()).await;
    let (second_key, second) = replace_store_key(&world, StoreKeyState::Retired).await;
    world.remove(&first_key).await;
    for (op, key, record) in [(Op::Create, first_key, first), (Op::Update, second_key, second)] {
        let (runtime, raw) = (world.runtime.clone(), world.raw.clone());
        world.script.after(op, "blobs/", move || {
            runtime.suspend(2 * R);
            futures::executor::block_on(raw.put(&Path::from(key), record.into())).unwrap();
            None
        });
    }
    let put = world.put(&large()).await;
    assert!(world.script.is_done());
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn anothers_envelope_under_a_key_that_is_not_active_is_replaced() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let before = world.store.stat(&put.digest).await.unwrap().wrapped_by;
    let (key, record) = replace_store_key(&world, StoreKeyState::Retiring).await;
    world.write(&key, record).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), large(), "a retiring key still opens");
    assert!(crate::support::put(&fresh, &large()).await.created);
    assert_ne!(fresh.stat(&put.digest).await.unwrap().wrapped_by, before);
}

/// "Can't open" needs a fresh log: here another node brought in a key that this one has not heard of.
#[tokio::test(start_paused = true)]
async fn an_envelope_under_a_newer_key_is_opened_with_a_fresh_log_not_replaced() {
    let world = World::new().await;
    let (key, record) = replace_store_key(&world, StoreKeyState::Retiring).await;
    world.write(&key, record).await;
    let (newer, ..) = world.node(2).await;
    let put = put(&newer, &large()).await;
    assert!(!world.put(&large()).await.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

/// As above, with the key taken away while the process slept: the put is not acknowledged.
#[tokio::test(start_paused = true)]
async fn a_paused_writer_whose_key_is_gone_acknowledges_nothing() {
    let world = World::new().await;
    let (runtime, provider) = (world.runtime.clone(), world.provider.clone());
    world.script.after(Op::Create, "blobs/", move || {
        runtime.suspend(2 * R);
        provider.deny("k", bulla::kek::DenyReason::Forbidden);
        None
    });
    let error = world.store.put_bytes(data(10), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Revoked);
}

/// A put whose oldest extent is older than half of gc's grace fails before the create.
#[tokio::test(start_paused = true)]
async fn too_old_before_the_create() {
    let world = World::new().await;
    let runtime = world.runtime.clone();
    world.script.after(Op::Put, "data/", move || {
        runtime.suspend(GRACE / 2 + Duration::from_secs(1));
        None
    });
    let error = world.store.put_bytes(large(), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("TooOld"), "{error}");
    assert_eq!(world.keys("blobs").await.len(), 0);
    assert_eq!(world.keys("data").await.len(), 0, "never visible, so nobody needs it");
}

/// Too old only after the create: the extents are looked for, and if they are there the put is acknowledged.
#[tokio::test(start_paused = true)]
async fn too_old_after_the_create_with_data_there_is_acknowledged() {
    let world = World::new().await;
    let runtime = world.runtime.clone();
    world.script.after(Op::Create, "blobs/", move || {
        runtime.suspend(GRACE / 2 + Duration::from_secs(1));
        None
    });
    let put = world.put(&large()).await;
    assert!(world.count(Op::Head, "data/") >= 2);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

/// Too old only after the create, and gc was faster: the envelope is withdrawn.
#[tokio::test(start_paused = true)]
async fn too_old_after_the_create_without_data_is_withdrawn() {
    let world = World::new().await;
    let (runtime, raw) = (world.runtime.clone(), world.raw.clone());
    world.script.after(Op::Create, "blobs/", move || {
        runtime.suspend(GRACE / 2 + Duration::from_secs(1));
        let collect = async {
            let data: Vec<_> = raw.list(Some(&Path::from("data"))).try_collect().await.unwrap();
            for object in data {
                raw.delete(&object.location).await.unwrap();
            }
        };
        futures::executor::block_on(collect);
        None
    });
    let error = world.store.put_bytes(large(), PutOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("TooOld"), "{error}");
    assert_eq!(world.store.list().try_collect::<Vec<_>>().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn long_sessions_copy_extents_to_new_names() {
    let world = World::new().await;
    let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
    let bytes = data(12 << 20);
    let mut written = 0;
    let mut names = Vec::new();
    for piece in bytes.chunks(1 << 20) {
        upload.write(piece.to_vec().into()).await.unwrap();
        written += piece.len();
        if written == 5 << 20 {
            names = world.keys("data").await;
        }
        pass(GRACE / 10).await;
    }
    let put = upload.commit().await.unwrap();
    let now = world.keys("data").await;
    assert!(!names.is_empty() && names.iter().all(|name| !now.contains(name)), "{names:?} {now:?}");
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn an_extent_that_is_not_taken_fails_the_put_and_leaves_nothing_visible() {
    let world = World::new().await;
    world.script.before(Op::Put, "data/", || Some(broken_connection()));
    let error = world.store.put_bytes(large(), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.keys("blobs").await.len(), 0);
    assert_eq!(world.keys("data").await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn sha512_names_work_as_well() {
    let world = World::new().await;
    let digest = bulla::Digest::of(bulla::Algorithm::Sha512, &data(100_000));
    let options = PutOptions { digest: Some(digest.clone()), ..PutOptions::default() };
    assert_eq!(world.store.put_bytes(data(100_000), options).await.unwrap().digest, digest);
    assert_eq!(get(&world.store, &digest).await.unwrap(), data(100_000));
}

// FORMAT-P6
#[tokio::test(start_paused = true)]
async fn the_same_bytes_are_never_sealed_alike() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let first = world.read(&world.keys("data").await[0]).await;
    world.store.delete(&put.digest).await.unwrap();
    for key in world.keys("data").await {
        world.remove(&key).await;
    }
    world.put(&large()).await;
    for key in world.keys("data").await {
        assert_ne!(world.read(&key).await[..56], first[..56]);
    }
}
