//! Readers and writers that never rest: what they got, what they were refused, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla::{Digest, ErrorKind, PutOptions, PutResult, Store};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::evidence::Clock;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Read,
    Write,
}

/// A piece that was read, a blob that was acknowledged, or a refusal of either.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) what: What,
    /// Before it was asked for.
    pub(crate) asked: Duration,
    /// When the answer was there.
    pub(crate) got: Duration,
    pub(crate) refused: Option<(ErrorKind, String)>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The last successful read and write, by when they were asked for.
    served: Mutex<[Duration; 2]>,
    acknowledged: Mutex<Vec<Digest>>,
}

pub(crate) struct Clients {
    store: Store,
    clock: Clock,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Vec<Event>>>,
}

/// Bytes unlike those of any other seed.
fn bytes(seed: usize, len: usize) -> Bytes {
    let mut state = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

impl Clients {
    /// Puts a few blobs, and sends so many readers and writers to the store.
    pub(crate) async fn start(store: &Store, clock: Clock, readers: usize, writers: usize) -> Self {
        let mut clients = Self { store: store.clone(), clock, shared: Arc::default(), tasks: Vec::new() };
        let mut blobs = Vec::new();
        // Inside its envelope; of one extent; of several, which takes a reader longer than R.
        for (seed, len) in [(1, 3 * KIB), (2, 300 * KIB), (3, 24 * MIB)] {
            let content = bytes(seed, len);
            let put = store.put_bytes(content.clone(), PutOptions::default()).await.unwrap();
            clients.shared.acknowledged.lock().unwrap().push(put.digest.clone());
            blobs.push((put.digest, content));
        }
        for reader in 0..readers {
            let client = clients.client();
            clients.tasks.push(tokio::spawn(client.read(blobs.clone(), reader)));
        }
        for writer in 0..writers {
            let client = clients.client();
            clients.tasks.push(tokio::spawn(client.write(writer)));
        }
        clients
    }

    fn client(&self) -> Client {
        let (store, shared) = (self.store.clone(), Arc::clone(&self.shared));
        Client { store, clock: self.clock, shared, events: Vec::new() }
    }

    /// When something that was asked for after `since` was both read and written; `None`: not within `limit`.
    pub(crate) async fn served(&self, since: Duration, limit: Duration) -> Option<Duration> {
        while self.clock.now() < since + limit {
            let served = *self.shared.served.lock().unwrap();
            if served.iter().all(|asked| *asked >= since) {
                return Some(self.clock.now());
            }
            sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Ends them all; what happened, and the blobs that were acknowledged.
    pub(crate) async fn stop(self) -> (Vec<Event>, Vec<Digest>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut events = Vec::new();
        for task in self.tasks {
            events.extend(task.await.unwrap());
        }
        events.sort_by_key(|event| event.asked);
        let acknowledged = std::mem::take(&mut *self.shared.acknowledged.lock().unwrap());
        (events, acknowledged)
    }
}

struct Client {
    store: Store,
    clock: Clock,
    shared: Arc<Shared>,
    events: Vec<Event>,
}

impl Client {
    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn note<T>(&mut self, what: What, asked: Duration, answer: &bulla::Result<T>) {
        let got = self.clock.now();
        let refused = answer.as_ref().err().map(|error| (error.kind(), error.to_string()));
        if refused.is_none() {
            let mut served = self.shared.served.lock().unwrap();
            let last = &mut served[usize::from(what == What::Write)];
            *last = asked.max(*last);
        }
        self.events.push(Event { what, asked, got, refused });
    }

    /// Reads blobs from the beginning, as slow clients do, or a few bytes of them.
    async fn read(mut self, blobs: Vec<(Digest, Bytes)>, number: usize) -> Vec<Event> {
        let mut round = number;
        while !self.stopped() {
            let (digest, content) = &blobs[round % blobs.len()];
            let outcome = if number.is_multiple_of(2) {
                self.read_all(digest, content).await
            } else {
                self.read_a_few(digest, content, round * 977 % (2 * KIB)).await
            };
            if outcome.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_millis(20)).await;
            round += 1;
        }
        self.events
    }

    async fn read_all(&mut self, digest: &Digest, content: &Bytes) -> bulla::Result<()> {
        let asked = self.clock.now();
        let blob = self.store.get(digest).await;
        if blob.is_err() {
            self.note(What::Read, asked, &blob);
        }
        let mut stream = blob?.into_stream();
        let mut at = 0;
        loop {
            let asked = self.clock.now();
            let piece = stream.try_next().await;
            if let Ok(None) = piece {
                assert_eq!(at, content.len(), "a blob ended too early");
                return Ok(());
            }
            self.note(What::Read, asked, &piece);
            let piece = piece?.unwrap_or_default();
            assert!(content[at..].starts_with(&piece), "what was read is not what was put");
            at += piece.len();
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn read_a_few(&mut self, digest: &Digest, content: &Bytes, at: usize) -> bulla::Result<()> {
        let asked = self.clock.now();
        let range = at..at + KIB;
        let read = async {
            let blob = self.store.get(digest).await?;
            let pieces: Vec<Bytes> = blob.range(range.start as u64..range.end as u64)?.try_collect().await?;
            Ok(pieces.concat())
        };
        let read = read.await;
        self.note(What::Read, asked, &read);
        assert!(read? == content[range], "what was read is not what was put");
        Ok(())
    }

    /// Puts blobs that nobody else puts, at once or little by little.
    async fn write(mut self, number: usize) -> Vec<Event> {
        let mut round = 0;
        while !self.stopped() {
            let seed = 1000 + number * 100_000 + round;
            let len = if round.is_multiple_of(2) { 2 * KIB } else { 200 * KIB };
            let content = bytes(seed, len);
            let mut asked = self.clock.now();
            let put = if number.is_multiple_of(2) {
                self.store.put_bytes(content, PutOptions::default()).await
            } else {
                self.write_slowly(content, &mut asked).await
            };
            self.note(What::Write, asked, &put);
            if let Ok(put) = put {
                assert!(put.created, "nobody else puts these bytes");
                self.shared.acknowledged.lock().unwrap().push(put.digest);
            }
            sleep(Duration::from_millis(250)).await;
            round += 1;
        }
        self.events
    }

    async fn write_slowly(&self, content: Bytes, asked: &mut Duration) -> bulla::Result<PutResult> {
        let mut upload = self.store.upload(PutOptions::default()).await?;
        for start in (0..content.len()).step_by(20 * KIB) {
            let piece = content.slice(start..content.len().min(start + 20 * KIB));
            if let Err(error) = upload.write(piece).await {
                upload.abort().await;
                return Err(error);
            }
            sleep(Duration::from_millis(50)).await;
        }
        *asked = self.clock.now();
        upload.commit().await
    }
}
