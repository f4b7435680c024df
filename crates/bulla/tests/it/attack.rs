//! What somebody who can write the bucket, and knows the KEK's public key, can't do.

use std::sync::Arc;
use std::time::Duration;

use bulla::kek::Providers;
use bulla::{Engine, ErrorKind};
use bulla_envelope::envelope::Envelope;
use bulla_envelope::record::UnverifiedRecord;
use bulla_envelope::secret::Root;

use crate::support::*;

/// Every object of a store with one blob inline and one in extents, under every alteration of one kind.
async fn sweep(alter: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let world = World::new().await;
    let small = world.put(&data(100)).await.digest;
    let big = world.put(&large()).await.digest;
    let mut keys = world.keys("blobs").await;
    keys.extend(world.keys("data").await);
    for key in keys {
        let good = world.read(&key).await;
        for bad in alter(&good) {
            world.write(&key, bad).await;
            let (fresh, ..) = world.node(2).await;
            for (digest, content) in [(&small, data(100)), (&big, large())] {
                match get(&fresh, digest).await {
                    Ok(bytes) => assert_eq!(bytes, content, "{key}"),
                    Err(error) => assert!(
                        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound),
                        "{key}: {error:?}"
                    ),
                }
            }
        }
        world.write(&key, good).await;
    }
}

// FORMAT-P10
#[tokio::test(start_paused = true)]
async fn truncated_objects_are_refused() {
    sweep(|good| {
        [0, 1, 55, 56, good.len() / 2, good.len() - 17, good.len() - 1]
            .map(|len| good[..len.min(good.len())].to_vec())
            .to_vec()
    })
    .await;
}

