//! Appends: what one acknowledged is there, and what a stalled node sends late changes nothing.

use super::*;

/// Appends `data` in pieces of `len`, each in a request of its own.
async fn append_in_pieces(store: &Store, session: &Session, data: &[u8], len: usize) {
    let mut offset = 0;
    for piece in data.chunks(len) {
        let mut session = resume(store, session).await.unwrap();
        offset += piece.len() as u64;
        assert_eq!(session.append_bytes(session.offset(), piece.to_vec()).await.unwrap(), offset);
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_of_every_size_become_the_blob() {
    for sizes in [
        &[0][..],
        &[1],
        &[65_536],
        &[65_537],
        &[65_535, 1, 1],
        &[100, 65_436, 1],
        &[70_000, 70_000],
        &[4 * MIB, 10, 4 * MIB],
        &[4 * MIB + 10, 5 * MIB - 10, 65_536],
        &[9 * MIB + 100_000, 0, 3],
    ] {
        let world = World::new().await;
        let bytes = data(sizes.iter().sum());
        let session = create(&world.store).await;
        let mut rest = bytes.as_slice();
        for size in sizes {
            let (piece, after) = rest.split_at(*size);
            rest = after;
            let mut session = resume(&world.store, &session).await.unwrap();
            session.append_bytes(session.offset(), piece.to_vec()).await.unwrap();
        }
        let mut session = resume(&world.store, &session).await.unwrap();
        assert_eq!(session.offset(), bytes.len() as u64);
        let put = session.commit(&sha256(&bytes), Some(bytes.len() as u64)).await.unwrap();
        assert_eq!((put.size, put.created), (bytes.len() as u64, true));
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes, "{sizes:?}");
        // The session is gone, but for its tombstone.
        assert!(sessions(&world.store).await.is_empty());
        assert_eq!(resume(&world.store, &session).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

// FORMAT-P6
#[tokio::test(start_paused = true)]
async fn another_node_goes_on_without_reading_again() {
    let world = World::new().await;
    let (other, _, script) = world.node(2).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let bytes = data(11 * MIB);
        let options = SessionOptions { algorithm, owner: b"example/app".to_vec() };
        let mut session = world.store.create_session(options).await.unwrap();
        session.append_bytes(0, bytes[..6 * MIB + 5].to_vec()).await.unwrap();
        let mut session = resume(&other, &session).await.unwrap();
        assert_eq!((session.offset(), session.owner()), (6 * MIB as u64 + 5, &b"example/app"[..]));
        session.append_bytes(session.offset(), bytes[6 * MIB + 5..].to_vec()).await.unwrap();
        let put = session.commit(&Digest::of(algorithm, &bytes), None).await.unwrap();
        assert_eq!(count(&script.take_requests(), Op::Get, "data/"), 0);
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
        script.take_requests();
    }
}

#[tokio::test(start_paused = true)]
async fn tiny_pieces_do_not_become_tiny_objects() {
    let world = World::new().await;
    let session = create(&world.store).await;
    let bytes = data(200 * 300);
    append_in_pieces(&world.store, &session, &bytes, 300).await;
    assert_eq!(world.keys("data").await.len(), 0, "200 pieces, all in the session object");
    let mut session = resume(&world.store, &session).await.unwrap();
    let put = session.commit(&sha256(&bytes), None).await.unwrap();
    assert_eq!(world.keys("data").await.len(), 0, "and then in the envelope");
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn a_small_last_extent_is_sealed_again_with_what_follows() {
    let world = World::new().await;
    let session = create(&world.store).await;
    let bytes = data(60 * 100_000);
    append_in_pieces(&world.store, &session, &bytes, 100_000).await;
    // Each is 1 MiB at least, and less than that and a piece; what was sealed again is gone.
    let keys = world.keys("data").await;
    assert!(keys.len() <= 6, "{keys:?}");
    let mut session = resume(&world.store, &session).await.unwrap();
    let put = session.commit(&sha256(&bytes), None).await.unwrap();
    assert_eq!(world.store.stat(&put.digest).await.unwrap().extents, keys.len());
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
}

/// kill -9 in a long append: what was saved on the way is there.
#[tokio::test(start_paused = true)]
async fn one_long_append_loses_at_most_64_mib() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    let id = *session.id();
    let bytes = data(MIB).repeat(150);
    for received in [64 * MIB + 1, 150 * MIB] {
        let offset = session.offset();
        let from = usize::try_from(offset).unwrap();
        let pieces: Vec<_> = bytes[from..received].chunks(3 * MIB).map(Bytes::copy_from_slice).collect();
        let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)).chain(stream::pending());
        let hung = tokio::time::timeout(Duration::from_secs(60), session.append(offset, pieces)).await;
        assert!(hung.is_err());
        drop(session);
        session = world.store.resume_session(&id).await.unwrap();
        let kept = usize::try_from(session.offset()).unwrap();
        assert!(kept > 0 && kept + 64 * MIB > received, "{kept} of {received}");
    }
    let from = usize::try_from(session.offset()).unwrap();
    session.append_bytes(session.offset(), bytes[from..].to_vec()).await.unwrap();
    let put = session.commit(&sha256(&bytes), None).await.unwrap();
    assert!(get(&world.store, &put.digest).await.unwrap() == bytes);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_stream_failed_is_saved() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    let pieces = [Ok(Bytes::from(data(2 * MIB))), Err(std::io::Error::other("the client went away"))];
    let error = session.append(0, stream::iter(pieces)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(session.offset(), 2 * MIB as u64);
    assert_eq!(resume(&world.store, &session).await.unwrap().offset(), 2 * MIB as u64);
}

#[tokio::test(start_paused = true)]
async fn an_append_at_another_offset_is_refused() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, "0123456789").await.unwrap();
    world.script.take_requests();
    for offset in [0, 9, 11] {
        let error = session.append_bytes(offset, "more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert_eq!(world.script.take_requests(), []);
    assert_eq!(session.offset(), 10);
}

/// A node that was stalled goes on after another one did: nothing of it is taken, nothing of the other's lost.
#[tokio::test(start_paused = true)]
async fn late_writes_of_a_stalled_node_change_nothing() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let mut stalled = create(&world.store).await;
    stalled.append_bytes(0, data(2 * MIB)).await.unwrap();
    let mut session = resume(&other, &stalled).await.unwrap();
    let mut cancelled = resume(&other, &stalled).await.unwrap();
    session.append_bytes(2 * MIB as u64, vec![1; 3 * MIB]).await.unwrap();
    for (offset, bytes) in [(2 * MIB as u64, vec![2; 3 * MIB]), (2 * MIB as u64, vec![2; 10])] {
        let error = stalled.append_bytes(offset, bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let error = cancelled.commit(&sha256(&data(2 * MIB)), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let bytes = [data(2 * MIB), vec![1; 3 * MIB]].concat();
    let put = session.commit(&sha256(&bytes), None).await.unwrap();
    let error = stalled.append_bytes(2 * MIB as u64, vec![2; 10]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
}

/// The stalled node's view names an extent that another one has replaced: that is no damage.
#[tokio::test(start_paused = true)]
async fn data_that_another_node_replaced_is_a_conflict_not_damage() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let mut stalled = create(&world.store).await;
    stalled.append_bytes(0, data(100_000)).await.unwrap();
    let mut committing = resume(&world.store, &stalled).await.unwrap();
    let mut session = resume(&other, &stalled).await.unwrap();
    session.append_bytes(100_000, data(100_000)).await.unwrap();
    let error = stalled.append_bytes(100_000, data(100_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let by_sha512 = Digest::of(Algorithm::Sha512, &data(100_000));
    let error = committing.commit(&by_sha512, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

/// After a failed conditional write our own revision there = done.
// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn our_own_session_after_a_lost_answer_is_success() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        world.script.after(Op::Create, "uploads/", move || Some(answer()));
        let mut session = create(&world.store).await;
        // The append, the mark, the removal.
        world.script.after(Op::Update, "uploads/", move || Some(answer()));
        session.append_bytes(0, large()).await.unwrap();
        world.script.after(Op::Update, "uploads/", move || Some(answer()));
        world.script.after(Op::Update, "uploads/", move || Some(answer()));
        let put = session.commit(&sha256(&large()), None).await.unwrap();
        assert!(put.created && world.script.is_done());
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
        assert!(sessions(&world.store).await.is_empty());
        assert_eq!(world.keys("data").await.len(), 2);
    }
}

/// After a failed conditional write an unchanged session there = again.
// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn an_unchanged_session_after_a_refused_write_is_a_retry() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        world.script.before(Op::Create, "uploads/", move || Some(answer()));
        let mut session = create(&world.store).await;
        world.script.before(Op::Update, "uploads/", move || Some(answer()));
        session.append_bytes(0, large()).await.unwrap();
        world.script.before(Op::Update, "uploads/", move || Some(answer()));
        world.script.before_nth(Op::Update, "uploads/", 1, move || Some(answer()));
        let put = session.commit(&sha256(&large()), None).await.unwrap();
        assert!(world.script.is_done());
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
        assert!(sessions(&world.store).await.is_empty());
    }
}

/// An append is applied, its answer lost, and before it is read back another node goes on: what the first one stored is the
/// other's now, and stays.
#[tokio::test(start_paused = true)]
async fn data_that_another_node_built_on_is_not_removed_by_who_lost_the_answer() {
    for answer in [precondition, broken_connection] {
        let world = World::new().await;
        let (other, ..) = world.node(2).await;
        let mut session = create(&world.store).await;
        let (id, node) = (*session.id(), other.clone());
        world.script.after(Op::Update, "uploads/", move || {
            let go_on = async {
                let mut session = node.resume_session(&id).await.unwrap();
                assert_eq!(
                    session.append_bytes(3 * MIB as u64, "the end").await.unwrap(),
                    3 * MIB as u64 + 7
                );
            };
            futures::executor::block_on(go_on);
            Some(answer())
        });
        let error = session.append_bytes(0, data(3 * MIB)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let mut session = resume(&other, &session).await.unwrap();
        let bytes = [data(3 * MIB).as_slice(), b"the end"].concat();
        let put = session.commit(&sha256(&bytes), None).await.unwrap();
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn an_extent_that_is_not_taken_fails_the_append_and_leaves_nothing() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, data(MIB)).await.unwrap();
    let before = world.keys("data").await;
    world.script.before_nth(Op::Put, "data/", 1, || Some(broken_connection()));
    let error = session.append_bytes(MIB as u64, data(9 * MIB)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.keys("data").await, before);
    assert_eq!(resume(&world.store, &session).await.unwrap().offset(), MIB as u64);
}
