//! Direct mode: the KEK itself wraps every DEK. The lease, the protocols and what can't be lost are the same.

use std::num::NonZeroU32;
use std::time::Duration;

use bulla::kek::DenyReason;
use bulla::{Digest, ErrorKind, Mode, RotateOptions, Rotation, Store, SweepEvent, SweepOptions};
use bulla_envelope::envelope::{Envelope, Wrap};
use bulla_testkit::provider::key_id;
use bulla_testkit::scripted::{Op, broken_connection};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::support::*;

async fn direct() -> World {
    World::with(|options| options.mode = Mode::Direct).await
}

async fn wraps(world: &World, key: &str) -> Vec<Wrap> {
    Envelope::decode(&world.read(key).await).unwrap().wraps
}

async fn rotate(store: &Store, name: &str) -> bulla::Result<Rotation> {
    store.rotate(RotateOptions { key: Some(key_id(name)), ..RotateOptions::default() }).await
}

async fn get_kind(store: &Store, digest: &Digest) -> ErrorKind {
    get(store, digest).await.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn the_kek_wraps_every_dek_and_opens_every_blob() {
    let world = direct().await;
    let before = world.provider.calls();
    let (small, big) = (world.put(&data(10)).await, world.put(&large()).await);
    assert_eq!(world.provider.calls().wrap - before.wrap, 2);
    for key in world.keys("blobs").await {
        let wraps = wraps(&world, &key).await;
        assert_eq!(wraps.len(), 1);
        assert_eq!(wraps[0].kid, key_id("k").with_version(&format!("{:032x}", 1)).unwrap().to_string());
    }
    let (fresh, ..) = world.node(2).await;
    let before = world.provider.calls();
    assert_eq!(get(&fresh, &small.digest).await.unwrap(), data(10));
    assert_eq!(get(&fresh, &big.digest).await.unwrap(), large());
    assert_eq!(world.provider.calls().unwrap - before.unwrap, 2);
    // Open envelopes are kept, so that a popular blob is not an unwrap per pull.
    get(&fresh, &big.digest).await.unwrap();
    assert_eq!(world.provider.calls().unwrap - before.unwrap, 2);
    assert_eq!(fresh.status().await.unwrap().mode, Mode::Direct);
}

#[tokio::test(start_paused = true)]
async fn readers_of_one_blob_share_one_unwrap() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    let (fresh, ..) = world.node(2).await;
    world.provider.set_latency(Duration::from_secs(1));
    let before = world.provider.calls();
    let reads = (0..20).map(|_| get(&fresh, &put.digest));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), data(10));
    }
    assert_eq!(world.provider.calls().unwrap - before.unwrap, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_envelope_is_kept_no_longer_than_the_lease() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    get(&world.store, &put.digest).await.unwrap();
    let before = world.provider.exchanges().len();
    pass(R).await;
    get(&world.store, &put.digest).await.unwrap();
    let exchanges = world.provider.exchanges();
    let unwraps = exchanges[before..]
        .iter()
        .filter(|exchange| exchange.call == bulla_testkit::provider::Call::Unwrap)
        .count();
    assert!(unwraps >= 2, "the lease was renewed, and the DEK unwrapped anew");
}

// FORMAT-P7
#[tokio::test(start_paused = true)]
async fn a_wrap_of_a_kek_that_the_log_does_not_name_is_refused_without_asking() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    world.provider.new_version("other");
    let key = world.only("blobs").await;
    let mut envelope = Envelope::decode(&world.read(&key).await).unwrap();
    for (kid, alg) in [
        (key_id("other").with_version(&format!("{:032x}", 1)).unwrap().to_string(), "A256KW"),
        (envelope.wraps[0].kid.clone(), "RSA-OAEP-256"),
    ] {
        envelope.wraps[0].kid = kid;
        envelope.wraps[0].alg = alg.to_owned();
        world.write(&key, envelope.encode()).await;
        let (fresh, ..) = world.node(2).await;
        let before = world.provider.calls();
        assert_eq!(get_kind(&fresh, &put.digest).await, ErrorKind::Corrupt);
        assert_eq!(world.provider.calls(), before);
    }
}

