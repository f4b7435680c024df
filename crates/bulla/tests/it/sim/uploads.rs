//! The same for upload sessions and meta objects: nodes that crash, stall and take over each other's uploads, a rewrap and gcs
//! in the midst of it.
//!
//! What must hold, whatever happens:
//! - what an append acknowledged is in the session on every node, at its place, until the session ends;
//! - a committed blob has exactly those bytes there, and what nobody acknowledged only in between;
//! - a session ends only by a commit or a cancel that somebody began;
//! - an entry that was added to a meta object with an acknowledgement is there, and once.

use bulla::{GcOptions, MetaKind, Session, SessionId, SessionOptions};

use super::*;

const SESSIONS: usize = 3;
const PIECES: [usize; 5] = [0, 300, 40_000, 90_000, (1 << 20) + 70_000];
const JOURNAL: MetaKind = MetaKind::new("journal", 1);

/// What is known for certain about an upload.
#[derive(Default)]
struct Upload {
    id: Option<SessionId>,
    /// Where acknowledged pieces are, and what they are.
    acknowledged: Vec<(usize, Bytes)>,
    /// Somebody has begun to commit or cancel it.
    ending: bool,
    /// Its commit was acknowledged.
    committed: Option<Digest>,
    /// An append got no acknowledgement: what it wrote may be there and, if a gc overtook it, its data may not.
    in_doubt: bool,
}

impl Upload {
    fn offset(&self) -> usize {
        self.acknowledged.iter().map(|(at, bytes)| at + bytes.len()).max().unwrap_or_default()
    }

    fn check(&self, content: &[u8]) {
        for (at, bytes) in &self.acknowledged {
            assert!(
                content[*at..].starts_with(bytes),
                "{} acknowledged bytes at {at} are others",
                bytes.len()
            );
        }
    }
}

#[derive(Default)]
struct Facts {
    uploads: Vec<Upload>,
    /// Entries whose addition was acknowledged.
    added: Vec<u64>,
    begun: u64,
}

type Shared = Arc<Mutex<Facts>>;

#[test]
fn uploads_go_on_anywhere_and_keep_what_was_acknowledged() {
    for_each_seed(300, scenario);
}

async fn scenario(sim: &Simulation) {
    let provider = sim.provider("k");
    provider.new_version("k2");
    let maker = sim.node("maker");
    let mode = if sim.random().chance(200) { Mode::Direct } else { Mode::Hierarchical };
    let options = CreateOptions { mode, ..create_options() };
    let store = engine(&maker, &provider).create(bucket(&maker), options).await.unwrap();
    let anchor = store.anchor();
    store.close().await;
    let facts: Shared = Arc::default();
    facts.lock().unwrap().uploads.extend((0..SESSIONS).map(|_| Upload::default()));

    provider.set_faults(service_faults(sim.random()), sim.random());
    let owner = customer(sim, &provider, FIRST[0].1, true);
    let nodes = NODES.iter().map(|name| machine(sim, name, &provider, anchor, &facts));
    futures::join!(owner, futures::future::join_all(nodes));

    // Everything heals.
    provider.set_faults(ServiceFaults::default(), sim.random());
    provider.set_down(false);
    for name in ["k", "k2"] {
        provider.allow(name);
    }
    sim.sleep(Duration::from_secs(120)).await;
    let last = sim.node("last");
    let store = engine(&last, &provider).open(bucket(&last), pinned(anchor)).await.unwrap();
    check_the_end(&store, &facts).await;
}

/// A machine that works, is suspended, is killed and starts again.
async fn machine(
    sim: &Simulation,
    name: &str,
    provider: &SimProvider,
    anchor: bulla::Anchor,
    facts: &Shared,
) {
    let random = Arc::clone(sim.random());
    for life in 0..3 {
        let node = sim.node(&format!("{name}{life}"));
        node.set_faults(Faults::mixed(&random));
        if random.chance(500) {
            node.crash_after(1 + random.below(100));
        }
        let mine = provider.for_node(node.runtime());
        let work = {
            let (node, facts, random) = (node.clone(), Arc::clone(facts), Arc::clone(&random));
            async move { work(&node, &mine, anchor, &facts, &random).await }
        };
        if node.run(work).await.is_some() {
            return;
        }
        sim.sleep(random.duration(Duration::from_secs(20))).await;
    }
}

