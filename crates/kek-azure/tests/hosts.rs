//! Who is asked, and who is not.

use std::sync::Arc;

use bulla_kek::{KekErrorKind, KekProvider, KeyId, TokioRuntime};
use bulla_kek_azure::{AzureOptions, AzureProvider};

use crate::support::{RSA, World, user, wrapped};

#[tokio::test]
async fn a_host_that_nobody_configured_is_not_asked() {
    let world = World::new().await;
    let options = AzureOptions { extra_hosts: Vec::new(), ..world.options.clone() };
    let provider = AzureProvider::new(options, Arc::new(TokioRuntime)).unwrap();
    assert!(!provider.accepts(&world.key));
    let (_, value) = wrapped();
    for error in [
        provider.describe(&world.key, &user()).await.unwrap_err(),
        provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
    }
    assert!(world.vault.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_that_nobody_configured_is_not_trusted() {
    let world = World::new().await;
    let options = AzureOptions { extra_ca_pem: Vec::new(), attempts: 1, ..world.options.clone() };
    let provider = AzureProvider::new(options, Arc::new(TokioRuntime)).unwrap();
    let error = provider.describe(&world.key, &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(world.vault.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let world = World::with(|options| {
        options.attempts = 1;
        let here = options.extra_hosts[0].replace("localhost", "ip6-localhost");
        options.extra_hosts.push(here.replace("ip6-localhost", "127.0.0.2"));
    })
    .await;
    let key = KeyId::key_vault(&world.key.host().replace("localhost", "127.0.0.2"), "k", None).unwrap();
    assert!(world.provider.accepts(&key));
    let error = world.provider.describe(&key, &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
}

#[test]
fn odd_options_are_refused_with_the_fix() {
    let build =
        |options| AzureProvider::new(options, Arc::new(TokioRuntime)).map(drop).unwrap_err().to_string();
    let host =
        build(AzureOptions { extra_hosts: vec!["https://localhost/".into()], ..AzureOptions::default() });
    assert!(host.contains("HOST:PORT"), "{host}");
    for pem in ["not a certificate", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"] {
        let pem = build(AzureOptions { extra_ca_pem: pem.into(), ..AzureOptions::default() });
        assert!(pem.contains("BEGIN CERTIFICATE") || pem.contains("HTTPS can't be set up"), "{pem}");
    }
}
