//! Upload sessions: what an append acknowledged is there, on any node, whatever happens; and nothing else is.

mod append;
mod commit;
mod lease;
mod list;
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

async fn sessions(store: &Store) -> Vec<bulla::Result<bulla::SessionEntry>> {
    store.sessions().collect().await
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
