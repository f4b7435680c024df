//! Envelopes in a rewrap: what is written, deleted or damaged meanwhile.

use super::*;

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
