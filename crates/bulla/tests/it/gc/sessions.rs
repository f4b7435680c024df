//! Upload sessions and gc: what a session names stays, what nobody goes on with goes, and whom a gc overtakes copies.

use bulla::{Session, SessionOptions};

use super::*;

fn digest() -> bulla::Digest {
    bulla::Digest::of(bulla::Algorithm::Sha256, &large())
}

/// A session that has all of [`large`].
async fn uploaded(store: &Store) -> Session {
    let mut session = store.create_session(SessionOptions::default()).await.unwrap();
    session.append_bytes(0, large()).await.unwrap();
    session
}

#[tokio::test(start_paused = true)]
async fn data_that_an_upload_session_names_stays() {
    let (world, objects) = clocked_world().await;
    orphans(&world.store).await;
    let session = uploaded(&world.store).await;
    pass(2 * GRACE).await;
    for grace in [GRACE, Duration::ZERO] {
        let report = gc(&world.store, grace).await.unwrap();
        assert_eq!((report.uploads, report.expired_uploads), (1, 0));
    }
    let mut session = world.store.resume_session(session.id()).await.unwrap();
    session.commit(&digest(), None).await.unwrap();
    pass(2 * GRACE).await;
    gc(&world.store, GRACE).await.unwrap();
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    assert_eq!(get(&world.store, &digest()).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn an_idle_upload_session_goes_and_its_data_with_the_next_gc() {
    let (world, objects) = clocked_world().await;
    let session = uploaded(&world.store).await;
    let busy = world.store.create_session(SessionOptions::default()).await.unwrap();
    pass(Duration::from_secs(6 * 24 * 3600)).await;
    let mut busy = world.store.resume_session(busy.id()).await.unwrap();
    busy.append_bytes(0, "on").await.unwrap();
    pass(Duration::from_secs(24 * 3600)).await;
    let report = world.store.gc(GcOptions { dry_run: true, ..GcOptions::default() }, |_| {}).await.unwrap();
    assert_eq!((report.uploads, report.expired_uploads), (2, 0));
    let report = gc(&world.store, GRACE).await.unwrap();
    assert_eq!((report.uploads, report.expired_uploads, report.removed.objects), (1, 1, 2));
    assert!(object_keys(&objects, "data/").is_empty());
    assert_eq!(world.store.resume_session(session.id()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.store.resume_session(busy.id()).await.unwrap().offset(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_data_is_not_known_blocks_by_name() {
    let (world, objects) = clocked_world().await;
    orphans(&world.store).await;
    world.store.create_session(SessionOptions::default()).await.unwrap();
    let key = object_keys(&objects, "uploads/").pop().unwrap();
    pass(2 * GRACE).await;
    for key in ["uploads/abc", &key] {
        let before = objects.objects().into_iter().find(|(found, _)| found == key).map(|(_, bytes)| bytes);
        objects.tamper(key, Some(b"a session of a later version".as_slice().into()));
        let error = gc(&world.store, GRACE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        assert_eq!(object_keys(&objects, "data/").len(), 1);
        objects.tamper(key, before);
    }
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 1);
}

/// Sessions are looked at before envelopes: a commit between the two looks is seen in one of them.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_committed_while_a_gc_looks_keeps_its_data() {
    let (world, objects) = clocked_world().await;
    let mut session = uploaded(&world.store).await;
    let (session_key, before) =
        objects.objects().into_iter().find(|(key, _)| key.starts_with("uploads/")).unwrap();
    session.commit(&digest(), None).await.unwrap();
    let (envelope_key, envelope) =
        objects.objects().into_iter().find(|(key, _)| key.starts_with("blobs/")).unwrap();
    pass(2 * GRACE).await;
    objects.tamper(&envelope_key, None);
    objects.tamper(&session_key, Some(before));
    let commits = objects.clone();
    world.script.before(Op::List, "blobs", move || {
        commits.tamper(&envelope_key, Some(envelope));
        commits.tamper(&session_key, None);
        None
    });
    assert_eq!(gc(&world.store, GRACE).await.unwrap().removed.objects, 0);
    assert!(world.script.is_done());
    assert_eq!(get(&world.store, &digest()).await.unwrap(), large());
}

/// A listing of a folder may miss a file that is renamed over while it runs.
#[tokio::test(start_paused = true)]
async fn a_session_that_the_first_listing_missed_is_found_by_the_second() {
    let (world, objects) = clocked_world().await;
    uploaded(&world.store).await;
    pass(2 * GRACE).await;
    let key = object_keys(&objects, "uploads/").pop().unwrap();
    let session = stored(&objects, &key);
    let (hidden, shown) = (objects.clone(), objects.clone());
    // The first listing is of those that are idle.
    world.script.before(Op::List, "uploads", || None);
    let hidden_key = key.clone();
    world.script.before(Op::List, "uploads", move || {
        hidden.tamper(&hidden_key, None);
        None
    });
    world.script.before(Op::List, "uploads", move || {
        shown.tamper(&key, Some(session));
        None
    });
    let report = gc(&world.store, GRACE).await.unwrap();
    assert!(world.script.is_done());
    assert_eq!((report.uploads, report.removed.objects), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_append_that_ends_while_a_gc_waits_copies_its_data_and_stays() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let mut session = world.store.create_session(SessionOptions::default()).await.unwrap();
    let mut first = bytes::Bytes::from(large());
    let rest = first.split_off(4 << 20);
    let slowly = futures::stream::unfold(Some((first, Some(rest))), |parts| async move {
        let (now, later) = parts?;
        if later.is_none() {
            pass(R).await;
        }
        Some((Ok::<_, std::io::Error>(now), later.map(|later| (later, None))))
    });
    let append = session.append(0, Box::pin(slowly));
    let collect = async {
        pass(Duration::from_secs(1)).await;
        gc(&other, Duration::ZERO).await
    };
    let (report, appended) = tokio::join!(collect, append);
    assert_eq!(appended.unwrap(), large().len() as u64);
    // What was copied.
    assert_eq!(report.unwrap().removed.objects, 1);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    session.commit(&digest(), None).await.unwrap();
    gc(&other, Duration::ZERO).await.unwrap();
    assert_eq!(get(&other, &digest()).await.unwrap(), large());
}

/// The write of the session came after the gc had looked, and the data is still there: it is copied before the append is
/// acknowledged.
#[tokio::test(start_paused = true)]
async fn a_session_that_the_gc_did_not_see_is_acknowledged_with_copied_data() {
    let (world, objects) = clocked_world().await;
    let (other, _, script) = world.node(2).await;
    let mut session = world.store.create_session(SessionOptions::default()).await.unwrap();
    let held = world.script.hold(Op::Update, "uploads/");
    // The gc is about to remove what it has found.
    let removing = script.hold(Op::Delete, "data/");
    let late = async {
        pass(WAIT + Duration::from_secs(1)).await;
        drop(held);
        pass(Duration::from_secs(5)).await;
        drop(removing);
    };
    let append = session.append_bytes(0, large());
    let (appended, report, ()) = tokio::join!(append, gc(&other, Duration::ZERO), late);
    assert_eq!(appended.unwrap(), large().len() as u64);
    assert_eq!(report.unwrap().removed.objects, 2);
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    let mut session = other.resume_session(session.id()).await.unwrap();
    session.commit(&digest(), None).await.unwrap();
    assert_eq!(get(&other, &digest()).await.unwrap(), large());
}

/// The write of the session was on its way for as long as a whole gc takes. The append is not acknowledged, and what was
/// acknowledged before is as it was.
#[tokio::test(start_paused = true)]
async fn an_append_whose_data_was_collected_is_taken_back() {
    let (world, objects) = clocked_world().await;
    let (other, ..) = world.node(2).await;
    let mut session = world.store.create_session(SessionOptions::default()).await.unwrap();
    session.append_bytes(0, data(2 << 20)).await.unwrap();
    let held = world.script.hold(Op::Update, "uploads/");
    let collect = async {
        pass(Duration::from_secs(1)).await;
        let report = gc(&other, Duration::ZERO).await;
        drop(held);
        report
    };
    let offset = session.offset();
    let (appended, report) = tokio::join!(session.append_bytes(offset, data(3 << 20)), collect);
    assert_eq!(report.unwrap().removed.objects, 1);
    assert_eq!(appended.unwrap_err().kind(), ErrorKind::Conflict);
    let mut session = other.resume_session(session.id()).await.unwrap();
    assert_eq!(session.offset(), 2 << 20);
    session.append_bytes(2 << 20, data(100_000)).await.unwrap();
    let bytes = [data(2 << 20), data(100_000)].concat();
    let digest = bulla::Digest::of(bulla::Algorithm::Sha256, &bytes);
    session.commit(&digest, None).await.unwrap();
    gc(&other, Duration::ZERO).await.unwrap();
    assert_eq!(object_keys(&objects, "data/").len(), 2);
    assert_eq!(get(&world.store, &digest).await.unwrap(), bytes);
}

/// Nobody was there to take it back: no commit makes a blob without data.
#[tokio::test(start_paused = true)]
async fn a_session_whose_data_was_collected_is_never_committed() {
    let (world, objects) = clocked_world().await;
    let session = uploaded(&world.store).await;
    let (key, bytes) = objects.objects().into_iter().find(|(key, _)| key.starts_with("uploads/")).unwrap();
    // The gc has not seen it.
    objects.tamper(&key, None);
    pass(Duration::from_secs(1)).await;
    assert_eq!(gc(&world.store, Duration::ZERO).await.unwrap().removed.objects, 2);
    objects.tamper(&key, Some(bytes));
    let mut session = world.store.resume_session(session.id()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(session.commit(&digest(), None).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert!(object_keys(&objects, "blobs/").is_empty());
    let mut session = world.store.resume_session(session.id()).await.unwrap();
    let offset = session.offset();
    assert_eq!(session.append_bytes(offset, data(10)).await.unwrap_err().kind(), ErrorKind::Conflict);
    session.cancel().await.unwrap();
}

/// A session's writer was killed before it could look whether a gc had overtaken it: who goes on looks.
#[tokio::test(start_paused = true)]
async fn who_goes_on_with_a_session_that_the_gc_did_not_see_copies_its_data() {
    let (world, objects) = clocked_world().await;
    let (killed, _, killed_script) = world.node(2).await;
    let (other, _, script) = world.node(3).await;
    put(&killed, &data(100_000)).await;
    let mut session = killed.create_session(SessionOptions::default()).await.unwrap();
    let id = *session.id();
    let update = killed_script.hold(Op::Update, "uploads/");
    let never = killed_script.hold(Op::Get, "jobs/");
    let removing = script.hold(Op::Delete, "data/");
    let dead = async {
        let append = session.append_bytes(0, large());
        assert!(tokio::time::timeout(2 * WAIT, append).await.is_err());
    };
    let late = async {
        pass(WAIT + Duration::from_secs(1)).await;
        drop(update);
        pass(Duration::from_secs(1)).await;
        let mut session = world.store.resume_session(&id).await.unwrap();
        session.append_bytes(session.offset(), "more").await.unwrap();
        drop(removing);
    };
    let (report, (), ()) = tokio::join!(gc(&other, Duration::ZERO), late, dead);
    drop(never);
    assert!(report.unwrap().removed.objects >= 2);
    let mut session = world.store.resume_session(&id).await.unwrap();
    let bytes = [large().as_slice(), b"more"].concat();
    let digest = bulla::Digest::of(bulla::Algorithm::Sha256, &bytes);
    session.commit(&digest, None).await.unwrap();
    assert_eq!(get(&world.store, &digest).await.unwrap(), bytes);
    assert_eq!(object_keys(&objects, "data/").len(), 1 + 2 + 1);
}
