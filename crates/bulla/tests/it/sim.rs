//! Several nodes, one unreliable bucket, one unreliable key service, one seed: puts, gets, deletes, rotations, rewraps, gcs,
//! denials, suspended and killed nodes, in every order that thousands of seeds find, in both modes.
//!
//! What must hold, whatever happens:
//! - a read gives the blob's bytes or an error, never anything else;
//! - a blob whose put was acknowledged is readable until somebody begins to delete it;
//! - a blob whose delete was acknowledged stays away until somebody puts it again;
//! - nothing is read later than R after the node's last successful unwrap was sent;
//! - when the faults end, everything acknowledged is there, the store can be rotated, rewrapped and opened anew, and then
//!   nothing hangs on any key that it had before.

mod uploads;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bulla::kek::{DenyReason, Identity, Providers, Runtime};
use bulla::{
    Bucket, CreateOptions, Digest, Engine, ErrorKind, GcOptions, Mode, OpenOptions, Party, PartyKey,
    PutOptions, RotateOptions, Store, StoreKeyState, SweepOptions, Trust,
};
use bulla_testkit::faults::Faults;
use bulla_testkit::provider::{Call, ServiceFaults, SimProvider, key_id};
use bulla_testkit::runtime::{SeededRandom, SimRuntime};
use bulla_testkit::simulation::{SimNode, Simulation, for_each_seed};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::support::{GRACE, R, create_options, data};

/// Two blobs inside their envelopes, one in one extent, one in two.
const SIZES: [usize; 4] = [0, 1_000, 80_000, (1 << 20) + 20_000];

const NODES: [&str; 3] = ["a", "b", "c"];
const STEPS: usize = 12;

/// What is known for certain about each blob.
#[derive(Default)]
struct Known {
    /// Its put was acknowledged, and no delete has begun since the put began.
    durable: bool,
    /// How many deletes have begun.
    deletes_begun: u64,
    /// Deletes that are under way, or were given up and may still be applied.
    deletes_open: u64,
    /// Its delete was acknowledged, and no put has begun since the delete began, nor was one open then.
    absent: bool,
    /// How many puts have begun.
    puts_begun: u64,
    /// Puts that are under way, or were given up and may still be applied.
    puts_open: u64,
}

type Model = Arc<Mutex<Vec<Known>>>;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_revoked_is_read() {
    for_each_seed(2000, async |sim| scenario(sim, Mode::Hierarchical, 0, FIRST).await);
}

/// Nodes begin, share, abandon and go on with rewraps all the time.
#[test]
fn rewraps_lose_nothing() {
    for_each_seed(150, async |sim| scenario(sim, Mode::Hierarchical, 3, FIRST).await);
}

/// Every rotation is followed by a sweep, which nodes share, abandon and go on with.
#[test]
fn direct_mode_loses_nothing() {
    for_each_seed(200, async |sim| scenario(sim, Mode::Direct, 1, FIRST).await);
}

/// Two parties' keys, each denied, out of reach, given back and rotated at any time, whatever the other does: nothing is
/// read longer than R after either was.
#[test]
fn two_parties_are_needed() {
    for_each_seed(200, async |sim| scenario(sim, Mode::Hierarchical, 1, BOTH).await);
}

/// The parties, and the names of each one's keys; the last is for the end.
type Parties = &'static [(Party, &'static [&'static str])];
const FIRST: Parties = &[(Party::First, &["k", "k2", "k3", "last"])];
const BOTH: Parties = &[(Party::First, &["k", "k2", "k3", "last"]), (Party::Second, &["c", "c2", "c-last"])];

fn names(parties: Parties) -> Vec<&'static str> {
    parties.iter().flat_map(|(_, keys)| &keys[..keys.len() - 1]).copied().collect()
}

