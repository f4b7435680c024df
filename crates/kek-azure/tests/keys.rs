//! Descriptions, wraps, and the proof of a public key.

use std::time::{Duration, SystemTime};

use bulla_envelope::secret::Secret;
use bulla_kek::{DenyReason, KekErrorKind, KekProvider, KeyKind, SystemRandom};
use futures::future::join_all;
use serde_json::json;

use crate::support::{AES, RSA, Reply, VERSION, World, user, wrapped};

#[tokio::test]
async fn a_versionless_id_describes_the_newest_version() {
    let world = World::new().await;
    let described = world.provider.describe(&world.key, &user()).await.unwrap();
    assert_eq!(described.key, world.versioned());
    assert_eq!(described.kind, KeyKind::Rsa { bits: 2048 });
    assert!(described.enabled && described.permits("wrapKey") && described.permits("unwrapKey"));
    let protection = described.protection;
    assert!(protection.soft_delete && protection.purge_protection);
    assert_eq!(described.created, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    let seen = world.vault.seen();
    assert_eq!(seen[0].line.trim_end_matches('/'), "GET /keys/registry-key");
    assert_eq!(seen[0].query, "api-version=7.4");
}

#[tokio::test]
async fn recovery_levels() {
    let world = World::new().await;
    for (level, soft_delete, purge_protection) in [
        ("Purgeable", false, false),
        ("Recoverable+Purgeable", true, false),
        ("Recoverable", true, true),
        ("Recoverable+ProtectedSubscription", true, true),
        ("CustomizedRecoverable+Purgeable", true, false),
        ("CustomizedRecoverable", true, true),
        ("CustomizedRecoverable+ProtectedSubscription", true, true),
        ("SomethingNew", false, false),
    ] {
        world.vault.attributes.lock().unwrap()["recoveryLevel"] = json!(level);
        let described = world.provider.describe(&world.key, &user()).await.unwrap();
        let protection = described.protection;
        assert_eq!(
            (protection.soft_delete, protection.purge_protection),
            (soft_delete, purge_protection),
            "{level}"
        );
    }
}

#[tokio::test]
async fn kinds_of_keys() {
    let world = World::new().await;
    for (kty, kind) in [
        ("RSA-HSM", KeyKind::Rsa { bits: 2048 }),
        ("oct", KeyKind::Aes { bits: 256 }),
        ("oct-HSM", KeyKind::Aes { bits: 256 }),
        ("EC", KeyKind::Other("EC".into())),
        ("kyber", KeyKind::Other("kyber".into())),
    ] {
        *world.vault.kty.lock().unwrap() = kty;
        assert_eq!(world.provider.describe(&world.key, &user()).await.unwrap().kind, kind);
    }
}

#[tokio::test]
async fn a_disabled_or_expired_key_is_described_and_wraps_nothing() {
    for (attribute, value, reason) in [
        ("enabled", json!(false), DenyReason::Disabled),
        ("exp", json!(1_700_000_000), DenyReason::Expired),
        ("nbf", json!(4_000_000_000_u64), DenyReason::NotYetValid),
    ] {
        let world = World::new().await;
        world.vault.attributes.lock().unwrap()[attribute] = value;
        world.provider.describe(&world.key, &user()).await.unwrap();
        let secret = Secret::random(&SystemRandom);
        let error = world.provider.wrap_key(&world.versioned(), &user(), RSA, &secret).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Denied(reason), "{error}");
        assert!(
            world.vault.lines().iter().all(|line| line.starts_with("GET")),
            "nothing was wrapped or unwrapped"
        );
    }
}

#[tokio::test]
async fn a_wrap_is_made_here_after_one_round_trip_proved_the_public_key() {
    let world = World::new().await;
    let secret = Secret::random(&SystemRandom);
    let key = world.versioned();
    let wrapped = world.provider.wrap_key(&key, &user(), RSA, &secret).await.unwrap();
    let proof =
        [format!("GET /keys/registry-key/{VERSION}"), format!("POST /keys/registry-key/{VERSION}/unwrapkey")];
    assert_eq!(world.vault.lines(), proof);
    let back = world.provider.unwrap_key(&wrapped.key, &user(), wrapped.alg, &wrapped.value).await.unwrap();
    assert!(back.ct_eq(&secret));
    world.vault.seen();
    // From now on, for as long as the description is young, wraps are nobody's business.
    for _ in 0..10 {
        world.provider.wrap_key(&key, &user(), RSA, &secret).await.unwrap();
    }
    assert!(world.vault.seen().is_empty());
}

