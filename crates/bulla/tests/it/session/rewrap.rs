//! Sessions in a rewrap: their DEKs are wrapped again and counted, and who is uploading notices nothing.

use bulla::{Rewrap, SweepOptions};

use super::*;

async fn rewrap(store: &Store) -> bulla::Result<Rewrap> {
    store.rewrap(SweepOptions::default(), |_| {}).await
}

/// The log record after a rewrap in which what is retired is gone for good.
async fn shred_retired(world: &World) {
    let (key, record) =
        next_record(world, |record, _| record.store_keys.retain(|key| key.state == StoreKeyState::Active))
            .await;
    world.write(&key, record).await;
}

// FORMAT-U4
#[tokio::test(start_paused = true)]
async fn the_deks_of_sessions_are_wrapped_again_and_their_uploads_go_on() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let done = rewrap(&other).await.unwrap();
    assert_eq!((done.count.sessions, done.count.under(&done.to), done.count.under(&done.from[0])), (1, 1, 0));
    assert_eq!(resume(&other, &session).await.unwrap().touched(), session.touched());
    shred_retired(&world).await;
    // The handle is from before, and so is its view of the log.
    let offset = session.append_bytes(session.offset(), "more").await.unwrap();
    let (fresh, ..) = world.node(3).await;
    let mut session = resume(&fresh, &session).await.unwrap();
    assert_eq!(session.offset(), offset);
    let bytes = [large().as_slice(), b"more"].concat();
    session.commit(&sha256(&bytes), None).await.unwrap();
    assert_eq!(get(&fresh, &sha256(&bytes)).await.unwrap(), bytes);
}

/// The session is wrapped again between the append's first byte and its write.
#[tokio::test(start_paused = true)]
async fn an_append_during_a_rewrap_is_no_conflict() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let held = world.script.hold(Op::Update, "uploads/");
    let sweep = async {
        let done = rewrap(&other).await;
        drop(held);
        done
    };
    let offset = session.offset();
    let (done, appended) = tokio::join!(sweep, session.append_bytes(offset, "more"));
    assert_eq!(done.unwrap().count.sessions, 1);
    assert_eq!(appended.unwrap(), offset + 4);
    shred_retired(&world).await;
    let (fresh, ..) = world.node(3).await;
    let mut session = resume(&fresh, &session).await.unwrap();
    let bytes = [large().as_slice(), b"more"].concat();
    assert!(session.commit(&sha256(&bytes), None).await.unwrap().created);
}

// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn lost_answers_are_looked_at() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        create(&world.store).await;
        world.script.after(Op::Update, "uploads/", move || Some(answer()));
        assert_eq!(rewrap(&world.store).await.unwrap().count.sessions, 1);
        world.script.before(Op::Update, "uploads/", move || Some(answer()));
        let done = rewrap(&world.store).await.unwrap();
        assert_eq!(done.count.under(&done.to), 1);
        assert!(world.script.is_done());
    }
}

/// What is cancelled while it is swept stays away.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_removed_meanwhile_does_not_come_back() {
    let world = World::new().await;
    let (other, _, script) = world.node(2).await;
    let session = create(&world.store).await;
    let again = resume(&world.store, &session).await.unwrap();
    let held = script.hold(Op::Update, "uploads/");
    let cancel = async {
        pass(2 * R).await;
        session.cancel().await.unwrap();
        drop(held);
    };
    let (done, ()) = tokio::join!(rewrap(&other), cancel);
    assert_eq!(done.unwrap().count.sessions, 0);
    assert_eq!(resume(&world.store, &again).await.unwrap_err().kind(), ErrorKind::NotFound);
}

// FORMAT-U4
#[tokio::test(start_paused = true)]
async fn a_session_is_wrapped_again_by_who_goes_on_under_a_new_key() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let (key, record) = replace_store_key(&world, StoreKeyState::Retiring).await;
    world.write(&key, record).await;
    pass(2 * R).await;
    let mut session = resume(&world.store, &session).await.unwrap();
    session.append_bytes(session.offset(), "more").await.unwrap();
    // Now the old key goes; what was appended after it came does not need it.
    let (key, record) = next_record(&world, |record, _| {
        for key in record.store_keys.iter_mut().filter(|key| key.state == StoreKeyState::Retiring) {
            key.state = StoreKeyState::Retired;
        }
    })
    .await;
    world.write(&key, record).await;
    let (fresh, ..) = world.node(2).await;
    let mut session = resume(&fresh, &session).await.unwrap();
    let bytes = [large().as_slice(), b"more"].concat();
    session.commit(&sha256(&bytes), None).await.unwrap();
    assert_eq!(get(&fresh, &sha256(&bytes)).await.unwrap(), bytes);
}

/// If the lease or the view of the log grew older than R while the session was being made, the log is read again.
#[tokio::test(start_paused = true)]
async fn a_paused_creator_wraps_again_where_its_store_key_was_retired() {
    let world = World::new().await;
    let (key, record) = replace_store_key(&world, StoreKeyState::Retired).await;
    let (runtime, raw) = (world.runtime.clone(), world.raw.clone());
    world.script.after(Op::Create, "uploads/", move || {
        runtime.suspend(2 * R);
        futures::executor::block_on(raw.put(&Path::from(key), record.into())).unwrap();
        None
    });
    let session = create(&world.store).await;
    let (fresh, ..) = world.node(2).await;
    let mut session = resume(&fresh, &session).await.unwrap();
    session.append_bytes(0, large()).await.unwrap();
    assert!(session.commit(&sha256(&large()), None).await.unwrap().created);
}