async fn work(
    node: &SimNode,
    provider: &SimProvider,
    anchor: bulla::Anchor,
    facts: &Shared,
    random: &SeededRandom,
) {
    let engine = engine(node, provider);
    let Some(store) = opened(&engine, node, anchor).await else { return };
    for _ in 0..16 {
        node.runtime().sleep(random.duration(Duration::from_secs(8))).await;
        let which = usize::try_from(random.below(SESSIONS as u64)).unwrap();
        match random.below(24) {
            0..=11 => append(&store, facts, which, node, random).await,
            12 | 13 => commit(&store, facts, which).await,
            14 => cancel(&store, facts, which, random).await,
            15..=17 => add_to_journal(&store, facts).await,
            18 | 19 => check_committed(&store, facts, which).await,
            20 => gc(&store, random).await,
            21 => rewrap(&store).await,
            _ => node.runtime().suspend(random.duration(2 * R)),
        }
    }
    store.close().await;
}

async fn opened(engine: &Engine, node: &SimNode, anchor: bulla::Anchor) -> Option<Store> {
    for _ in 0..20 {
        match engine.open(bucket(node), pinned(anchor)).await {
            Ok(store) => return Some(store),
            Err(error) => acceptable(&error),
        }
        node.runtime().sleep(Duration::from_secs(10)).await;
    }
    None
}

/// The session of an upload, with everything that was acknowledged when this began; a new one if there is none.
async fn session(store: &Store, facts: &Shared, which: usize) -> Option<Session> {
    let (id, known) = {
        let facts = facts.lock().unwrap();
        (facts.uploads[which].id, facts.uploads[which].offset())
    };
    let Some(id) = id else {
        match store.create_session(SessionOptions::default()).await {
            Ok(session) => {
                let upload = &mut facts.lock().unwrap().uploads[which];
                // Another node may have begun it meanwhile; then this one is nobody's.
                if upload.id.is_some() {
                    return None;
                }
                upload.id = Some(*session.id());
                return Some(session);
            }
            Err(error) => acceptable(&error),
        }
        return None;
    };
    match store.resume_session(&id).await {
        Ok(session) => {
            let offset = usize::try_from(session.offset()).unwrap();
            assert!(offset >= known, "{known} bytes were acknowledged, and {offset} are there");
            Some(session)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(facts.lock().unwrap().uploads[which].ending, "a session went that nobody ended");
            None
        }
        Err(error) => {
            acceptable(&error);
            None
        }
    }
}

/// Bytes of one's own, so that a byte says whose it is.
async fn append(store: &Store, facts: &Shared, which: usize, node: &SimNode, random: &SeededRandom) {
    let Some(mut session) = session(store, facts, which).await else { return };
    if random.chance(300) {
        // A client that takes its time, while others go on.
        node.runtime().sleep(random.duration(R)).await;
    }
    let tag = u8::try_from(random.below(251)).unwrap();
    let bytes = Bytes::from(vec![tag; *random.pick(&PIECES)]);
    let at = session.offset();
    let before = std::mem::replace(&mut facts.lock().unwrap().uploads[which].in_doubt, true);
    match session.append_bytes(at, bytes.clone()).await {
        Ok(offset) => {
            assert_eq!(offset, at + bytes.len() as u64);
            let upload = &mut facts.lock().unwrap().uploads[which];
            upload.in_doubt = before;
            upload.acknowledged.push((usize::try_from(at).unwrap(), bytes));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(facts.lock().unwrap().uploads[which].ending, "a session went that nobody ended");
        }
        Err(error) => acceptable(&error),
    }
}

/// Nobody but the engine knows all bytes, so its refusal of a wrong digest has to say the right one.
async fn digest_of(session: &mut Session) -> Option<Digest> {
    if let Some(digest) = session.committing() {
        return Some(digest.clone());
    }
    let wrong = Digest::of(bulla::Algorithm::Sha256, b"something else");
    let error = session.commit(&wrong, None).await.unwrap_err();
    if error.kind() != ErrorKind::Invalid {
        acceptable(&error);
        return None;
    }
    let text = error.to_string();
    let digest = text.split_once("have digest ").unwrap().1.split_once(',').unwrap().0;
    Some(digest.parse().unwrap())
}

