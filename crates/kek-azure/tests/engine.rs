//! Stores of the engine under a key in a key vault: how many calls they make, and what a customer sees who takes the key
//! away while there is traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bulla::{
    CreateOptions, Engine, ErrorKind, Managed, Mode, OpenOptions, PutOptions, Store, StoreUrl, Trust,
};
use bulla_kek::{KeyKind, Providers, TokioRuntime};
use bulla_kek_azure::AzureProvider;
use bulla_vault::{AttributeChanges, CreateKey, NetworkAction, NetworkRules};
use futures::future::join_all;

use crate::real::World;
use crate::support::user;

fn engine(world: &World) -> Engine {
    let provider = AzureProvider::new(world.options(), Arc::new(TokioRuntime)).unwrap();
    Engine::builder().providers(Providers::new().with(Arc::new(provider))).build()
}

fn url(world: &World) -> StoreUrl {
    StoreUrl::parse(&world.folder.path().join("store").display().to_string()).unwrap()
}

async fn create(world: &World, mode: Mode, revocation_bound: Duration) -> Store {
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    let options = CreateOptions {
        mode,
        key: world.key("k"),
        identity: user(),
        managed: Managed::Customer,
        revocation_bound,
        allow_unprotected_key: false,
        second: None,
    };
    engine(world).create(url(world).connect(true).unwrap(), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_direct_mode_a_put_asks_nobody_and_a_get_once() {
    let world = World::new().await;
    let store = create(&world, Mode::Direct, Duration::from_secs(600)).await;
    let before = world.asked().len();
    let mut digests = Vec::new();
    for number in 0..20_u8 {
        digests.push(store.put_bytes(vec![number; 100_000], PutOptions::default()).await.unwrap().digest);
    }
    assert_eq!(world.asked()[before..], [] as [String; 0], "a put wraps here");

    let trust = Trust::Anchor(store.anchor());
    let bucket = url(&world).connect(false).unwrap();
    let other = engine(&world).open(bucket, OpenOptions { trust, floor: None }).await.unwrap();
    let before = world.asked().len();
    for _ in 0..3 {
        for (number, digest) in digests.iter().enumerate() {
            let bytes = other.get(digest).await.unwrap().bytes().await.unwrap();
            assert_eq!(bytes, vec![u8::try_from(number).unwrap(); 100_000]);
        }
    }
    assert_eq!(
        world.asked()[before..],
        vec!["unwrapKey"; 20],
        "one unwrap for each blob that was not cached"
    );
}

/// 64 readers and writers, and an owner who takes the key away in every way and gives it back. What began later than R
/// after the key was taken fails; nothing fails otherwise than by the key; all of it heals by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_readers_and_writers_while_the_owner_takes_the_key_away() {
    const R: Duration = Duration::from_secs(3);
    let world = World::new().await;
    let store = create(&world, Mode::Hierarchical, R).await;
    let digest = store.put_bytes(vec![7; 200_000], PutOptions::default()).await.unwrap().digest;
    let once = async |number: u32| {
        if number.is_multiple_of(2) {
            store.get(&digest).await?.bytes().await.map(drop)
        } else {
            store.put_bytes(number.to_be_bytes().to_vec(), PutOptions::default()).await.map(drop)
        }
    };
    let counter = AtomicU32::new(0);
    let crowd = async |until: Instant, taken: Instant| {
        let one = async || {
            let mut denied = false;
            while Instant::now() < until {
                let began = Instant::now();
                match once(counter.fetch_add(1, Ordering::Relaxed)).await {
                    Ok(()) => assert!(began <= taken + R, "used {:?} after it was taken away", began - taken),
                    Err(error) => match error.kind() {
                        ErrorKind::Revoked => denied = true,
                        // A renewal that a busy machine finished too late; never a verdict.
                        ErrorKind::Unavailable => {}
                        _ => panic!("{error:?}"),
                    },
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            denied
        };
        join_all((0..64).map(|_| one())).await.into_iter().any(|denied| denied)
    };
    let vault = &world.vault;
    let closed = || {
        let mut rules = NetworkRules::default();
        rules.default_action = NetworkAction::Deny;
        Some(rules)
    };
    type Step<'a> = Box<dyn Fn() + 'a>;
    let ways: [(&str, Step<'_>, Step<'_>); 4] = [
        (
            "disabled",
            Box::new(|| vault.set_enabled("k", None, false).map(drop).unwrap()),
            Box::new(|| vault.set_enabled("k", None, true).map(drop).unwrap()),
        ),
        (
            "deleted",
            Box::new(|| vault.delete_key("k").map(drop).unwrap()),
            Box::new(|| vault.recover_key("k").map(drop).unwrap()),
        ),
        (
            "no policy",
            Box::new(|| vault.delete_policy(&user()).map(drop).unwrap()),
            Box::new(|| vault.set_policy(&user(), &bulla_vault::Permission::FOR_STORES).map(drop).unwrap()),
        ),
        (
            "firewall",
            Box::new(|| vault.set_network_rules(closed()).map(drop).unwrap()),
            Box::new(|| vault.set_network_rules(None).map(drop).unwrap()),
        ),
    ];
    for (way, take, give) in ways {
        take();
        let taken = Instant::now();
        assert!(crowd(taken + R + R / 2, taken).await, "{way}: nobody was told that the key was taken away");
        give();
        let healed = Instant::now() + Duration::from_secs(60);
        while let Err(error) = once(0).await {
            assert!(Instant::now() < healed, "{way}: not healed: {error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // Expired, it still opens.
    let past = std::time::SystemTime::now() - Duration::from_secs(60);
    vault
        .set_attributes("k", None, &AttributeChanges { expires: Some(Some(past)), ..Default::default() })
        .unwrap();
    tokio::time::sleep(R).await;
    once(0).await.unwrap();
    store.close().await;
}
