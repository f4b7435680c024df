//! Rotation: one secret is wrapped again, nothing is ever unreadable, an interrupted one finishes.

use bulla::kek::DenyReason;
use bulla::{ErrorKind, Managed, RotateOptions};
use bulla_testkit::provider::key_id;
use bulla_testkit::scripted::{Op, broken_connection};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_new_version_touches_the_log_only() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let version = world.provider.new_version("k");
    world.script.take_requests();
    let rotation = world.store.rotate(RotateOptions::default()).await.unwrap();
    assert_eq!((rotation.to, rotation.changed), (version, true));
    let requests = world.script.take_requests();
    assert!(requests.iter().all(|(_, key)| key.starts_with("store/")), "{requests:?}");
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
    let again = world.store.rotate(RotateOptions::default()).await.unwrap();
    assert!(!again.changed);
    assert_eq!(world.keys("store").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_at_most_three_calls_beside_four_of_preflight() {
    let world = World::new().await;
    world.provider.new_version("new");
    let before = world.provider.calls();
    world.rotate_to("new").await.unwrap();
    let after = world.provider.calls();
    let calls = |calls: bulla_testkit::provider::Calls| calls.describe + calls.wrap + calls.unwrap;
    assert!(calls(after) - calls(before) <= 7, "{before:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_rotation_the_old_key_opens_nothing_new_nodes_need() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    world.provider.deny("k", DenyReason::Deleted);
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
    world.provider.deny("new", DenyReason::Deleted);
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
}

#[tokio::test(start_paused = true)]
async fn other_nodes_follow() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    get(&other, &put.digest).await.unwrap();
    pass(2 * R).await;
    get(&other, &put.digest).await.unwrap();
    assert_eq!(other.mark(), world.store.mark());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_rotation_leaves_a_readable_store_and_finishes() {
    for second in [false, true] {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        world.provider.new_version("new");
        world.provider.new_version("other");
        // The process dies before it writes its second record; or before the first.
        for attempt in 0..5 {
            let skip = usize::from(second && attempt == 0);
            world.script.before_nth(Op::Create, "store/", skip, || Some(broken_connection()));
        }
        assert!(world.rotate_to("new").await.is_err());
        let (fresh, ..) = world.node(2).await;
        assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
        if second {
            assert!(
                fresh.status().await.unwrap().warnings.iter().any(|warning| warning.contains("interrupted"))
            );
        }
        let options = RotateOptions { key: Some(key_id("other")), ..RotateOptions::default() };
        assert!(fresh.rotate(options).await.unwrap().changed);
        world.provider.deny("k", DenyReason::Deleted);
        world.provider.deny("new", DenyReason::Deleted);
        let (last, ..) = world.node(3).await;
        assert_eq!(get(&last, &put.digest).await.unwrap(), data(10));
        assert_eq!(last.status().await.unwrap().keks.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn two_rotations_at_once_end_under_one_key() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    world.provider.new_version("a");
    world.provider.new_version("b");
    let options = RotateOptions { key: Some(key_id("b")), ..RotateOptions::default() };
    let (a, b) = tokio::join!(world.rotate_to("a"), other.rotate(options));
    assert!(a.is_ok() || b.is_ok());
    let (fresh, ..) = world.node(3).await;
    let status = fresh.status().await.unwrap();
    assert_eq!(status.keks.len(), 1, "{status:?}");
    assert_eq!(get(&fresh, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn an_unfit_key_is_refused_before_anything_is_written() {
    let world = World::new().await;
    let disabled = world.provider.new_version("disabled");
    world.provider.set_enabled(&disabled, false);
    let expired = world.provider.new_version("expired");
    world.provider.set_expires(&expired, Some(bulla_testkit::runtime::epoch()));
    world.provider.new_version("forbidden");
    world.provider.deny("forbidden", DenyReason::Forbidden);
    for (name, kind, fix) in [
        ("disabled", ErrorKind::Invalid, "enable"),
        ("expired", ErrorKind::Invalid, "validity"),
        ("forbidden", ErrorKind::Revoked, "set-policy"),
        ("absent", ErrorKind::Revoked, "az keyvault key create"),
    ] {
        let error = world.rotate_to(name).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(fix), "{name}: {error}");
    }
    assert_eq!(world.keys("store").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn service_managed_becomes_customer_managed_and_never_back() {
    let world = World::new().await;
    world.provider.new_version("service");
    let mut options = create_options();
    options.key = key_id("service");
    options.managed = Managed::Service;
    let script = bulla_testkit::scripted::ScriptedStore::new(std::sync::Arc::new(
        object_store::memory::InMemory::new(),
    ));
    let store = engine(&world.runtime, &world.provider).create(bucket(&script), options).await.unwrap();
    world.provider.new_version("service");
    assert!(!store.rotate(RotateOptions::default()).await.unwrap().became_customer_managed);
    let to = RotateOptions { key: Some(key_id("k")), ..RotateOptions::default() };
    assert!(store.rotate(to).await.unwrap().became_customer_managed);
    assert_eq!(store.status().await.unwrap().managed, Managed::Customer);
    assert!(!store.rotate(RotateOptions::default()).await.unwrap().changed);
    assert_eq!(store.status().await.unwrap().managed, Managed::Customer);
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_go_on_throughout() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.set_latency(std::time::Duration::from_secs(1));
    world.provider.new_version("new");
    let rotating = world.rotate_to("new");
    let traffic = async {
        for i in 0..40_u32 {
            pass(std::time::Duration::from_millis(200)).await;
            assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
            world.put(&i.to_be_bytes()).await;
        }
    };
    let (rotation, ()) = tokio::join!(rotating, traffic);
    rotation.unwrap();
}