#[tokio::test]
async fn a_crowd_proves_a_public_key_once() {
    let world = World::new().await;
    *world.vault.latency.lock().unwrap() = Duration::from_millis(20);
    let (key, secret) = (world.versioned(), Secret::random(&SystemRandom));
    let who = user();
    join_all((0..50).map(|_| world.provider.wrap_key(&key, &who, RSA, &secret)))
        .await
        .into_iter()
        .for_each(|wrapped| drop(wrapped.unwrap()));
    let lines = world.vault.lines();
    let unwraps = lines.iter().filter(|line| line.ends_with("unwrapkey")).count();
    assert_eq!(unwraps, 1, "{lines:?}");
    assert!(lines.len() <= 3, "{lines:?}");
}

#[tokio::test]
async fn a_public_key_that_is_not_the_vaults_wraps_nothing() {
    let world = World::new().await;
    *world.vault.impostor.lock().unwrap() = true;
    let secret = Secret::random(&SystemRandom);
    let error = world.provider.wrap_key(&world.versioned(), &user(), RSA, &secret).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Invalid);
    assert!(error.to_string().contains("public key"), "{error}");
    // Proven is a key, not a name: an exchange afterwards is found as well.
    *world.vault.impostor.lock().unwrap() = false;
    world.provider.describe(&world.key, &user()).await.unwrap();
    world.provider.wrap_key(&world.versioned(), &user(), RSA, &secret).await.unwrap();
    *world.vault.impostor.lock().unwrap() = true;
    world.provider.describe(&world.key, &user()).await.unwrap();
    let error = world.provider.wrap_key(&world.versioned(), &user(), RSA, &secret).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn after_a_refusal_nothing_is_wrapped_on_an_earlier_description() {
    let world = World::new().await;
    let (secret, value) = wrapped();
    let key = world.versioned();
    world.provider.wrap_key(&key, &user(), RSA, &secret).await.unwrap();
    let refusal = Reply::error(403, &["Forbidden", "ForbiddenByPolicy"], "no");
    world.vault.always(refusal);
    world.provider.unwrap_key(&key, &user(), RSA, &value).await.unwrap_err();
    let error = world.provider.wrap_key(&key, &user(), RSA, &secret).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::Forbidden), "{error}");
}

#[tokio::test]
async fn an_old_description_is_asked_for_again_before_a_wrap() {
    let world = World::with(|options| options.description_max_age = Duration::ZERO).await;
    let secret = Secret::random(&SystemRandom);
    for _ in 0..2 {
        world.provider.wrap_key(&world.versioned(), &user(), RSA, &secret).await.unwrap();
    }
    let gets = world.vault.lines().iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(gets, 2);
}

#[tokio::test]
async fn aes_keys_wrap_in_the_hsm() {
    let world = World::new().await;
    let secret = Secret::random(&SystemRandom);
    let value = "A".repeat(54);
    let answer = format!(r#"{{"kid":"{}","value":"{value}"}}"#, world.versioned());
    world.vault.script([Reply::json(200, answer)]);
    let wrapped = world.provider.wrap_key(&world.versioned(), &user(), AES, &secret).await.unwrap();
    assert_eq!((wrapped.alg, wrapped.value.len()), (AES, 40));
    let seen = world.vault.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, format!("POST /keys/registry-key/{VERSION}/wrapkey"));
    assert!(seen[0].body.contains(r#""alg":"A256KW""#), "{}", seen[0].body);
}

#[tokio::test]
async fn what_can_be_no_wrap_is_refused_without_asking_anybody() {
    let world = World::new().await;
    for (alg, length) in [(RSA, 0), (RSA, 40), (RSA, 255), (RSA, 513), (AES, 0), (AES, 39), (AES, 256)] {
        let error =
            world.provider.unwrap_key(&world.versioned(), &user(), alg, &vec![0; length]).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{alg} {length}");
    }
    let (secret, value) = wrapped();
    let unversioned = world.provider.unwrap_key(&world.key, &user(), RSA, &value).await.unwrap_err();
    assert_eq!(unversioned.kind(), KekErrorKind::Invalid);
    let unversioned = world.provider.wrap_key(&world.key, &user(), RSA, &secret).await.unwrap_err();
    assert_eq!(unversioned.kind(), KekErrorKind::Invalid);
    assert!(world.vault.seen().is_empty());
}