/// In direct mode a store key wraps nothing, and in hierarchical mode no KEK does: neither is used for the other.
#[tokio::test(start_paused = true)]
async fn a_kek_wraps_no_dek_in_hierarchical_mode() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let key = world.only("blobs").await;
    let mut envelope = Envelope::decode(&world.read(&key).await).unwrap();
    envelope.wraps[0].kid = key_id("k").with_version(&format!("{:032x}", 1)).unwrap().to_string();
    world.write(&key, envelope.encode()).await;
    let before = world.provider.calls();
    assert_eq!(get_kind(&world.store, &put.digest).await, ErrorKind::Corrupt);
    assert_eq!(world.provider.calls(), before);
}

// FORMAT-P9
#[tokio::test(start_paused = true)]
async fn a_bad_wrap_is_damage_of_one_blob_and_no_verdict_on_the_kek() {
    let world = direct().await;
    let (bad, good) = (world.put(&data(10)).await, world.put(&data(11)).await);
    let key = world.keys("blobs").await.remove(0);
    let mut envelope = Envelope::decode(&world.read(&key).await).unwrap();
    envelope.wraps[0].value[7] ^= 1;
    world.write(&key, envelope.encode()).await;
    let (fresh, ..) = world.node(2).await;
    let kinds = [get(&fresh, &bad.digest).await, get(&fresh, &good.digest).await];
    let corrupt =
        kinds.iter().filter(|read| matches!(read, Err(error) if error.kind() == ErrorKind::Corrupt));
    assert_eq!(corrupt.count(), 1);
    assert!(matches!(fresh.key_state(), bulla::KeyState::Live { .. }), "{:?}", fresh.key_state());
}

