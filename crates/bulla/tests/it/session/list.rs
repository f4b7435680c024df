//! Sessions in the bucket: what a listing shows of them, what nobody sees, and when they end.

use super::*;

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_with_the_data_that_they_name() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    pass(Duration::from_secs(5)).await;
    let second = create(&world.store).await;
    second.cancel().await.unwrap();
    let third = create(&world.store).await;
    let listed: Vec<_> = world.store.sessions().try_collect().await.unwrap();
    let mut named: Vec<String> = listed.iter().flat_map(|entry| entry.data_keys()).collect();
    named.sort();
    assert_eq!(named, world.keys("data").await);
    let mut facts: Vec<_> = listed.iter().map(|entry| (entry.offset, entry.id, entry.touched)).collect();
    facts.sort();
    let expected = [(0, *third.id(), third.touched()), (session.offset(), *session.id(), session.touched())];
    assert_eq!(facts, expected);
    assert!(third.touched() >= session.touched() + 5_000 && third.created() == third.touched());
}

/// Its data is unknown: gc must not take it for no data at all.
#[tokio::test(start_paused = true)]
async fn a_damaged_session_is_an_error_in_the_listing_and_expires() {
    let world = World::new().await;
    let session = create(&world.store).await;
    let key = world.only("uploads").await;
    let mut object = world.read(&key).await;
    *object.last_mut().unwrap() ^= 1;
    world.write(&key, object).await;
    create(&world.store).await;
    assert_eq!(resume(&world.store, &session).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let (good, bad): (Vec<_>, Vec<_>) = sessions(&world.store).await.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 1));
    assert_eq!(bad[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    let later = std::time::SystemTime::now() + Duration::from_secs(1);
    assert_eq!(world.store.expire_sessions(later).await.unwrap(), 2);
}

/// A session's object in another session's place is refused.
// FORMAT-U2
#[tokio::test(start_paused = true)]
async fn a_session_in_anothers_place_is_refused() {
    let world = World::new().await;
    let first = create(&world.store).await;
    let key = world.only("uploads").await;
    let second = create(&world.store).await;
    let other = world.keys("uploads").await.into_iter().find(|other| *other != key).unwrap();
    world.write(&key, world.read(&other).await).await;
    assert_eq!(resume(&world.store, &first).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(resume(&world.store, &second).await.unwrap().offset(), 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_expire_by_the_buckets_clock_and_their_tombstones_after_them() {
    let world = World::new().await;
    let now = || std::time::SystemTime::now();
    let session = create(&world.store).await;
    let start = world.raw.head(&Path::from(world.only("uploads").await)).await.unwrap().last_modified;
    assert_eq!(world.store.expire_sessions(start.into()).await.unwrap(), 0);
    assert_eq!(resume(&world.store, &session).await.unwrap().offset(), 0);
    let later = now() + Duration::from_secs(1);
    assert_eq!(world.store.expire_sessions(later).await.unwrap(), 1);
    assert_eq!(resume(&world.store, &session).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.keys("uploads").await.len(), 1, "a tombstone, so that no late write comes through");
    assert_eq!(world.store.expire_sessions(later).await.unwrap(), 0);
    assert_eq!(world.keys("uploads").await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_somebody_goes_on_with_does_not_expire() {
    let world = World::new().await;
    let session = create(&world.store).await;
    let (id, node) = (*session.id(), world.node(2).await.0);
    world.script.after(Op::Get, "uploads/", move || {
        let go_on = async {
            node.resume_session(&id).await.unwrap().append_bytes(0, "on").await.unwrap();
        };
        futures::executor::block_on(go_on);
        None
    });
    let later = std::time::SystemTime::now() + Duration::from_secs(1);
    assert_eq!(world.store.expire_sessions(later).await.unwrap(), 0);
    assert_eq!(resume(&world.store, &session).await.unwrap().offset(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_shows_no_owner_no_digest_and_no_content() {
    let world = World::new().await;
    let options = SessionOptions { owner: b"example/app".to_vec(), ..SessionOptions::default() };
    let mut session = world.store.create_session(options).await.unwrap();
    session.append_bytes(0, "a tail to look for").await.unwrap();
    let key = world.only("uploads").await;
    let object = world.read(&key).await;
    for secret in [&b"example"[..], b"a tail", session.id().as_bytes()] {
        assert!(!object.windows(secret.len()).any(|window| window == secret));
    }
    assert!(!key.contains(&session.id().to_string()));
}
