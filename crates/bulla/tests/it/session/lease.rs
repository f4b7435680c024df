//! Sessions without their key: nothing is read, written or acknowledged.

use super::*;

// FORMAT-P11
#[tokio::test(start_paused = true)]
async fn no_session_is_read_or_written_without_a_live_lease() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let cancelled = resume(&world.store, &session).await.unwrap();
    world.provider.deny("k", DenyReason::Forbidden);
    pass(R + Duration::from_secs(1)).await;
    let before = (world.keys("data").await, world.read(&world.only("uploads").await).await);
    let offset = session.offset();
    let errors = [
        world.store.create_session(SessionOptions::default()).await.map(drop).unwrap_err(),
        resume(&world.store, &session).await.map(drop).unwrap_err(),
        session.append_bytes(offset, "more").await.map(drop).unwrap_err(),
        session.commit(&sha256(&large()), None).await.map(drop).unwrap_err(),
        cancelled.cancel().await.unwrap_err(),
        sessions(&world.store).await.pop().unwrap().map(drop).unwrap_err(),
        world.store.expire_sessions(std::time::SystemTime::now()).await.map(drop).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Revoked), "{errors:?}");
    assert_eq!((world.keys("data").await, world.read(&world.only("uploads").await).await), before);
    world.provider.allow("k");
    pass(R).await;
    session.commit(&sha256(&large()), None).await.unwrap();
}

/// The key is taken away in the middle of an append: it ends, and what was acknowledged stays.
#[tokio::test(start_paused = true)]
async fn an_append_under_way_stops_when_the_key_is_taken_away() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, data(MIB)).await.unwrap();
    let pieces = stream::repeat_with(|| Bytes::from(data(MIB))).then(|bytes| async move {
        pass(R / 4).await;
        Ok::<_, std::io::Error>(bytes)
    });
    let provider = world.provider.clone();
    let deny = async {
        pass(R).await;
        provider.deny("k", DenyReason::Disabled);
    };
    let (appended, ()) = tokio::join!(session.append(MIB as u64, Box::pin(pieces)), deny);
    assert_eq!(appended.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.allow("k");
    pass(R).await;
    assert_eq!(resume(&world.store, &session).await.unwrap().offset(), MIB as u64);
    assert_eq!(world.keys("data").await.len(), 1);
}

/// The key is taken away after the session was written and before that is acknowledged: the session names the data now.
#[tokio::test(start_paused = true)]
async fn data_stays_where_the_lease_ended_between_write_and_acknowledgement() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    let (provider, runtime) = (world.provider.clone(), world.runtime.clone());
    world.script.after(Op::Update, "uploads/", move || {
        provider.deny("k", DenyReason::Disabled);
        runtime.suspend(R);
        None
    });
    assert_eq!(session.append_bytes(0, large()).await.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.allow("k");
    pass(R).await;
    let mut session = resume(&world.store, &session).await.unwrap();
    assert_eq!(session.offset(), large().len() as u64);
    session.commit(&sha256(&large()), None).await.unwrap();
    assert_eq!(get(&world.store, &sha256(&large())).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn an_expired_key_takes_nothing_new() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, data(MIB)).await.unwrap();
    let now = world.runtime.now().wall;
    world.provider.set_expires(&key_id("k"), Some(now));
    pass(2 * R).await;
    let errors = [
        world.store.create_session(SessionOptions::default()).await.map(drop).unwrap_err(),
        session.append_bytes(MIB as u64, "more").await.map(drop).unwrap_err(),
        session.commit(&sha256(&data(MIB)), None).await.map(drop).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.to_string().contains("expired")), "{errors:?}");
    assert_eq!(resume(&world.store, &session).await.unwrap().offset(), MIB as u64);
}
