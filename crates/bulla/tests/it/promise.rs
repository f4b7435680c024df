//! The promise to the key's owner, under whatever happens: traffic of readers, writers, lists and clients that hang up on
//! several nodes, beside denials, outages, lost and late answers, calls that hang, suspends, clocks set in all four ways,
//! and rotations by another node, in orders that proptest finds and makes small.
//!
//! After every single thing that a store gave out (a blob, a piece of a stream, a name, an acknowledgement):
//! - **bound**: on neither clock of the node has R passed since its last successful unwrap was sent;
//! - **denial**: the last thing that the node heard of the key is not a no (in the middle of a rotation, of either key);
//!
//! over the whole of a run, for every node:
//! - **cost**: while calls succeed and no clock is set, unwraps are R/2 apart, and describes as well; after a failure they
//!   are at least 3/4 of R/64 apart, after a denial of min(R/2, 15 s). (A denial is asked about once more where the log has
//!   a newer record: that is another key.) A put, a list and a client that hangs up cost nothing;
//! - **idle**: once nobody uses a store, at most one more renewal is sent, as long as the key can be used;
//!
//! and at the end:
//! - **healing**: R + 16 s after the key was given back and the outage is over, everything is readable and writable on every
//!   node, whatever happened; without a restart.
//!
//! Apart from these, with outages alone:
//! - **invisible**: one that is shorter than R/2 by R/16 fails no request, however the calls fail, as long as they end: a
//!   call that hangs is given up at the lease's end, not before, for it may be a slow one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla::kek::{DenyReason, Now, Providers, Runtime};
use bulla::{Digest, Engine, ErrorKind, OpenOptions, PutOptions, RotateOptions, Store, Trust};
use bulla_testkit::provider::{Attempt, Call, ServiceFaults, SimProvider, key_id};
use bulla_testkit::runtime::{SeededRandom, SimRuntime};
use bulla_testkit::scripted::ScriptedStore;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::time::Instant;

use crate::support::{R, bucket, create_options, data, engine};

const SECOND: Duration = Duration::from_secs(1);
const NODES: usize = 3;
const KEYS: [&str; 2] = ["k", "k2"];

/// How a call fails while there is an outage.
#[derive(Clone, Copy, Debug)]
enum Outage {
    /// It never arrives.
    LostCalls,
    /// It is carried out, and nobody hears of it.
    LostAnswers,
    Throttled,
    Hanging,
    /// One of these each time, or none.
    Mixed,
    /// The same, but each call has an end.
    Flaky,
}

#[derive(Clone, Debug)]
enum Event {
    Deny(DenyReason),
    Allow,
    Begin(Outage),
    End,
    /// Of every call, there and back.
    Latency(Duration),
    Suspend(usize, Duration),
    WallBack(usize, Duration),
    WallForward(usize, Duration),
    BootBack(usize, Duration),
    BootForward(usize, Duration),
    /// Another node puts the store under this key.
    Rotate(usize),
    /// Nobody uses any store, or everybody does again.
    Idle(bool),
}

fn any_event() -> impl Strategy<Value = Event> {
    let reason = prop_oneof![
        Just(DenyReason::Forbidden),
        Just(DenyReason::Disabled),
        Just(DenyReason::Deleted),
        Just(DenyReason::IdentityUnknown),
        Just(DenyReason::Firewall),
    ];
    let outage = prop_oneof![
        Just(Outage::LostCalls),
        Just(Outage::LostAnswers),
        Just(Outage::Throttled),
        Just(Outage::Hanging),
        Just(Outage::Mixed),
    ];
    let node = || 0..NODES;
    let time = || (1..150u64).prop_map(Duration::from_secs);
    prop_oneof![
        3 => reason.prop_map(Event::Deny),
        3 => Just(Event::Allow),
        3 => outage.prop_map(Event::Begin),
        3 => Just(Event::End),
        2 => (0..40_000u64).prop_map(|ms| Event::Latency(Duration::from_millis(ms / 10))),
        1 => (0..40_000u64).prop_map(|ms| Event::Latency(Duration::from_millis(ms))),
        2 => (node(), time()).prop_map(|(node, time)| Event::Suspend(node, time)),
        1 => (node(), time()).prop_map(|(node, time)| Event::WallBack(node, time)),
        1 => (node(), time()).prop_map(|(node, time)| Event::WallForward(node, time)),
        1 => (node(), time()).prop_map(|(node, time)| Event::BootBack(node, time)),
        1 => (node(), time()).prop_map(|(node, time)| Event::BootForward(node, time)),
        2 => (0..KEYS.len()).prop_map(Event::Rotate),
        2 => any::<bool>().prop_map(Event::Idle),
    ]
}

fn any_pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        2 => (0..3_000u64).prop_map(Duration::from_millis),
        3 => (0..45_000u64).prop_map(Duration::from_millis),
        1 => (0..180_000u64).prop_map(Duration::from_millis),
    ]
}