// FORMAT-P10
#[tokio::test(start_paused = true)]
async fn flipped_bits_are_refused() {
    sweep(|good| {
        (0..12)
            .map(|i| {
                let mut bad = good.to_vec();
                let at = (good.len() - 1) * i / 11;
                bad[at] ^= 1 << (i % 8);
                bad
            })
            .collect()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn extended_objects_are_refused_or_harmless() {
    sweep(|good| vec![[good, &[0]].concat(), [good, good].concat()]).await;
}

#[tokio::test(start_paused = true)]
async fn swapped_objects_are_refused() {
    let world = World::new().await;
    let (a, b) = (world.put(&data(100)).await.digest, world.put(&data(200)).await.digest);
    let keys = world.keys("blobs").await;
    let (first, second) = (world.read(&keys[0]).await, world.read(&keys[1]).await);
    world.write(&keys[0], second).await;
    world.write(&keys[1], first).await;
    let (fresh, ..) = world.node(2).await;
    for digest in [a, b] {
        assert_eq!(get(&fresh, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test(start_paused = true)]
async fn swapped_extents_are_refused() {
    let world = World::new().await;
    let digest = world.put(&data(8 << 20)).await.digest;
    let keys = world.keys("data").await;
    let (first, second) = (world.read(&keys[0]).await, world.read(&keys[1]).await);
    world.write(&keys[0], second).await;
    world.write(&keys[1], first).await;
    assert_eq!(get(&world.store, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

// FORMAT-P8
#[tokio::test(start_paused = true)]
async fn objects_of_another_store_are_refused() {
    let (world, foreign) = (World::new().await, World::new().await);
    foreign.provider.set_down(false);
    // A second store under the same key service.
    let script = bulla_testkit::scripted::ScriptedStore::new(foreign.raw.clone());
    let prefix = bulla::Bucket::from_object_store(Arc::new(script), "other").unwrap();
    let other = engine(&world.runtime, &world.provider).create(prefix, create_options()).await.unwrap();
    let digest = world.put(&data(100)).await.digest;
    put(&other, &data(100)).await;
    let theirs = foreign.read(&foreign.only("other/blobs").await).await;
    world.write(&world.only("blobs").await, theirs).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A wrap is used only if its kid and alg are in the authenticated log; else the provider is not asked.
// FORMAT-P7
#[tokio::test(start_paused = true)]
async fn a_wrap_of_an_unknown_key_is_refused_without_asking_the_provider() {
    let world = World::new().await;
    let digest = world.put(&data(100)).await.digest;
    let key = world.only("blobs").await;
    let mut envelope = Envelope::decode(&world.read(&key).await).unwrap();
    for kid in ["https://evil.example/keys/k/1", "store-key:aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        envelope.wraps[0].kid = kid.to_owned();
        world.write(&key, envelope.encode()).await;
        let (fresh, ..) = world.node(2).await;
        let before = world.provider.calls();
        assert_eq!(get(&fresh, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(world.provider.calls(), before);
    }
}

/// A denial counts only for a key that an authenticated record names: a forged newest record wipes nothing, and the lease
/// ends at its time.
#[tokio::test(start_paused = true)]
async fn a_forged_record_that_names_a_denied_key_is_damage_not_a_revocation() {
    let world = World::new().await;
    let digest = world.put(&data(100)).await.digest;
    let (key, record) = replace_store_key(&world, bulla::StoreKeyState::Retiring).await;
    let mut forged = UnverifiedRecord::decode(&record).unwrap().hint().clone();
    world.provider.deny("absent", bulla::kek::DenyReason::NotFound);
    let kid = forged.keks[0].kid.replace("/k/", "/absent/");
    forged.keks[0].kid = kid.clone();
    forged.roots[0].groups[0][0].kid = kid;
    let own_root = Root::random(&bulla::kek::SystemRandom);
    world.write(&key, forged.sign(&own_root.record_key()).unwrap().into_object()).await;
    pass(R / 2 - Duration::from_secs(1)).await;
    assert!(get(&world.store, &digest).await.is_ok());
    pass(Duration::from_secs(10)).await;
    assert!(get(&world.store, &digest).await.is_ok(), "the renewal failed, the lease goes on");
    pass(R).await;
    assert_eq!(get(&world.store, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
    world.remove(&key).await;
    pass(R).await;
    assert!(get(&world.store, &digest).await.is_ok());
}

/// Who writes the bucket can't keep a running node from hearing that the key is denied, nor earn the grace of an outage.
#[tokio::test(start_paused = true)]
async fn a_forged_record_hides_no_denial_and_earns_no_grace() {
    for denied in [true, false] {
        let world = World::new().await;
        let digest = world.put(&data(100)).await.digest;
        let engine = Engine::builder()
            .providers(Providers::new().with(Arc::new(world.provider.clone())))
            .runtime(Arc::new(world.runtime.clone()))
            .outage_grace(10 * R)
            .build();
        let store = engine.open(bucket(&world.script), world.pinned()).await.unwrap();
        let (key, record) = replace_store_key(&world, bulla::StoreKeyState::Retiring).await;
        let mut forged = UnverifiedRecord::decode(&record).unwrap().hint().clone();
        let kid = forged.keks[0].kid.replace("/k/", "/absent/");
        forged.keks[0].kid = kid.clone();
        forged.roots[0].groups[0][0].kid = kid;
        let own_root = Root::random(&bulla::kek::SystemRandom);
        world.write(&key, forged.sign(&own_root.record_key()).unwrap().into_object()).await;
        get(&store, &digest).await.unwrap();
        if denied {
            world.provider.deny("k", bulla::kek::DenyReason::Forbidden);
        }
        pass(R / 2 + Duration::from_secs(1)).await;
        let expected = if denied { Err(ErrorKind::Revoked) } else { Ok(()) };
        assert_eq!(get(&store, &digest).await.map(drop).map_err(|error| error.kind()), expected);
        pass(R / 2).await;
        let expected = if denied { ErrorKind::Revoked } else { ErrorKind::Corrupt };
        assert_eq!(get(&store, &digest).await.unwrap_err().kind(), expected);
    }
}

// FORMAT-P9
/// A bad wrap is damage of that object, never a verdict on the KEK.
#[tokio::test(start_paused = true)]
async fn a_bad_wrap_damages_one_blob_only() {
    let world = World::new().await;
    let (bad, good) = (world.put(&data(100)).await.digest, world.put(&data(200)).await.digest);
    for key in world.keys("blobs").await {
        let bytes = world.read(&key).await;
        let mut envelope = Envelope::decode(&bytes).unwrap();
        envelope.wraps[0].value[3] ^= 1;
        world.write(&key, envelope.encode()).await;
        let (fresh, ..) = world.node(2).await;
        let outcomes = [get(&fresh, &bad).await, get(&fresh, &good).await];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(matches!(fresh.key_state(), bulla::KeyState::Live { .. }));
        world.write(&key, bytes).await;
    }
}

/// A rolled-back envelope of a blob that was deleted and put again names data that is still sealed for it, or nothing.
#[tokio::test(start_paused = true)]
async fn an_old_extent_under_a_new_name_is_refused() {
    let world = World::new().await;
    let digest = world.put(&data(100_000)).await.digest;
    let old = world.read(&world.only("data").await).await;
    world.store.delete(&digest).await.unwrap();
    world.remove(&world.only("data").await).await;
    world.put(&data(100_000)).await;
    world.write(&world.only("data").await, old).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn an_object_over_the_limit_is_refused_before_it_is_read() {
    let world = World::new().await;
    let digest = world.put(&data(100)).await.digest;
    world.write(&world.only("blobs").await, vec![0; (1 << 20) + 1]).await;
    let (fresh, ..) = world.node(2).await;
    assert_eq!(get(&fresh, &digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_shows_no_digest_and_no_content() {
    let world = World::new().await;
    let content = large();
    let digest = world.put(&content).await.digest;
    let hex = digest.to_string().replace("sha256:", "");
    for key in world.keys("").await {
        let bytes = world.read(&key).await;
        assert!(!key.contains(&hex[..8]));
        for needle in [digest.as_bytes(), &content[1000..1032], hex.as_bytes()] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{key}");
        }
    }
}