#[tokio::test(start_paused = true)]
async fn a_denied_unwrap_ends_the_lease_at_once_and_a_crowd_asks_once() {
    let world = direct().await;
    let mut digests = Vec::new();
    for i in 0..50_u32 {
        digests.push(world.put(&i.to_be_bytes()).await.digest);
    }
    let (fresh, ..) = world.node(2).await;
    get(&fresh, &digests[0]).await.unwrap();
    world.provider.set_latency(Duration::from_millis(100));
    world.provider.deny("k", DenyReason::Disabled);
    let before = world.provider.calls();
    // The lease would have lasted for most of R.
    let reads = digests[1..].iter().map(|digest| get_kind(&fresh, digest));
    assert!(futures::future::join_all(reads).await.iter().all(|kind| *kind == ErrorKind::Revoked));
    let asked = world.provider.calls().unwrap - before.unwrap;
    assert!(asked <= 49 + 2, "each asked for its own, and once for the root: {asked}");
    // Also what is in the cache is gone.
    assert_eq!(get_kind(&fresh, &digests[0]).await, ErrorKind::Revoked);
    world.provider.allow("k");
    pass(R).await;
    get(&fresh, &digests[0]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_single_gets_and_leaves_the_lease() {
    let world = direct().await;
    let (cached, other) = (world.put(&data(10)).await, world.put(&data(11)).await);
    let (fresh, ..) = world.node(2).await;
    get(&fresh, &cached.digest).await.unwrap();
    world.provider.set_down(true);
    assert_eq!(get_kind(&fresh, &other.digest).await, ErrorKind::Unavailable);
    assert_eq!(get(&fresh, &cached.digest).await.unwrap(), data(10));
    world.provider.set_down(false);
    assert_eq!(get(&fresh, &other.digest).await.unwrap(), data(11));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_given_up() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    let (fresh, ..) = world.node(2).await;
    world.provider.set_latency(Duration::from_secs(3600));
    let read = tokio::time::timeout(2 * R, get(&fresh, &put.digest)).await;
    assert_eq!(read.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_put_needs_a_live_lease_though_a_wrap_would_succeed() {
    let world = direct().await;
    // A disabled key still wraps (MEASURED at Key Vault); only the unwrap of the root says that it is disabled.
    let version = key_id("k").with_version(&format!("{:032x}", 1)).unwrap();
    world.provider.set_enabled(&version, false);
    pass(2 * R).await;
    let put = world.store.put_bytes(data(10), bulla::PutOptions::default()).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(world.keys("blobs").await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_includes_the_sweep_and_the_old_kek_goes_when_nothing_needs_it() {
    let world = direct().await;
    let (small, big) = (world.put(&data(10)).await, world.put(&large()).await);
    let data_before = world.keys("data").await;
    let version = world.provider.new_version("new");
    let rotation = rotate(&world.store, "new").await.unwrap();
    let sweep = rotation.sweep.unwrap();
    assert_eq!((rotation.changed, sweep.rewrapped, sweep.resumed), (true, 2, false));
    assert_eq!(sweep.to, version.to_string());
    assert_eq!(sweep.count.under(&sweep.from[0]), 0);
    for key in world.keys("blobs").await {
        assert_eq!(wraps(&world, &key).await[0].kid, version.to_string());
    }
    assert_eq!(world.keys("data").await, data_before);
    assert_eq!(world.keys("jobs").await.len(), 0);
    assert_eq!(world.store.status().await.unwrap().keks, [(version, true)]);
    world.provider.deny("k", DenyReason::Deleted);
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &small.digest).await.unwrap(), data(10));
    assert_eq!(get(&fresh, &big.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn the_old_kek_is_needed_and_named_until_a_sweep_has_counted_zero() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    let late = world.put(&data(11)).await;
    world.provider.new_version("new");
    // Dies while it waits for the other writers.
    let cut = tokio::time::timeout(R / 2, rotate(&world.store, "new")).await;
    assert!(cut.is_err());
    let (fresh, ..) = world.node(2).await;
    let status = fresh.status().await.unwrap();
    assert_eq!(status.keks.len(), 2);
    assert!(status.warnings.iter().any(|warning| warning.contains("earlier KEK version")), "{status:?}");
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
    // Disabled too early: the blobs under it are revoked, the lease, which hangs on the new one, is not.
    world.provider.deny("k", DenyReason::Disabled);
    assert_eq!(get_kind(&fresh, &late.digest).await, ErrorKind::Revoked);
    let new = put_on(&fresh, b"new").await;
    assert_eq!(get(&fresh, &new).await.unwrap(), &b"new"[..]);
    assert_eq!(rotate(&fresh, "new").await.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.allow("k");
    let done = rotate(&fresh, "new").await.unwrap();
    assert!(!done.changed);
    assert!(done.sweep.unwrap().resumed);
    assert_eq!(fresh.status().await.unwrap().keks.len(), 1);
}

async fn put_on(store: &Store, data: &[u8]) -> Digest {
    put(store, data).await.digest
}

#[tokio::test(start_paused = true)]
async fn rewrap_finishes_a_rotation_and_otherwise_says_what_direct_mode_does() {
    let world = direct().await;
    world.put(&data(10)).await;
    let error = world.store.rewrap(SweepOptions::default(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("bulla rotate"), "{error}");
    world.provider.new_version("new");
    assert!(tokio::time::timeout(R / 2, rotate(&world.store, "new")).await.is_err());
    let done = world.store.rewrap(SweepOptions::default(), |_| {}).await.unwrap();
    assert!(done.resumed);
    assert_eq!(world.store.status().await.unwrap().keks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_does_not_drop_a_kek_that_still_holds_the_root() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    world.provider.new_version("new");
    // Dies between its two records.
    for attempt in 0..5 {
        world.script.before_nth(
            Op::Create,
            "store/",
            usize::from(attempt == 0),
            || Some(broken_connection()),
        );
    }
    assert!(rotate(&world.store, "new").await.is_err());
    let error = world.store.rewrap(SweepOptions::default(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("bulla rotate"), "{error}");
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
    rotate(&world.store, "new").await.unwrap();
    assert_eq!(world.store.status().await.unwrap().keks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kek_that_comes_back_is_not_dropped_by_the_sweep_of_its_first_end() {
    let world = direct().await;
    world.provider.new_version("other");
    let mut digests = Vec::new();
    for (i, name) in ["other", "k", "other", "k"].iter().enumerate() {
        digests.push((i, put_on(&world.store, &i.to_be_bytes()).await));
        rotate(&world.store, name).await.unwrap();
        for (i, digest) in &digests {
            assert_eq!(get(&world.store, digest).await.unwrap(), i.to_be_bytes().as_slice());
        }
    }
    assert_eq!(world.store.status().await.unwrap().keks.len(), 1);
}

/// FORMAT-P4 holds for KEKs as for store keys: what is acknowledged is under a key that stays.
#[tokio::test(start_paused = true)]
async fn a_paused_writer_wraps_again_where_its_kek_is_retiring() {
    let world = direct().await;
    world.provider.new_version("new");
    let before = world.keys("store").await.len();
    assert!(tokio::time::timeout(R / 2, rotate(&world.store, "new")).await.is_err());
    let records: Vec<String> = world.keys("store").await.split_off(before);
    let mut later = Vec::new();
    for key in records {
        later.push((key.clone(), world.read(&key).await));
        world.remove(&key).await;
    }
    // A node that has seen nothing of it, paused after its create.
    let (slow, runtime, script) = world.node(2).await;
    let raw = world.raw.clone();
    script.after(Op::Create, "blobs/", move || {
        runtime.suspend(2 * R);
        for (key, record) in later {
            futures::executor::block_on(raw.put(&Path::from(key), record.into())).unwrap();
        }
        None
    });
    let digest = put_on(&slow, &data(10)).await;
    let new = key_id("new").with_version(&format!("{:032x}", 1)).unwrap().to_string();
    assert_eq!(wraps(&world, &world.only("blobs").await).await[0].kid, new);
    assert_eq!(get(&slow, &digest).await.unwrap(), data(10));
}

/// Somebody else's envelope is acknowledged only if its key is active, of KEKs too.
#[tokio::test(start_paused = true)]
async fn anothers_envelope_under_a_retiring_kek_is_replaced() {
    let world = direct().await;
    world.put(&data(10)).await;
    world.provider.new_version("new");
    assert!(tokio::time::timeout(R / 2, rotate(&world.store, "new")).await.is_err());
    world.put(&data(10)).await;
    let new = key_id("new").with_version(&format!("{:032x}", 1)).unwrap().to_string();
    assert_eq!(wraps(&world, &world.only("blobs").await).await[0].kid, new);
}

#[tokio::test(start_paused = true)]
async fn a_new_identity_must_be_able_to_use_the_old_kek_too() {
    let world = direct().await;
    let put = world.put(&data(10)).await;
    world.provider.new_version("new");
    world.provider.forbid("k", "other");
    let options = || RotateOptions {
        key: Some(key_id("new")),
        identity: Some("other".parse().unwrap()),
        ..RotateOptions::default()
    };
    let error = world.store.rotate(options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Revoked);
    assert!(error.to_string().contains("other"), "{error}");
    assert_eq!(world.keys("store").await.len(), 1, "refused before anything is written");
    // Nor the old one be unable to use the new KEK, under which it writes for a moment.
    world.provider.permit("k", "other");
    world.provider.forbid("new", "system");
    assert_eq!(world.store.rotate(options()).await.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.permit("new", "system");
    assert_eq!(world.store.rotate(options()).await.unwrap().sweep.unwrap().rewrapped, 1);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_provider_slows_the_sweep_and_does_not_end_it() {
    let world = direct().await;
    for i in 0..30_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    world.provider.new_version("new");
    let faults = bulla_testkit::provider::ServiceFaults { throttled: 200, ..Default::default() };
    let random = std::sync::Arc::new(bulla_testkit::runtime::SeededRandom::new(1));
    assert!(tokio::time::timeout(R / 2, rotate(&world.store, "new")).await.is_err());
    world.provider.set_faults(faults, &random);
    let done = world.store.rewrap(SweepOptions::default(), |_| {}).await.unwrap();
    assert_eq!(done.rewrapped, 30);
}

#[tokio::test(start_paused = true)]
async fn the_sweep_of_a_rotation_can_be_watched_and_slowed_down() {
    let world = direct().await;
    for i in 0..20_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    world.provider.new_version("new");
    let started = tokio::time::Instant::now();
    let retired = std::sync::atomic::AtomicBool::new(false);
    let options = RotateOptions { key: Some(key_id("new")), ..RotateOptions::default() };
    let sweep = SweepOptions { rate: NonZeroU32::new(1), ..SweepOptions::default() };
    let watch = |event| {
        if matches!(event, SweepEvent::Retired(_)) {
            retired.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    };
    world.store.rotate_watched(options, sweep, watch).await.unwrap();
    assert!(started.elapsed() >= R + Duration::from_secs(38));
    assert!(retired.load(std::sync::atomic::Ordering::SeqCst));
}
