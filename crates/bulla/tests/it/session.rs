//! Upload sessions: what an append acknowledged is there, on any node, whatever happens; and nothing else is.

mod rewrap;

use std::time::Duration;

use bulla::kek::{DenyReason, Runtime};
use bulla::{Algorithm, Digest, ErrorKind, Session, SessionId, SessionOptions, Store};
use bulla_envelope::record::StoreKeyState;
use bulla_testkit::provider::key_id;
use bulla_testkit::scripted::{Op, already_exists, broken_connection, precondition};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::support::*;

const MIB: usize = 1 << 20;

async fn create(store: &Store) -> Session {
    store.create_session(SessionOptions::default()).await.unwrap()
}

async fn resume(store: &Store, session: &Session) -> bulla::Result<Session> {
    store.resume_session(session.id()).await
}

fn sha256(data: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, data)
}

/// Appends `data` in pieces of `len`, each in a request of its own.
async fn append_in_pieces(store: &Store, session: &Session, data: &[u8], len: usize) {
    let mut offset = 0;
    for piece in data.chunks(len) {
        let mut session = resume(store, session).await.unwrap();
        offset += piece.len() as u64;
        assert_eq!(session.append_bytes(session.offset(), piece.to_vec()).await.unwrap(), offset);
    }
}

async fn sessions(store: &Store) -> Vec<bulla::Result<bulla::SessionEntry>> {
    store.sessions().collect().await
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

/// Names of uploads are handed out before anything of them is in the bucket.
#[tokio::test(start_paused = true)]
async fn a_session_of_a_given_name_is_begun_once_and_then_resumed() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let id = SessionId::random(world.runtime.random());
    let begin = async |store: &Store| store.begin_session(&id, SessionOptions::default()).await;
    let mut session = begin(&world.store).await.unwrap();
    session.append_bytes(0, "one".as_bytes().to_vec()).await.unwrap();
    let mut session = begin(&other).await.unwrap();
    assert_eq!((*session.id(), session.offset()), (id, 3));
    session.append_bytes(3, " two".as_bytes().to_vec()).await.unwrap();
    // The answer of the create is lost: what is there is ours.
    let lost = SessionId::random(world.runtime.random());
    world.script.after(Op::Create, "uploads/", || Some(broken_connection()));
    let found = world.store.begin_session(&lost, SessionOptions::default()).await.unwrap();
    assert_eq!((*found.id(), found.offset()), (lost, 0));
    let put = session.commit(&sha256(b"one two"), None).await.unwrap();
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), "one two");
    assert_eq!(begin(&world.store).await.unwrap_err().kind(), ErrorKind::NotFound, "it has ended");
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

#[tokio::test(start_paused = true)]
async fn an_id_that_nobody_made_is_not_found() {
    let world = World::new().await;
    let id = "aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    assert_eq!(world.store.resume_session(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let options = SessionOptions { owner: vec![0; 1025], ..SessionOptions::default() };
    assert_eq!(world.store.create_session(options).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn verify_looks_at_what_sessions_name() {
    let world = World::new().await;
    let mut session = create(&world.store).await;
    session.append_bytes(0, large()).await.unwrap();
    let verify = || world.store.verify(bulla::VerifyOptions::default(), |_| {});
    let report = verify().await.unwrap();
    assert_eq!((report.uploads, report.damaged, report.unnamed.objects), (1, 0, 0));
    world.remove(&world.keys("data").await[0]).await;
    assert_eq!(verify().await.unwrap().damaged, 1);
    world.write("uploads/stray", "x").await;
    assert_eq!(verify().await.unwrap().damaged, 2);
}

/// Requests of a server run on any thread.
#[tokio::test(start_paused = true)]
async fn everything_can_be_done_in_a_task() {
    let world = World::new().await;
    let store = world.store.clone();
    let task = async move {
        let options = SessionOptions { algorithm: Algorithm::Sha512, ..SessionOptions::default() };
        let mut session = store.create_session(options).await?;
        let pieces = stream::iter([Ok::<_, std::io::Error>(Bytes::from(large()))]);
        session.append(0, pieces).await?;
        session.append_bytes(session.offset(), "more").await?;
        let mut session = store.resume_session(session.id()).await?;
        let digest = sha256(&[large().as_slice(), b"more"].concat());
        session.commit(&digest, None).await?;
        store.create_session(SessionOptions::default()).await?.cancel().await?;
        store.expire_sessions(std::time::SystemTime::now()).await?;
        let sessions: Vec<_> = store.sessions().try_collect().await?;
        let (meta, kind) = (store.meta(), bulla::MetaKind::new("tag", 2));
        let names = ["example/app".to_owned(), "latest".to_owned()];
        let path: Vec<&str> = names.iter().map(String::as_str).collect();
        let version = meta.set(kind, &path, "payload").await?;
        let _ = meta.create(kind, &path, "payload").await?;
        let _ = meta.update(kind, &path, "payload", &version).await?;
        meta.list(kind, &path[..1], None, 10).await?;
        if let Some(entry) = meta.get(kind, &path).await? {
            let _ = meta.remove(kind, &path, &entry.version).await?;
        }
        Ok::<_, bulla::Error>(sessions.len())
    };
    assert_eq!(tokio::spawn(task).await.unwrap().unwrap(), 0);
}
