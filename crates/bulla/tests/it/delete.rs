//! Delete: conditional, never of data, never of a blob that was put later.

use bulla::{BlobInfo, ErrorKind};
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
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        crate::support::put(&other, &data(10)).await
    };
    let (deleted, theirs) = tokio::join!(world.store.delete(&put.digest), racing);
    deleted.unwrap();
    assert!(theirs.created);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

/// The same bytes put again are another put's; and an upload that is committed again is the same put at another time.
#[tokio::test(start_paused = true)]
async fn only_what_one_put_made_is_deleted() {
    let (world, objects) = clocked_world().await;
    let digest = world.put(&data(10)).await.digest;
    let first = world.store.stat(&digest).await.unwrap();
    let key = object_keys(&objects, "blobs/").pop().unwrap();
    let envelope = stored(&objects, &key);
    pass(R).await;
    let delete = async |it: &BlobInfo| world.store.delete_put(&digest, &it.put, it.modified).await.unwrap();
    assert!(delete(&first).await);
    assert!(!delete(&first).await);

    objects.tamper(&key, Some(envelope));
    let again = world.store.stat(&digest).await.unwrap();
    assert_eq!(again.put, first.put);
    assert!(!delete(&first).await, "it was made again since");
    assert!(delete(&again).await);

    pass(R).await;
    world.put(&data(10)).await;
    let second = world.store.stat(&digest).await.unwrap();
    assert_ne!(first.put, second.put);
    assert!(!delete(&first).await);
    // The answer to ours is lost, and then there is nothing.
    world.script.after(Op::Update, "blobs/", move || Some(broken_connection()));
    assert!(delete(&second).await);
    assert!(!world.store.contains(&digest).await.unwrap());
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
