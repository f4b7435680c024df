//! How often, how long, and as whom.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bulla_kek::{DenyReason, KekErrorKind, KekProvider, TokioRuntime};
use bulla_kek_azure::{AzureOptions, AzureProvider};
use futures::future::join_all;

use crate::support::{RSA, Reply, World, user, wrapped};

#[tokio::test]
async fn an_outage_that_ends_between_attempts_is_invisible() {
    let world = World::new().await;
    let (secret, value) = wrapped();
    world.vault.script([Reply::json(503, ""), Reply::Drop]);
    let back = world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap();
    assert!(back.ct_eq(&secret));
    assert_eq!(world.vault.seen().len(), 3);
}

#[tokio::test]
async fn after_three_attempts_it_is_an_outage() {
    let world = World::new().await;
    world.vault.always(Reply::json(500, ""));
    let error = world.provider.describe(&world.key, &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
    assert_eq!(world.vault.seen().len(), 3);
}

#[tokio::test]
async fn refusals_and_invalid_calls_are_not_repeated() {
    for (status, code, kind) in [
        (403, "Forbidden", KekErrorKind::Denied(DenyReason::Forbidden)),
        (400, "BadParameter", KekErrorKind::Invalid),
        (302, "Found", KekErrorKind::Unavailable),
    ] {
        let world = World::new().await;
        world.vault.always(Reply::error(status, &[code], ""));
        let error = world.provider.describe(&world.key, &user()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(world.vault.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    for status in [429, 503] {
        let world = World::new().await;
        world.vault.script([Reply::Http(status, vec![("retry-after", "1".into())], String::new())]);
        let start = Instant::now();
        world.provider.describe(&world.key, &user()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1), "{status}: {:?}", start.elapsed());
        assert_eq!(world.vault.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_the_callers() {
    let world = World::new().await;
    world.vault.always(Reply::Http(429, vec![("retry-after", "60".into())], String::new()));
    let start = Instant::now();
    let error = world.provider.describe(&world.key, &user()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (KekErrorKind::Throttled, Some(Duration::from_secs(60))));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(world.vault.seen().len(), 1);
}

#[tokio::test]
async fn a_vault_that_hangs_is_given_up_in_time() {
    let world = World::with(|options| {
        options.request_timeout = Duration::from_millis(300);
        options.give_up_after = Duration::from_secs(1);
        options.attempts = 1000;
    })
    .await;
    world.vault.always(Reply::Hang);
    let start = Instant::now();
    let error = world.provider.describe(&world.key, &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // A request that takes longer than all of it is not waited for either.
    let options = AzureOptions { request_timeout: Duration::from_secs(60), ..world.options.clone() };
    let provider = AzureProvider::new(options, Arc::new(TokioRuntime)).unwrap();
    let start = Instant::now();
    let error = provider.describe(&world.key, &user()).await.unwrap_err();
    assert!(error.to_string().contains("within 1s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn nobody_there_is_an_outage() {
    let world = World::with(|options| {
        options.extra_hosts.push("localhost:1".into());
        options.extra_hosts.push("no-such-host.invalid".into());
    })
    .await;
    for host in ["localhost:1", "no-such-host.invalid"] {
        let key = bulla_kek::KeyId::key_vault(host, "k", None).unwrap();
        let error = world.provider.describe(&key, &user()).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(host), "{error}");
    }
}

#[tokio::test]
async fn a_crowd_makes_two_unwraps_at_most() {
    let world = World::new().await;
    *world.vault.latency.lock().unwrap() = Duration::from_millis(50);
    let (secret, value) = wrapped();
    let (key, who) = (world.versioned(), user());
    let answers = join_all((0..64).map(|_| world.provider.unwrap_key(&key, &who, RSA, &value))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().ct_eq(&secret)));
    assert!(world.vault.seen().len() <= 2);

    let answers = join_all((0..64).map(|_| world.provider.describe(&key, &who))).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    assert!(world.vault.seen().len() <= 2);
}

#[tokio::test]
async fn other_values_and_identities_are_other_requests() {
    let world = World::new().await;
    let ((first, one), (second, two)) = (wrapped(), wrapped());
    let (key, who) = (world.versioned(), user());
    let other = bulla_kek::Identity::System;
    let (a, b, c) = futures::join!(
        world.provider.unwrap_key(&key, &who, RSA, &one),
        world.provider.unwrap_key(&key, &who, RSA, &two),
        world.provider.unwrap_key(&key, &other, RSA, &one),
    );
    assert!(a.unwrap().ct_eq(&first) && b.unwrap().ct_eq(&second) && c.unwrap().ct_eq(&first));
    assert_eq!(world.vault.seen().len(), 3);
}

#[tokio::test]
async fn a_token_serves_many_requests() {
    let world = World::new().await;
    for _ in 0..5 {
        world.provider.describe(&world.key, &user()).await.unwrap();
    }
    assert_eq!(world.vault.tokens.load(Ordering::SeqCst), 1);
}
