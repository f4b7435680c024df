//! Delete: conditional, never of data, never of a blob that was put later.

use std::time::{Duration, SystemTime};

use bulla::ErrorKind;
use bulla_testkit::scripted::{Op, broken_connection, precondition};
use futures::TryStreamExt;

use crate::support::*;

// FORMAT-P12
#[tokio::test(start_paused = true)]
async fn delete_leaves_a_tombstone_that_reads_skip_and_puts_replace() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.store.delete(&put.digest).await.unwrap();
    assert_eq!(world.read(&world.only("blobs").await).await.len(), 19);
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.store.list().try_collect::<Vec<_>>().await.unwrap(), []);
    assert_eq!(world.store.delete(&put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(world.put(&data(10)).await.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

/// With ETags that are hashes of the content, equal tombstones have equal versions, and a put that was given up before one
/// delete would be applied after the next: found by the simulation.
#[tokio::test(start_paused = true)]
async fn a_blob_deleted_twice_leaves_two_different_tombstones() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.store.delete(&put.digest).await.unwrap();
    let first = world.read(&world.only("blobs").await).await;
    world.put(&data(10)).await;
    world.store.delete(&put.digest).await.unwrap();
    assert_ne!(world.read(&world.only("blobs").await).await, first);
}

/// Another tool can only empty an object.
#[tokio::test(start_paused = true)]
async fn an_emptied_envelope_is_a_tombstone_too() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.write(&world.only("blobs").await, "").await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(crate::support::put(&fresh, &data(10)).await.created);
}

#[tokio::test(start_paused = true)]
async fn delete_never_touches_data() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let before = world.keys("data").await;
    world.store.delete(&put.digest).await.unwrap();
    assert_eq!(world.keys("data").await, before);
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_after_a_lost_answer_is_success() {
    for answer in [precondition, broken_connection] {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        world.script.after(Op::Update, "blobs/", move || Some(answer()));
        world.store.delete(&put.digest).await.unwrap();
        assert!(world.script.is_done());
        assert!(!world.store.contains(&put.digest).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_envelope_after_a_refused_delete_is_a_retry() {
    for answer in [precondition, broken_connection] {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        world.script.before(Op::Update, "blobs/", move || Some(answer()));
        world.store.delete(&put.digest).await.unwrap();
        assert!(!world.store.contains(&put.digest).await.unwrap());
    }
}

/// Our delete was applied, its answer lost, and somebody put the blob again: theirs is not ours to delete.
#[tokio::test(start_paused = true)]
async fn a_blob_put_after_the_delete_stays() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    world.script.after(Op::Update, "blobs/", move || Some(broken_connection()));
    let racing = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        crate::support::put(&other, &data(10)).await
    };
    let (deleted, theirs) = tokio::join!(world.store.delete(&put.digest), racing);
    deleted.unwrap();
    assert!(theirs.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

/// Who removes what nobody uses looks at times; what is used again is younger than what he saw. (FORMAT-R5 rests on it.)
#[tokio::test(start_paused = true)]
async fn only_what_is_older_is_deleted_and_what_is_renewed_is_younger() {
    let (world, objects) = clocked_world().await;
    let put = world.put(&data(10)).await;
    let digest = &put.digest;
    let first = world.store.stat(digest).await.unwrap();
    let key = object_keys(&objects, "blobs/").pop().unwrap();
    let envelope = stored(&objects, &key);
    let delete = async |than: SystemTime| world.store.delete_older(digest, than).await.unwrap();
    pass(R).await;

    // As old as that already: nothing is written.
    let before = first.modified - Duration::from_millis(1);
    assert!(world.store.renew(digest, before).await.unwrap());
    assert_eq!(stored(&objects, &key), envelope);
    assert_eq!(delete(before).await, None);

    assert!(world.store.renew(digest, first.modified).await.unwrap());
    let renewed = world.store.stat(digest).await.unwrap();
    assert!(renewed.modified > first.modified);
    assert_eq!((renewed.created, renewed.size, &renewed.wrapped_by), (first.created, 10, &first.wrapped_by));
    assert_ne!(stored(&objects, &key), envelope, "no two versions are alike");
    assert_eq!(delete(first.modified).await, None);
    assert_eq!(get(&world.store, digest).await.unwrap(), data(10));

    assert_eq!(delete(renewed.modified).await, Some(renewed.clone()));
    assert_eq!(delete(renewed.modified).await, None);
    assert!(!world.store.renew(digest, renewed.modified).await.unwrap(), "it is gone for good");

    pass(R).await;
    world.put(&data(10)).await;
    assert_eq!(delete(renewed.modified).await, None);
    let again = world.store.stat(digest).await.unwrap();
    // The answers are lost; the request was applied.
    world.script.after(Op::Update, "blobs/", move || Some(broken_connection()));
    pass(R).await;
    assert!(world.store.renew(digest, again.modified).await.unwrap());
    let again = world.store.stat(digest).await.unwrap();
    world.script.after(Op::Update, "blobs/", move || Some(broken_connection()));
    assert_eq!(delete(again.modified).await, Some(again));
    assert!(!world.store.contains(digest).await.unwrap());
}

/// A removal and a renewal at the same time: one of them is the first, and the other one knows.
#[tokio::test(start_paused = true)]
async fn a_blob_is_either_renewed_or_removed() {
    for renewal_waits in [false, true] {
        let (world, _) = clocked_world().await;
        let digest = world.put(&data(100_000)).await.digest;
        let old = world.store.stat(&digest).await.unwrap().modified;
        pass(R).await;
        let held = world.script.hold(Op::Update, "blobs/");
        let (removed, renewed);
        if renewal_waits {
            (renewed, removed) = tokio::join!(world.store.renew(&digest, old), async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let removed = world.store.delete_older(&digest, old).await;
                drop(held);
                removed
            });
            assert!(removed.unwrap().is_some());
            assert!(!renewed.unwrap());
            assert!(!world.store.contains(&digest).await.unwrap());
        } else {
            (removed, renewed) = tokio::join!(world.store.delete_older(&digest, old), async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let renewed = world.store.renew(&digest, old).await;
                drop(held);
                renewed
            });
            assert!(renewed.unwrap());
            assert!(removed.unwrap().is_none());
            assert_eq!(get(&world.store, &digest).await.unwrap(), data(100_000));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delete_needs_a_live_lease() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.deny("k", bulla::kek::DenyReason::Disabled);
    pass(R).await;
    assert_eq!(world.store.delete(&put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.allow("k");
    pass(R).await;
    assert!(world.store.contains(&put.digest).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_envelope_can_be_deleted() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.write(&world.only("blobs").await, "damage").await;
    world.store.delete(&put.digest).await.unwrap();
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
}