/// `rewraps`: how often nodes choose to rewrap, beside 12 other choices.
async fn scenario(sim: &Simulation, mode: Mode, rewraps: u64, parties: Parties) {
    let provider = sim.provider("k");
    for name in parties.iter().flat_map(|(_, keys)| *keys).filter(|name| **name != "k") {
        provider.new_version(name);
    }
    let second =
        parties.get(1).map(|(_, keys)| PartyKey { key: key_id(keys[0]), identity: Identity::System });
    let maker = sim.node("maker");
    let store = engine(&maker, &provider)
        .create(bucket(&maker), CreateOptions { mode, second, ..create_options() })
        .await
        .unwrap();
    let anchor = store.anchor();
    store.close().await;
    let model: Model = Arc::new(Mutex::new(SIZES.iter().map(|_| Known::default()).collect()));

    provider.set_faults(service_faults(sim.random()), sim.random());
    let owners = parties.iter().map(|(_, keys)| customer(sim, &provider, keys, parties.len() == 1));
    let nodes = NODES.iter().map(|name| machine(sim, name, &provider, anchor, &model, rewraps, parties));
    futures::join!(futures::future::join_all(owners), futures::future::join_all(nodes));

    // Everything heals.
    provider.set_faults(ServiceFaults::default(), sim.random());
    provider.set_down(false);
    for name in names(parties) {
        provider.allow(name);
    }
    sim.sleep(Duration::from_secs(120)).await;
    check_the_end(sim, &provider, anchor, &model, parties).await;
}

fn service_faults(random: &SeededRandom) -> ServiceFaults {
    let rate = || *random.pick(&[0, 0, 20, 200]);
    let latency = Duration::from_millis(*random.pick(&[0, 50, 3_000]));
    ServiceFaults { latency, lost_call: rate(), lost_answer: rate(), throttled: rate(), hangs: 0 }
}

/// A key's owner takes it away and gives it back; the service is down at times, for one of two parties without the other.
async fn customer(sim: &Simulation, provider: &SimProvider, keys: &[&str], is_alone: bool) {
    let set_down = |down| {
        if is_alone {
            return provider.set_down(down);
        }
        keys.iter().for_each(|name| provider.set_out_of_reach(name, down));
    };
    let random = sim.random();
    for _ in 0..4 {
        sim.sleep(random.duration(Duration::from_secs(90))).await;
        match random.below(4) {
            0 => {
                let reason =
                    *random.pick(&[DenyReason::Forbidden, DenyReason::Disabled, DenyReason::Deleted]);
                let name = *random.pick(&keys[..keys.len() - 1]);
                provider.deny(name, reason);
                sim.sleep(random.duration(Duration::from_secs(120))).await;
                provider.allow(name);
            }
            1 => {
                set_down(true);
                sim.sleep(random.duration(Duration::from_secs(90))).await;
                set_down(false);
            }
            2 => {
                provider.new_version(keys[1]);
            }
            _ => {}
        }
    }
}

