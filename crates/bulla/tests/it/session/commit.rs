//! Commits and cancels: the blob is whole or not there, and no data goes that an envelope may name.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_mismatch_is_an_error_and_leaves_the_session_as_it_is() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let good = sha256(&large());
    for (digest, size) in [(sha256(b"another"), None), (good.clone(), Some(5))] {
        assert_eq!(session.commit(&digest, size).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(world.keys("blobs").await.len(), 0);
    let offset = session.append_bytes(session.offset(), "more").await.unwrap();
    let bytes = [large().as_slice(), b"more"].concat();
    assert_eq!(session.commit(&sha256(&bytes), Some(offset)).await.unwrap().size, offset);
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_nobody_announced_is_computed_by_reading_again() {
    let world = World::new().await;
    let bytes = data(9 * MIB + 5);
    for (announced, claimed) in
        [(Algorithm::Sha256, Algorithm::Sha512), (Algorithm::Sha512, Algorithm::Sha256)]
    {
        let options = SessionOptions { algorithm: announced, ..SessionOptions::default() };
        let mut session = world.store.create_session(options).await.unwrap();
        session.append_bytes(0, bytes.clone()).await.unwrap();
        let wrong = Digest::of(claimed, b"another");
        assert_eq!(session.commit(&wrong, None).await.unwrap_err().kind(), ErrorKind::Invalid);
        let put = session.commit(&Digest::of(claimed, &bytes), None).await.unwrap();
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
    }
}

/// Killed after the envelope was created and before the session was removed: another node finds the envelope to be this
/// session's.
#[tokio::test(start_paused = true)]
async fn a_commit_that_was_killed_is_finished_by_another_node() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let digest = sha256(&large());
    // The mark passes; no removal does.
    for nth in 1..=16 {
        world
            .script
            .before_nth(Op::Update, "uploads/", if nth == 1 { 1 } else { 0 }, || Some(broken_connection()));
    }
    session.commit(&digest, None).await.unwrap();
    let (other, ..) = world.node(2).await;
    let data_before = world.keys("data").await;
    let mut session = resume(&other, &session).await.unwrap();
    assert_eq!(session.committing(), Some(&digest));
    let put = session.commit(&digest, None).await.unwrap();
    assert!(put.created);
    assert!(sessions(&other).await.is_empty());
    assert_eq!(world.keys("data").await, data_before);
    assert_eq!(get(&other, &digest).await.unwrap(), large());
}

/// Another node committed and removed the session while this one did the same.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_commit_at_once_both_succeed() {
    for len in [10, 100_000, 2 * MIB + 10] {
        let world = World::new().await;
        let (other, ..) = world.node(2).await;
        let mut ours = create(&world.store).await;
        ours.append_bytes(0, data(len)).await.unwrap();
        let mut theirs = resume(&other, &ours).await.unwrap();
        let digest = sha256(&data(len));
        let (a, b) = tokio::join!(ours.commit(&digest, None), theirs.commit(&digest, None));
        assert!(a.unwrap().created && b.unwrap().created);
        assert_eq!(get(&world.store, &digest).await.unwrap(), data(len));
        assert!(sessions(&world.store).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_node_committed_to_the_end_is_done() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let mut ours = create(&world.store).await;
    ours.append_bytes(0, large()).await.unwrap();
    let digest = sha256(&large());
    let mut theirs = resume(&other, &ours).await.unwrap();
    theirs.commit(&digest, None).await.unwrap();
    assert!(ours.commit(&digest, None).await.unwrap().created);
}

// FORMAT-U5
#[tokio::test(start_paused = true)]
async fn nothing_is_appended_once_a_commit_has_begun() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, data(MIB + 5)).await.unwrap();
    let mut stalled = resume(&world.store, &session).await.unwrap();
    let digest = sha256(&data(MIB + 5));
    // The envelope is never created: the bucket is out of reach.
    for _ in 0..16 {
        world.script.before(Op::Create, "blobs/", || Some(broken_connection()));
    }
    assert_eq!(session.commit(&digest, None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let mut marked = resume(&world.store, &session).await.unwrap();
    for session in [&mut stalled, &mut marked] {
        let offset = session.offset();
        let error = session.append_bytes(offset, "more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let error = marked.commit(&Digest::of(Algorithm::Sha512, &data(MIB + 5)), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let data_before = world.keys("data").await;
    marked.commit(&digest, None).await.unwrap();
    assert_eq!(world.keys("data").await, data_before);
    assert_eq!(get(&world.store, &digest).await.unwrap(), data(MIB + 5));
}

#[tokio::test(start_paused = true)]
async fn cancelling_removes_what_was_uploaded() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let again = resume(&world.store, &session).await.unwrap();
    session.cancel().await.unwrap();
    assert_eq!(world.keys("data").await.len(), 0);
    assert!(sessions(&world.store).await.is_empty());
    again.cancel().await.unwrap();
}

/// A commit may be under way: the envelope may name the data already.
// FORMAT-U5
#[tokio::test(start_paused = true)]
async fn cancelling_a_session_that_is_being_committed_leaves_its_data() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let (id, node) = (*session.id(), world.node(2).await.0);
    world.script.after(Op::Create, "blobs/", move || {
        let cancel = async { node.resume_session(&id).await.unwrap().cancel().await.unwrap() };
        futures::executor::block_on(cancel);
        None
    });
    let put = session.commit(&sha256(&large()), None).await.unwrap();
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

/// The session named the data too, and another commit of it may be under way.
#[tokio::test(start_paused = true)]
async fn the_data_of_a_session_whose_blob_was_there_is_left_to_gc() {
    let world = World::new().await;
    let first = world.put(&large()).await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let put = session.commit(&first.digest, None).await.unwrap();
    assert!(!put.created);
    assert_eq!(world.keys("data").await.len(), 4);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn long_sessions_copy_extents_to_new_names_and_keep_the_old_until_that_is_saved() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, data(9 * MIB)).await.unwrap();
    let before = world.keys("data").await;
    pass(GRACE / 3).await;
    let (raw, names) = (world.raw.clone(), before.clone());
    world.script.before(Op::Update, "uploads/", move || {
        for name in &names {
            futures::executor::block_on(raw.head(&Path::from(name.as_str()))).unwrap();
        }
        None
    });
    session.append_bytes(9 * MIB as u64, data(100_000)).await.unwrap();
    assert!(world.script.is_done());
    let now = world.keys("data").await;
    assert_eq!(now.len(), 4);
    assert!(before.iter().all(|name| !now.contains(name)), "{before:?} {now:?}");
    let bytes = [data(9 * MIB), data(100_000)].concat();
    session.commit(&sha256(&bytes), None).await.unwrap();
    assert_eq!(get(&world.store, &sha256(&bytes)).await.unwrap(), bytes);
}

/// Longer than a put may take, and no part of it is old when the envelope is created.
#[tokio::test(start_paused = true)]
async fn a_session_older_than_the_gc_grace_is_committed_with_fresh_copies() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let before = world.keys("data").await;
    pass(2 * GRACE).await;
    let mut session = resume(&world.store, &session).await.unwrap();
    let put = session.commit(&sha256(&large()), None).await.unwrap();
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
    let now = world.keys("data").await;
    assert!(before.iter().all(|name| now.contains(name)), "an envelope might name them: they are gc's");
    assert_eq!(now.len(), 2 * before.len());
}

/// Minutes of skew between nodes do not make them copy; a time far ahead is none to go by.
#[tokio::test(start_paused = true)]
async fn clocks_that_differ_a_little_copy_nothing() {
    for (ahead, copied) in [(Duration::from_secs(200), false), (GRACE, true)] {
        let world = World::new().await;
        let (other, runtime, _) = world.node(2).await;
        runtime.set_wall_forward(ahead);
        let mut session = create(&other).await;
        session.append_bytes(0, data(MIB)).await.unwrap();
        let before = world.keys("data").await;
        let mut session = resume(&world.store, &session).await.unwrap();
        session.append_bytes(MIB as u64, data(MIB)).await.unwrap();
        assert_eq!(!world.keys("data").await.contains(&before[0]), copied);
    }
}