async fn commit(store: &Store, facts: &Shared, which: usize) {
    let Some(mut session) = session(store, facts, which).await else { return };
    let Some(digest) = digest_of(&mut session).await else { return };
    facts.lock().unwrap().uploads[which].ending = true;
    match session.commit(&digest, Some(session.offset())).await {
        Ok(put) => {
            assert_eq!(put.digest, digest);
            facts.lock().unwrap().uploads[which].committed = Some(digest);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => acceptable(&error),
    }
}

async fn cancel(store: &Store, facts: &Shared, which: usize, random: &SeededRandom) {
    if random.chance(700) {
        return;
    }
    let Some(session) = session(store, facts, which).await else { return };
    facts.lock().unwrap().uploads[which].ending = true;
    if let Err(error) = session.cancel().await {
        acceptable(&error);
    }
}

async fn check_committed(store: &Store, facts: &Shared, which: usize) {
    let Some(digest) = facts.lock().unwrap().uploads[which].committed.clone() else { return };
    let read = async { store.get(&digest).await?.bytes().await };
    match read.await {
        Ok(content) => {
            assert!(Digest::of(bulla::Algorithm::Sha256, &content) == digest);
            facts.lock().unwrap().uploads[which].check(&content);
        }
        Err(error) => acceptable(&error),
    }
}

/// Adds a number of its own to a list that all share, by compare-and-swap.
async fn add_to_journal(store: &Store, facts: &Shared) {
    let mine = {
        let mut facts = facts.lock().unwrap();
        facts.begun += 1;
        facts.begun
    };
    let (meta, path) = (store.meta(), ["all"]);
    for _ in 0..5 {
        let added = async {
            let before = meta.get(JOURNAL, &path).await?;
            let mut entries = before.as_ref().map(|entry| entry.payload.to_vec()).unwrap_or_default();
            // The last try may have been applied, and added to by others.
            if numbers(&entries).contains(&mine) {
                return Ok(true);
            }
            entries.extend(mine.to_be_bytes());
            let written = match before {
                None => meta.create(JOURNAL, &path, entries).await,
                Some(entry) => meta.update(JOURNAL, &path, entries, &entry.version).await,
            };
            written.map(|written| written.is_done())
        };
        match added.await {
            Ok(true) => return facts.lock().unwrap().added.push(mine),
            Ok(false) => {}
            Err(error) => return acceptable(&error),
        }
    }
}

fn numbers(entries: &[u8]) -> Vec<u64> {
    entries.chunks_exact(8).map(|entry| u64::from_be_bytes(entry.try_into().unwrap())).collect()
}

async fn check_the_end(store: &Store, facts: &Shared) {
    // What is under way ends, and what nobody names goes.
    if store.status().await.unwrap().mode == Mode::Hierarchical {
        store.rewrap(SweepOptions::default(), |_| {}).await.unwrap();
    }
    for _ in 0..2 {
        store.gc(GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() }, |_| {}).await.unwrap();
    }
    for which in 0..SESSIONS {
        let Some(id) = facts.lock().unwrap().uploads[which].id else { continue };
        if let Ok(mut session) = store.resume_session(&id).await {
            let offset = usize::try_from(session.offset()).unwrap();
            assert!(offset >= facts.lock().unwrap().uploads[which].offset());
            let digest = digest_of(&mut session).await.unwrap();
            match session.commit(&digest, None).await {
                Ok(_) => facts.lock().unwrap().uploads[which].committed = Some(digest),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                    assert!(facts.lock().unwrap().uploads[which].in_doubt, "{error:?}");
                }
            }
        } else {
            assert!(facts.lock().unwrap().uploads[which].ending, "a session went that nobody ended");
        }
        let Some(digest) = facts.lock().unwrap().uploads[which].committed.clone() else { continue };
        let blob = store.get(&digest).await.unwrap();
        let content: Vec<_> = blob.into_verified_stream().try_collect().await.unwrap();
        facts.lock().unwrap().uploads[which].check(&content.concat());
    }
    let entries = store.meta().get(JOURNAL, &["all"]).await.unwrap();
    let entries = entries.map(|entry| entry.payload.to_vec()).unwrap_or_default();
    let entries = numbers(&entries);
    let mut once = entries.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), entries.len(), "added twice: {entries:?}");
    let added = std::mem::take(&mut facts.lock().unwrap().added);
    assert!(added.iter().all(|mine| entries.contains(mine)), "{added:?} of {entries:?}");
}