/// A machine that works, is suspended, is killed and starts again.
async fn machine(
    sim: &Simulation,
    name: &str,
    provider: &SimProvider,
    anchor: bulla::Anchor,
    model: &Model,
    rewraps: u64,
    parties: Parties,
) {
    let random = Arc::clone(sim.random());
    for life in 0..3 {
        // Each life has a boot clock of its own.
        let node = sim.node(&format!("{name}{life}"));
        node.set_faults(Faults::mixed(&random));
        if random.chance(400) {
            // Work over all envelopes takes more requests.
            let within = if rewraps == 0 { 60 } else { *random.pick(&[60, 400, 1_500]) };
            node.crash_after(1 + random.below(within));
        }
        let mine = provider.for_node(node.runtime());
        let work = {
            let (node, model, random) = (node.clone(), Arc::clone(model), Arc::clone(&random));
            async move { work(&node, &mine, anchor, &model, &random, rewraps, parties).await }
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
    model: &Model,
    random: &SeededRandom,
    rewraps: u64,
    parties: Parties,
) {
    let engine = engine(node, provider);
    let mut opened = None;
    for _ in 0..20 {
        match engine.open(bucket(node), pinned(anchor)).await {
            Ok(store) => {
                opened = Some(store);
                break;
            }
            Err(error) => acceptable(&error),
        }
        node.runtime().sleep(Duration::from_secs(10)).await;
    }
    let Some(store) = opened else { return };
    for _ in 0..STEPS {
        node.runtime().sleep(random.duration(Duration::from_secs(10))).await;
        let which = usize::try_from(random.below(SIZES.len() as u64)).unwrap();
        match random.below(14 + rewraps) {
            14.. => rewrap(&store).await,
            0..=2 => put(&store, model, which, None).await,
            3 => put(&store, model, which, Some((node.runtime(), random))).await,
            4..=8 => get(&store, node, provider, model, which, parties).await,
            9 => delete(&store, model, which).await,
            10 => rotate(&store, random, parties).await,
            11 | 12 => gc(&store, random).await,
            _ => {
                let pause = random.duration(2 * R);
                node.runtime().suspend(pause);
            }
        }
    }
    store.close().await;
}

/// With a clock and randomness the bytes come slowly.
async fn put(store: &Store, model: &Model, which: usize, slowly: Option<(&SimRuntime, &SeededRandom)>) {
    let before = {
        let known = &mut model.lock().unwrap()[which];
        known.absent = false;
        known.puts_begun += 1;
        known.puts_open += 1;
        (known.deletes_begun, known.deletes_open)
    };
    let put = async {
        let Some((clock, random)) = slowly else {
            return store.put_bytes(content(which), PutOptions::default()).await;
        };
        let mut upload = store.upload(PutOptions::default()).await?;
        for piece in content(which).chunks((1 << 20) + 1) {
            upload.write(Bytes::copy_from_slice(piece)).await?;
            clock.sleep(random.duration(4 * R)).await;
        }
        upload.commit().await
    };
    match put.await {
        Ok(result) => {
            assert_eq!(result.digest, digest(which));
            let known = &mut model.lock().unwrap()[which];
            known.puts_open -= 1;
            if known.deletes_begun == before.0 && (before.1 == 0) {
                known.durable = true;
            }
        }
        Err(error) => acceptable(&error),
    }
}

async fn get(
    store: &Store,
    node: &SimNode,
    provider: &SimProvider,
    model: &Model,
    which: usize,
    parties: Parties,
) {
    let durable_before = model.lock().unwrap()[which].durable;
    let deletes_before = model.lock().unwrap()[which].deletes_begun;
    let read = async { store.get(&digest(which)).await?.bytes().await };
    match read.await {
        Ok(bytes) => {
            let now = node.runtime().now();
            assert!(bytes == content(which), "other bytes than were put");
            let name = node.runtime().name();
            for (party, keys) in parties {
                let last = provider
                    .exchanges()
                    .into_iter()
                    .filter(|exchange| exchange.call == Call::Unwrap && exchange.ok && exchange.node == name)
                    .filter(|exchange| keys.contains(&&*exchange.key))
                    .map(|exchange| exchange.sent.boot)
                    .max()
                    .expect("nothing is read before an unwrap");
                let ago = now.boot - last;
                assert!(ago < R, "read {ago:?} after the last unwrap by the {party} party's key was sent");
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let known = &model.lock().unwrap()[which];
            let deleted = known.deletes_begun != deletes_before;
            assert!(!durable_before || deleted, "an acknowledged blob is not found");
        }
        Err(error) => acceptable(&error),
    }
}

async fn delete(store: &Store, model: &Model, which: usize) {
    let before = {
        let known = &mut model.lock().unwrap()[which];
        known.durable = false;
        known.deletes_begun += 1;
        known.deletes_open += 1;
        (known.puts_begun, known.puts_open)
    };
    match store.delete(&digest(which)).await {
        // A delete without a definite answer, or of a killed node, may be applied at any later time.
        Ok(()) => {
            let known = &mut model.lock().unwrap()[which];
            known.deletes_open -= 1;
            known.absent = before == (known.puts_begun, 0);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => acceptable(&error),
    }
}

async fn rotate(store: &Store, random: &SeededRandom, parties: Parties) {
    let (party, keys) = *random.pick(parties);
    let name: &&str = random.pick(&keys[..keys.len() - 1]);
    let key = Some(key_id(name));
    if let Err(error) = store.rotate(RotateOptions { party, key, ..RotateOptions::default() }).await {
        acceptable(&error);
    }
}

async fn gc(store: &Store, random: &SeededRandom) {
    let grace = *random.pick(&[Duration::ZERO, R / 2, 3 * R, GRACE]);
    if let Err(error) = store.gc(GcOptions { grace: Some(grace), ..GcOptions::default() }, |_| {}).await {
        acceptable(&error);
    }
}

async fn rewrap(store: &Store) {
    match store.rewrap(SweepOptions::default(), |_| {}).await {
        Ok(done) => assert!(done.from.iter().all(|kid| done.count.is_safe_to_retire(kid)), "{done:?}"),
        // Nothing is left to do in direct mode.
        Err(error) if error.kind() == ErrorKind::Invalid && error.to_string().contains("direct mode") => {}
        Err(error) => acceptable(&error),
    }
}

/// Faults excuse these; that something is damaged, never.
fn acceptable(error: &bulla::Error) {
    use ErrorKind::{Conflict, Revoked, Throttled, Unavailable};
    assert!(matches!(error.kind(), Revoked | Unavailable | Throttled | Conflict), "{error:?}");
}

async fn check_the_end(
    sim: &Simulation,
    provider: &SimProvider,
    anchor: bulla::Anchor,
    model: &Model,
    parties: Parties,
) {
    let node = sim.node("last");
    let store = engine(&node, provider).open(bucket(&node), pinned(anchor)).await.unwrap();
    for (party, keys) in parties {
        let last = keys[keys.len() - 1];
        let to = RotateOptions { party: *party, key: Some(key_id(last)), ..RotateOptions::default() };
        assert_eq!(store.rotate(to).await.unwrap().to.name(), last);
    }
    for name in names(parties) {
        provider.deny(name, DenyReason::Deleted);
    }
    if store.status().await.unwrap().mode == Mode::Hierarchical {
        // One that was under way ends; then another, for what writers that died left under the last key but one.
        store.rewrap(SweepOptions::default(), |_| {}).await.unwrap();
        let done = store.rewrap(SweepOptions::default(), |_| {}).await.unwrap();
        let under: Vec<_> = done.count.under.into_iter().filter(|(_, envelopes)| *envelopes > 0).collect();
        assert!(under.iter().all(|(kid, _)| *kid == done.to), "{under:?}");
        let keys = store.status().await.unwrap().store_keys;
        let retired = keys.iter().filter(|(_, state)| *state == StoreKeyState::Retired).count();
        assert_eq!(retired, keys.len() - 1);
    }
    let fresh = sim.node("fresh");
    let store = engine(&fresh, provider).open(bucket(&fresh), pinned(anchor)).await.unwrap();
    assert_eq!(store.status().await.unwrap().keks.len(), parties.len());
    // Twice: the data of what the first removed, or found named, goes with the second.
    for _ in 0..2 {
        store.gc(GcOptions { grace: Some(Duration::ZERO), ..GcOptions::default() }, |_| {}).await.unwrap();
    }
    let listed: Vec<Digest> = store.list().map_ok(|entry| entry.digest).try_collect().await.unwrap();
    for (which, size) in SIZES.iter().enumerate() {
        let (durable, absent) = {
            let known = &model.lock().unwrap()[which];
            (known.durable, known.absent)
        };
        match store.get(&digest(which)).await {
            Ok(blob) => {
                let pieces: Vec<_> = blob.into_verified_stream().try_collect().await.unwrap();
                assert!(pieces.concat() == content(which));
                assert!(listed.contains(&digest(which)));
                assert!(!absent, "a deleted blob of {size} bytes came back");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                assert!(!durable, "an acknowledged blob of {size} bytes is gone");
            }
        }
    }
}

fn engine(node: &SimNode, provider: &SimProvider) -> Engine {
    let provider = provider.for_node(node.runtime());
    Engine::builder()
        .providers(Providers::new().with(Arc::new(provider)))
        .runtime(node.shared_runtime())
        .gc_grace(GRACE)
        // New versions are followed in the middle of everything else.
        .follow_versions_every(R)
        // Extents of 1 MiB.
        .memory_per_stream(4 << 20)
        .build()
}

fn bucket(node: &SimNode) -> Bucket {
    Bucket::from_object_store(node.shared_store(), "registry").unwrap()
}

fn pinned(anchor: bulla::Anchor) -> OpenOptions {
    OpenOptions { trust: Trust::Anchor(anchor), floor: None }
}

/// The blobs and their names; made once, for all seeds.
static BLOBS: LazyLock<Vec<(Digest, Bytes)>> = LazyLock::new(|| {
    let named = |size: &usize| (Digest::of(bulla::Algorithm::Sha256, &data(*size)), data(*size).into());
    SIZES.iter().map(named).collect()
});

fn digest(which: usize) -> Digest {
    BLOBS[which].0.clone()
}

fn content(which: usize) -> Bytes {
    BLOBS[which].1.clone()
}
