//! The audit log under everything at once: nodes that are killed between any two requests, lost, late and repeated
//! writes, a key that is taken away and given back.
//!
//! What must hold, whatever happens:
//! - the log is whole: contiguous, each batch after the one before it, and it begins with what it was before;
//! - what a node was told is in the log is there, once;
//! - what a node never heard an answer about is there once or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla::audit_format::Entry;
use bulla::kek::{DenyReason, Providers, Runtime};
use bulla::{Action, Bucket, Engine, ErrorKind, OpenOptions, RotateOptions, Store, Trust};
use bulla_testkit::faults::Faults;
use bulla_testkit::provider::{SimProvider, key_id};
use bulla_testkit::simulation::{SimNode, Simulation, for_each_seed};

use crate::support::{GRACE, create_options};

/// How many lives of nodes there are, each with a name of its own.
const LIVES: usize = 6;

/// What one life did.
#[derive(Default)]
struct Told {
    /// Rotations that were events.
    rotations: u64,
    /// How many of them were acknowledged as written.
    acknowledged: u64,
}

/// By the name of the life.
type Lives = Arc<Mutex<BTreeMap<String, Told>>>;

#[test]
fn what_is_acknowledged_is_in_the_audit_log_once() {
    for_each_seed(400, scenario);
}

async fn scenario(sim: &Simulation) {
    let random = Arc::clone(sim.random());
    let provider = sim.provider("k");
    let maker = sim.node("maker");
    let store = engine(&maker, &provider).create(bucket(&maker), create_options()).await.unwrap();
    store.begin_audit().await.unwrap();
    let anchor = store.anchor();
    let told = Lives::default();

    let lives = (0..LIVES).map(|life| {
        let (random, told, provider) = (Arc::clone(&random), Arc::clone(&told), &provider);
        async move {
            sim.sleep(random.duration(Duration::from_secs(60))).await;
            let node = sim.node(&format!("life{life}"));
            node.set_faults(Faults::mixed(&random));
            if random.chance(600) {
                node.crash_after(1 + random.below(60));
            }
            let mine = provider.for_node(node.runtime());
            let work = {
                let node = node.clone();
                async move { work(&node, &mine, anchor, &told).await }
            };
            node.run(work).await;
        }
    });
    let owner = async {
        sim.sleep(random.duration(Duration::from_secs(60))).await;
        provider.deny("k", DenyReason::Forbidden);
        sim.sleep(random.duration(Duration::from_secs(60))).await;
        provider.allow("k");
    };
    let watcher = async {
        // A checkpoint in the middle of it all: what was there stays the beginning.
        sim.sleep(random.duration(Duration::from_secs(90))).await;
        store.audit_log().await.ok().map(|log| log.leaves)
    };
    let (_, (), earlier) = futures::join!(futures::future::join_all(lives), owner, watcher);

    // Late writes arrive, and everything heals.
    sim.sleep(Duration::from_secs(300)).await;
    let log = store.audit_log().await.unwrap();
    if let Some(earlier) = earlier {
        assert!(log.leaves.starts_with(&earlier));
    }
    let entries = log.entries().unwrap();
    for (name, told) in told.lock().unwrap().iter() {
        let of = |action: Action| -> u64 {
            let alike = |entry: &&Entry| entry.node == *name && entry.action == action;
            entries.iter().filter(alike).map(|entry| entry.count).sum()
        };
        let (written, Told { rotations, acknowledged }) = (of(Action::RotateEnd), told);
        assert!(
            written >= *acknowledged,
            "{name}: {acknowledged} rotations acknowledged, {written} in the log"
        );
        assert!(written <= *rotations, "{name}: {rotations} rotations, {written} in the log");
        assert!(*acknowledged == 0 || of(Action::Open) >= 1, "the opening of {name} is not in the log");
    }
}

/// Opens the store, rotates three times, and writes down what is said to be in the log.
async fn work(node: &SimNode, provider: &SimProvider, anchor: bulla::Anchor, told: &Lives) {
    let Some(store) = open(node, provider, anchor).await else { return };
    for _ in 0..3 {
        node.runtime().sleep(Duration::from_secs(5)).await;
        provider.new_version("k");
        let options = RotateOptions { key: Some(key_id("k")), ..RotateOptions::default() };
        let is_event = match store.rotate(options).await {
            // Another node was first.
            Ok(rotation) => rotation.changed,
            Err(error) => {
                acceptable(&error);
                true
            }
        };
        let name = node.runtime().name().to_owned();
        if is_event {
            told.lock().unwrap().entry(name.clone()).or_default().rotations += 1;
        }
        match store.flush_audit().await {
            Ok(()) if is_event => told.lock().unwrap().entry(name).or_default().acknowledged += 1,
            Ok(()) => {}
            Err(error) => acceptable(&error),
        }
    }
    store.close().await;
}

async fn open(node: &SimNode, provider: &SimProvider, anchor: bulla::Anchor) -> Option<Store> {
    for _ in 0..20 {
        let options = OpenOptions { trust: Trust::Anchor(anchor), floor: None };
        match engine(node, provider).open(bucket(node), options).await {
            Ok(store) => return Some(store),
            Err(error) => acceptable(&error),
        }
        node.runtime().sleep(Duration::from_secs(10)).await;
    }
    None
}

fn acceptable(error: &bulla::Error) {
    use ErrorKind::{Conflict, Revoked, Throttled, Unavailable};
    assert!(matches!(error.kind(), Revoked | Unavailable | Throttled | Conflict), "{error:?}");
}

fn engine(node: &SimNode, provider: &SimProvider) -> Engine {
    let provider = provider.for_node(node.runtime());
    Engine::builder()
        .providers(Providers::new().with(Arc::new(provider)))
        .runtime(node.shared_runtime())
        .node(node.runtime().name())
        .gc_grace(GRACE)
        // Rotations are counted: none by itself.
        .follow_versions_every(Duration::MAX)
        .build()
}

fn bucket(node: &SimNode) -> Bucket {
    Bucket::from_object_store(node.shared_store(), "registry").unwrap()
}