/// One machine with its store open.
#[derive(Clone)]
struct Node {
    name: String,
    runtime: SimRuntime,
    provider: SimProvider,
    store: Store,
    /// How many calls there were when a clock of this machine was set: that ends leases, and the next call comes early.
    set: Arc<Mutex<Vec<usize>>>,
}

/// The whole scene.
struct Scene {
    start: Instant,
    provider: SimProvider,
    raw: Arc<InMemory>,
    random: Arc<SeededRandom>,
    /// A blob inside its envelope, and one of several extents.
    blobs: Arc<[(Digest, Vec<u8>)]>,
    nodes: Vec<Node>,
    /// Rotates; on no one's account.
    rotator: Store,
    used: Arc<AtomicBool>,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let start = Instant::now();
        let maker = SimRuntime::named("rotator", start, seed);
        let provider = SimProvider::new(&maker, KEYS[0]);
        provider.new_version(KEYS[1]);
        let raw = Arc::new(InMemory::new());
        let engine = engine(&maker, &provider);
        let rotator =
            engine.create(bucket(&ScriptedStore::new(raw.clone())), create_options()).await.unwrap();
        let mut blobs = Vec::new();
        for content in [data(1000), data((1 << 20) + 5)] {
            blobs.push((
                rotator.put_bytes(content.clone(), PutOptions::default()).await.unwrap().digest,
                content,
            ));
        }
        let random = Arc::new(SeededRandom::new(seed));
        let used = Arc::new(AtomicBool::new(true));
        let (blobs, nodes) = (blobs.into(), Vec::new());
        let mut scene = Self { start, provider, raw, random, blobs, nodes, rotator, used };
        for number in 0..NODES {
            let node = scene.node(&format!("node {number}"), seed + 1 + number as u64).await;
            scene.nodes.push(node);
        }
        scene
    }

    async fn node(&self, name: &str, seed: u64) -> Node {
        let runtime = SimRuntime::named(name, self.start, seed);
        let provider = self.provider.for_node(&runtime);
        let engine = Engine::builder()
            .providers(Providers::new().with(Arc::new(provider.clone())))
            .runtime(Arc::new(runtime.clone()))
            .memory_per_stream(4 << 20)
            // What a renewal asks is what is counted here.
            .follow_versions_every(Duration::MAX)
            .build();
        let options = OpenOptions { trust: Trust::Anchor(self.rotator.anchor()), floor: None };
        let store = engine.open(bucket(&ScriptedStore::new(self.raw.clone())), options).await.unwrap();
        Node { name: name.into(), runtime, provider, store, set: Arc::default() }
    }

    /// Everybody's traffic, until the future is dropped.
    async fn traffic(&self, readers: usize) {
        let all = self.nodes.iter().flat_map(|node| (0..readers).map(move |reader| (node, reader)));
        futures::future::join_all(all.map(|(node, reader)| self.user(node, reader))).await;
    }

    /// One user of a node, in a loop. Each has a habit.
    async fn user(&self, node: &Node, habit: usize) {
        let mut number = 0u64;
        loop {
            tokio::time::sleep(SECOND / 10 + self.random.duration(9 * SECOND)).await;
            if !self.used.load(Ordering::SeqCst) {
                continue;
            }
            number += 1;
            let outcome = match habit % 6 {
                0 => self.read(node, 0).await,
                1 => self.read(node, 1).await,
                2 => self.write(node, habit, number).await,
                3 => self.list(node).await,
                4 => self.slow_stream(node).await,
                _ => {
                    // A client that hangs up; and is a reader all the same.
                    let patience = self.random.duration(2 * SECOND);
                    tokio::time::timeout(patience, self.read(node, 0)).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = outcome {
                let excused = matches!(
                    error.kind(),
                    ErrorKind::Revoked | ErrorKind::Unavailable | ErrorKind::Throttled
                );
                assert!(excused, "{}: {error:?}", node.name);
            }
        }
    }

    async fn read(&self, node: &Node, which: usize) -> bulla::Result<()> {
        let (digest, content) = &self.blobs[which];
        let bytes = node.store.get(digest).await?.bytes().await?;
        node.gave_out("a blob");
        assert!(bytes == *content);
        Ok(())
    }

    async fn write(&self, node: &Node, habit: usize, number: u64) -> bulla::Result<()> {
        let bytes = format!("{} {habit} {number}", node.name);
        node.store.put_bytes(bytes, PutOptions::default()).await?;
        node.gave_out("an acknowledgement");
        Ok(())
    }

    async fn list(&self, node: &Node) -> bulla::Result<()> {
        let mut names = node.store.list().take(5);
        while names.try_next().await?.is_some() {
            node.gave_out("a name");
        }
        node.store.stat(&self.blobs[1].0).await?;
        node.gave_out("what a blob is");
        Ok(())
    }

    /// A stream whose consumer takes its time: minutes, at times.
    async fn slow_stream(&self, node: &Node) -> bulla::Result<()> {
        let (digest, content) = &self.blobs[1];
        let mut stream = node.store.get(digest).await?.into_stream();
        let mut read = Vec::new();
        while let Some(piece) = stream.try_next().await? {
            node.gave_out("a piece of a stream");
            read.extend_from_slice(&piece);
            assert!(content.starts_with(&read));
            tokio::time::sleep(self.random.duration(*self.random.pick(&[SECOND, R / 2, 2 * R]))).await;
        }
        assert!(read == *content);
        Ok(())
    }

    fn happen(&self, event: &Event) {
        let begin = |faults: ServiceFaults| self.provider.set_faults(faults, &self.random);
        match event {
            Event::Deny(reason) => KEYS.iter().for_each(|key| self.provider.deny(key, *reason)),
            Event::Allow => KEYS.iter().for_each(|key| self.provider.allow(key)),
            Event::Begin(outage) => begin(faults(*outage)),
            Event::End => begin(ServiceFaults::default()),
            Event::Latency(latency) => self.provider.set_latency(*latency),
            Event::Suspend(node, time) => self.nodes[*node].runtime.suspend(*time),
            Event::WallBack(node, by) => self.nodes[*node].set_clock(|runtime| runtime.set_wall_back(*by)),
            Event::WallForward(node, by) => {
                self.nodes[*node].set_clock(|runtime| runtime.set_wall_forward(*by))
            }
            Event::BootBack(node, by) => self.nodes[*node].set_clock(|runtime| runtime.set_boot_back(*by)),
            Event::BootForward(node, by) => {
                self.nodes[*node].set_clock(|runtime| runtime.set_boot_forward(*by))
            }
            Event::Rotate(key) => {
                let (store, key) = (self.rotator.clone(), Some(key_id(KEYS[*key])));
                tokio::spawn(async move {
                    // Whatever comes of it.
                    drop(store.rotate(RotateOptions { key, ..RotateOptions::default() }).await);
                });
            }
            Event::Idle(idle) => self.used.store(!idle, Ordering::SeqCst),
        }
    }

    /// Everything is given back, and nothing fails any more.
    async fn heals(&self) {
        KEYS.iter().for_each(|key| self.provider.allow(key));
        self.provider.set_faults(ServiceFaults::default(), &self.random);
        self.provider.set_latency(Duration::ZERO);
        tokio::time::sleep(R + 16 * SECOND).await;
        for node in &self.nodes {
            for which in 0..self.blobs.len() {
                self.read(node, which).await.unwrap();
            }
            self.write(node, 0, 0).await.unwrap();
        }
    }

    /// A store that nobody uses: what was begun ends, and then nothing more is asked.
    async fn goes_idle(&self) {
        // A use late in a lease renews it at once.
        tokio::time::sleep(SECOND).await;
        let before = self.provider.attempts().len();
        tokio::time::sleep(100 * R).await;
        let after = self.provider.attempts();
        for node in &self.nodes {
            let more: Vec<_> = after[before..].iter().filter(|attempt| attempt.node == node.name).collect();
            assert!(more.len() <= 2, "{}: more than one renewal for nobody: {more:?}", node.name);
        }
    }
}

fn faults(outage: Outage) -> ServiceFaults {
    match outage {
        Outage::LostCalls => ServiceFaults { lost_call: 1000, ..ServiceFaults::default() },
        Outage::LostAnswers => ServiceFaults { lost_answer: 1000, ..ServiceFaults::default() },
        Outage::Throttled => ServiceFaults { throttled: 1000, ..ServiceFaults::default() },
        Outage::Hanging => ServiceFaults { hangs: 1000, ..ServiceFaults::default() },
        Outage::Mixed => ServiceFaults {
            latency: 2 * SECOND,
            lost_call: 200,
            lost_answer: 200,
            throttled: 200,
            hangs: 100,
        },
        Outage::Flaky => ServiceFaults { hangs: 0, ..faults(Outage::Mixed) },
    }
}

impl Node {
    /// **bound** and **denial**: checked at the moment at which something is given out.
    fn gave_out(&self, what: &str) {
        let now = self.runtime.now();
        let (sent, denied) = self.provider.last_word(&self.name);
        let sent = sent.expect("nothing is given out before an unwrap");
        let age = |now: &Now| {
            let boot = now.boot.checked_sub(sent.boot)?;
            Some((boot, now.wall.duration_since(sent.wall).ok()?))
        };
        let Some((boot, wall)) = age(&now) else {
            panic!("{}: {what} by a lease of before a clock was set back", self.name);
        };
        assert!(
            boot < R && wall < R,
            "{}: {what}, {boot:?} and {wall:?} after the unwrap was sent",
            self.name
        );
        assert!(!denied, "{}: {what} after a denial", self.name);
    }

    /// **cost**
    fn asked_no_more_than_promised(&self, rotated: bool) {
        let attempts = self.provider.attempts();
        let exchanges = self.provider.exchanges();
        let mine = |call: Call| {
            let all = attempts.iter().enumerate();
            all.filter(move |(_, attempt)| attempt.call == call && attempt.node == self.name)
        };
        assert_eq!(mine(Call::Wrap).count(), 0);
        let sent = |call| mine(call).map(|(_, attempt)| attempt.sent).collect::<Vec<_>>();
        let unwraps = sent(Call::Unwrap);
        let beside = sent(Call::Describe).into_iter().all(|describe| unwraps.contains(&describe));
        assert!(beside, "{}: a describe that is not beside an unwrap", self.name);
        let unwraps: Vec<(usize, &Attempt)> = mine(Call::Unwrap).collect();
        let mut all_ok_before = true;
        for pair in unwraps.windows(2) {
            let [(before, first), (after, second)] = pair else { unreachable!() };
            let answers = exchanges.iter().filter(|it| it.node == self.name && it.sent == first.sent);
            let all_ok = answers.clone().filter(|it| it.ok).count() == 2;
            let denied = answers.clone().any(|it| it.denied);
            // Where the log names two keys, a renewal may begin with the other one, and count from there.
            let least = match (all_ok, denied) {
                _ if rotated && !(all_ok && all_ok_before) => Duration::ZERO,
                (true, _) => R / 2,
                (_, true) => 15 * SECOND * 3 / 4,
                _ => R / 64 * 3 / 4,
            };
            all_ok_before = all_ok;
            if self.set.lock().unwrap().iter().any(|set| (*before + 1..=*after).contains(set)) {
                continue;
            }
            let gap = second.sent.boot - first.sent.boot;
            assert!(
                gap >= least,
                "{}: asked again after {gap:?}, not {least:?}: {first:?} {second:?}",
                self.name
            );
        }
    }

    fn set_clock(&self, set: impl FnOnce(&SimRuntime)) {
        set(&self.runtime);
        self.set.lock().unwrap().push(self.provider.attempts().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn nothing_is_given_out_later_than_promised_and_everything_heals(
        seed in any::<u32>(),
        events in prop::collection::vec((any_pause(), any_event()), 1..25),
    ) {
        run(the_promise_holds(seed.into(), &events, 6));
    }

    #[test]
    fn an_outage_that_is_shorter_than_half_the_bound_is_invisible(
        seed in any::<u32>(),
        outages in prop::collection::vec((45..200u64, 1..26_250u64, 0..4usize), 1..6),
    ) {
        run(async {
            let scene = Scene::new(seed.into()).await;
            let happening = async {
                for (pause, length, kind) in &outages {
                    tokio::time::sleep(Duration::from_secs(*pause)).await;
                    let kinds = [Outage::LostCalls, Outage::LostAnswers, Outage::Throttled, Outage::Flaky];
                    scene.happen(&Event::Begin(kinds[*kind]));
                    tokio::time::sleep(Duration::from_millis(*length)).await;
                    scene.happen(&Event::End);
                }
            };
            let reading = async {
                loop {
                    tokio::time::sleep(SECOND / 2).await;
                    for node in &scene.nodes {
                        scene.read(node, 0).await.unwrap();
                        scene.write(node, 7, 7).await.unwrap();
                    }
                }
            };
            during(happening, reading).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 50, ..ProptestConfig::with_cases(2) })]

    /// Everything there is, with 64 readers and writers on each node.
    #[test]
    fn a_crowd_changes_nothing(
        seed in any::<u32>(), events in prop::collection::vec((any_pause(), any_event()), 4..8),
    ) {
        run(the_promise_holds(seed.into(), &events, 64));
    }
}

async fn the_promise_holds(seed: u64, events: &[(Duration, Event)], users: usize) {
    let scene = Scene::new(seed).await;
    let happening = async {
        for (pause, event) in events {
            tokio::time::sleep(*pause).await;
            scene.happen(event);
        }
        tokio::time::sleep(2 * R).await;
    };
    during(happening, scene.traffic(users)).await;
    scene.heals().await;
    scene.goes_idle().await;
    let rotated = events.iter().any(|(_, event)| matches!(event, Event::Rotate(_)));
    scene.nodes.iter().for_each(|node| node.asked_no_more_than_promised(rotated));
}

/// Virtual time, one thread: the same seed is the same run.
fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

async fn during(happening: impl Future<Output = ()>, traffic: impl Future) {
    futures::future::select(std::pin::pin!(happening), std::pin::pin!(traffic)).await;
}
