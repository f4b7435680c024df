//! A key id without a version follows the key's new versions: within the interval, at no cost, and only to versions that
//! can hold the store.

use std::sync::Arc;
use std::time::Duration;

use bulla::kek::{DenyReason, KeyId, Providers, Runtime};
use bulla::{Engine, KeyState, Store};
use bulla_testkit::provider::key_id;
use bulla_testkit::runtime::SimRuntime;
use bulla_testkit::scripted::{Op, ScriptedStore};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Uses the store every ten seconds.
async fn traffic(store: &Store, digest: &bulla::Digest, time: Duration) {
    let until = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < until {
        get(store, digest).await.unwrap();
        pass(Duration::from_secs(10)).await;
    }
}

/// The versions that hold the root now.
async fn versions(store: &Store) -> Vec<KeyId> {
    store.status().await.unwrap().keks.into_iter().map(|(kek, _)| kek).collect()
}

/// Another node that asks for new versions more often.
async fn node_that_asks_every(world: &World, seed: u64, interval: Duration) -> Store {
    let runtime = SimRuntime::new(tokio::time::Instant::now(), seed);
    let engine = Engine::builder()
        .providers(Providers::new().with(Arc::new(world.provider.for_node(&runtime))))
        .runtime(Arc::new(runtime))
        .follow_versions_every(interval)
        .build();
    let script = ScriptedStore::new(world.raw.clone());
    engine.open(bucket(&script), world.pinned()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_new_version_is_followed_within_an_hour() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    traffic(&world.store, &put.digest, HOUR / 4).await;
    let version = world.provider.new_version("k");
    world.script.take_requests();
    traffic(&world.store, &put.digest, HOUR).await;
    let status = world.store.status().await.unwrap();
    assert_eq!(status.keks, [(version, true)]);
    assert_eq!((status.versions.newer, status.versions.failure), (None, None));
    assert!(status.follows_versions && status.warnings.is_empty(), "{:?}", status.warnings);
    // It is an ordinary rotation: two records, and no blob is touched.
    assert_eq!(world.keys("store").await.len(), 3);
    let requests = world.script.take_requests();
    let writes = requests.iter().filter(|(op, _)| matches!(op, Op::Create | Op::Update | Op::Put));
    assert!(writes.clone().all(|(_, key)| key.starts_with("store/")), "{requests:?}");
    // And that was all.
    traffic(&world.store, &put.digest, 5 * HOUR).await;
    assert_eq!(world.keys("store").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn asking_for_versions_costs_no_calls() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let store = node_that_asks_every(&world, 2, 2 * R).await;
    world.store.close().await;
    let before = world.provider.calls();
    traffic(&store, &put.digest, HOUR).await;
    let after = world.provider.calls();
    assert!(after.unwrap - before.unwrap <= 120, "{before:?} {after:?}");
    assert!(after.describe - before.describe <= 120, "{before:?} {after:?}");
    assert_eq!(after.wrap, before.wrap);
    let asked = store.status().await.unwrap().versions.asked.unwrap();
    assert!(world.runtime.now().wall.duration_since(asked).unwrap() <= 2 * R);
}

#[tokio::test(start_paused = true)]
async fn an_idle_store_does_not_follow_and_its_first_use_does() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    pass(2 * R).await;
    let version = world.provider.new_version("k");
    let before = world.provider.calls();
    pass(10 * HOUR).await;
    assert_eq!(world.provider.calls(), before);
    assert_eq!(world.keys("store").await.len(), 1);
    get(&world.store, &put.digest).await.unwrap();
    pass(2 * Duration::from_secs(1)).await;
    assert_eq!(versions(&world.store).await, [version]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_opened_follows_what_it_missed() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let version = world.provider.new_version("k");
    let before = world.provider.calls();
    let (fresh, ..) = world.node(2).await;
    // The version in use is asked about as well: a key that has expired must be known to have.
    assert_eq!(world.provider.calls().describe - before.describe, 2);
    pass(2 * Duration::from_secs(1)).await;
    assert_eq!(versions(&fresh).await, [version]);
    get(&fresh, &put.digest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pinned_version_never_moves() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let pinned = world.provider.new_version("pinned");
    world
        .store
        .rotate(bulla::RotateOptions { key: Some(pinned.clone()), ..Default::default() })
        .await
        .unwrap();
    world.provider.new_version("pinned");
    traffic(&world.store, &put.digest, 3 * HOUR).await;
    let (fresh, ..) = world.node(2).await;
    traffic(&fresh, &put.digest, HOUR).await;
    assert_eq!(versions(&fresh).await, [pinned]);
    assert!(!fresh.status().await.unwrap().follows_versions);
}

#[tokio::test(start_paused = true)]
async fn who_turns_it_off_is_heard() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.new_version("k");
    let store = node_that_asks_every(&world, 2, Duration::MAX).await;
    world.store.close().await;
    traffic(&store, &put.digest, 3 * HOUR).await;
    assert_eq!(world.keys("store").await.len(), 1);
    assert_eq!(store.status().await.unwrap().versions.asked, None);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_fit_is_not_taken_until_it_is() {
    for case in ["disabled", "expired", "forbidden"] {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        let version = world.provider.new_version("k");
        match case {
            "disabled" => world.provider.set_enabled(&version, false),
            "expired" => world.provider.set_expires(&version, Some(bulla_testkit::runtime::epoch())),
            _ => world.provider.deny_version(&version, Some(DenyReason::Forbidden)),
        }
        traffic(&world.store, &put.digest, HOUR).await;
        let status = world.store.status().await.unwrap();
        assert_eq!(status.versions.newer.as_ref(), Some(&version), "{case}");
        let failure = status.versions.failure.unwrap();
        let why = match case {
            "disabled" => "is disabled; enable it",
            "expired" => "outside its validity",
            _ => "set-policy",
        };
        assert!(failure.contains(why), "{case}: {failure}");
        let warned = status.warnings.iter().any(|warning| {
            warning.contains(why)
                && warning.contains("is not taken")
                && warning.contains(&version.to_string())
        });
        assert!(warned, "{case}: {:?}", status.warnings);
        // Nothing else came of it: no denial of the store's key, no record, and no call but for those of an attempt.
        assert!(matches!(world.store.key_state(), KeyState::Live { outage_since: None, .. }), "{case}");
        assert_eq!(world.keys("store").await.len(), 1, "{case}");
        let before = world.provider.calls();
        traffic(&world.store, &put.digest, 2 * HOUR).await;
        let after = world.provider.calls();
        let attempts = if case == "forbidden" { 3 } else { 0 };
        assert!(after.wrap - before.wrap <= attempts, "{case}: {before:?} {after:?}");
        assert!(after.describe - before.describe <= 240 + attempts, "{case}: {before:?} {after:?}");

        world.provider.set_enabled(&version, true);
        world.provider.set_expires(&version, None);
        world.provider.deny_version(&version, None);
        traffic(&world.store, &put.digest, HOUR).await;
        assert_eq!(versions(&world.store).await, [version], "{case}");
        assert_eq!(world.store.status().await.unwrap().warnings, [] as [String; 0], "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_the_newest_version_is_no_verdict_on_the_one_in_use() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.set_versionless_denied(Some(DenyReason::Disabled));
    traffic(&world.store, &put.digest, 2 * HOUR).await;
    let status = world.store.status().await.unwrap();
    assert!(status.versions.failure.unwrap().contains("can't be asked"));
    assert!(matches!(world.store.key_state(), KeyState::Live { outage_since: None, .. }));
}

/// A replica that lags behind names an old version as the newest: going back would go to and fro for ever.
#[tokio::test(start_paused = true)]
async fn an_older_version_is_not_followed() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    pass(Duration::from_secs(1)).await;
    let version = world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    world.provider.set_hidden(&version, true);
    traffic(&world.store, &put.digest, 3 * HOUR).await;
    assert_eq!(versions(&world.store).await, [version]);
    let failure = world.store.status().await.unwrap().versions.failure.unwrap();
    assert!(failure.contains("older than the one in use"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_notice_together_end_under_one_version() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let mut nodes = Vec::new();
    for seed in 0..8 {
        nodes.push(node_that_asks_every(&world, seed, 2 * R).await);
    }
    let version = world.provider.new_version("k");
    let before = world.provider.calls();
    let all = nodes.iter().map(|store| traffic(store, &put.digest, 6 * R));
    futures::future::join_all(all).await;
    assert_eq!(versions(&world.store).await, [version]);
    // They stand in line: at most two records of each, and mostly far fewer.
    assert!(world.keys("store").await.len() <= 1 + 2 * nodes.len());
    assert!(world.provider.calls().wrap - before.wrap <= 8, "{:?}", world.provider.calls());
    for store in &nodes {
        assert_eq!(store.mark(), world.store.mark());
        get(store, &put.digest).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_following_is_finished_by_whoever_comes_next() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let version = world.provider.new_version("k");
    // The first node gets its first record in and dies before the second.
    fail_the_second_record(&world);
    traffic(&world.store, &put.digest, HOUR).await;
    assert_eq!(world.keys("store").await.len(), 2);
    let failure = world.store.status().await.unwrap().versions.failure;
    assert!(failure.is_some());
    world.store.close().await;
    let (fresh, ..) = world.node(2).await;
    // Not before it has stood still for R: for all it knows, somebody is at it.
    traffic(&fresh, &put.digest, R / 2).await;
    assert_eq!(world.keys("store").await.len(), 2);
    traffic(&fresh, &put.digest, R + R / 2).await;
    assert_eq!(versions(&fresh).await, [version]);
}

/// Somebody rotates to another key and is in the middle of it: that is not for others to end.
#[tokio::test(start_paused = true)]
async fn a_rotation_to_another_key_is_left_to_whoever_began_it() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.new_version("other");
    fail_the_second_record(&world);
    assert!(world.rotate_to("other").await.is_err());
    world.provider.new_version("k");
    traffic(&world.store, &put.digest, 3 * HOUR).await;
    assert_eq!(world.keys("store").await.len(), 2);
    world.rotate_to("other").await.unwrap();
    let [only] = <[KeyId; 1]>::try_from(versions(&world.store).await).unwrap();
    assert_eq!(only.without_version(), key_id("other"));
}

/// The sweep of a rotation in direct mode is a part of following.
#[tokio::test(start_paused = true)]
async fn a_store_in_direct_mode_follows_with_every_data_key() {
    let world = World::with(|options| options.mode = bulla::Mode::Direct).await;
    let put = world.put(&large()).await;
    let first = versions(&world.store).await;
    let version = world.provider.new_version("k");
    traffic(&world.store, &put.digest, HOUR + HOUR / 4).await;
    assert_eq!(versions(&world.store).await, std::slice::from_ref(&version));
    assert_eq!(world.store.stat(&put.digest).await.unwrap().wrapped_by, version.to_string());
    world.provider.deny_version(&first[0], Some(DenyReason::Disabled));
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), large());
}
