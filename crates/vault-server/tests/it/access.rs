//! Who may do what, from where, how often, and what is written down.

use std::time::Duration;

use bulla_kek::Identity;
use bulla_vault::{Bypass, NetworkAction, NetworkRules, Permission};
use bulla_vault_server::{ApiOptions, Fault, Faults, Throttle};
use reqwest::Method;
use serde_json::json;

use crate::support::{USER, World, answer, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_operation_asks_for_its_permission_at_every_request() {
    let world = World::with(ApiOptions::default(), false).await;
    world.aes_key("k");
    let wrapped = world.use_key("/keys/k/wrapkey", "A256KW", &[1; 32]).await.value();
    let value = data_encoding::BASE64URL_NOPAD.encode(&wrapped);
    let wrap = || Some(json!({ "alg": "A256KW", "value": "AAAAAAAAAAAAAAAAAAAAAA" }));
    let operations = [
        ("list", Method::GET, "/keys", None),
        ("list", Method::GET, "/keys/k/versions", None),
        ("get", Method::GET, "/keys/k", None),
        ("update", Method::PATCH, "/keys/k", Some(json!({}))),
        ("wrapKey", Method::POST, "/keys/k/wrapkey", wrap()),
        ("unwrapKey", Method::POST, "/keys/k/unwrapkey", Some(json!({ "alg": "A256KW", "value": value }))),
        ("encrypt", Method::POST, "/keys/k/encrypt", wrap()),
        ("decrypt", Method::POST, "/keys/k/decrypt", Some(json!({ "alg": "A256KW", "value": value }))),
        ("create", Method::POST, "/keys/l/create", Some(json!({ "kty": "oct" }))),
        ("import", Method::PUT, "/keys/m", Some(json!({ "key": { "kty": "oct", "k": "A".repeat(43) } }))),
        ("delete", Method::DELETE, "/keys/k", None),
        ("list", Method::GET, "/deletedkeys", None),
        ("get", Method::GET, "/deletedkeys/k", None),
        ("recover", Method::POST, "/deletedkeys/k/recover", None),
        ("delete", Method::DELETE, "/keys/k", None),
        ("purge", Method::DELETE, "/deletedkeys/k", None),
    ];
    for (permission, method, path, body) in operations {
        let all_but: Vec<Permission> = Permission::names()
            .iter()
            .filter(|name| ![permission, "all"].contains(name))
            .map(|name| name.parse().unwrap())
            .collect();
        world.vault.set_policy(&user(), &all_but).unwrap();
        let refused = world.ask(method.clone(), path, body.clone()).await;
        assert_eq!(refused.error(), (403, "Forbidden", "ForbiddenByPolicy"), "{method} {path}");
        world.vault.set_policy(&user(), &[permission.parse().unwrap()]).unwrap();
        let done = world.ask(method.clone(), path, body).await;
        assert!(done.status.is_success(), "{method} {path}: {done:?}");
    }
    let nobody = Identity::User("nobody".into());
    let unknown = world.ask_as(&nobody, Method::GET, "/keys/none", None).await;
    assert_eq!(unknown.error(), (403, "Forbidden", "ForbiddenByPolicy"), "who has no access learns nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_firewall_holds_from_the_next_request_on() {
    let world = World::new().await;
    world.aes_key("k");
    world.vault.set_policy(&Identity::System, &[Permission::GET]).unwrap();
    let rules = |allow: &[&str], bypass| {
        let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
        Some(NetworkRules::new(NetworkAction::Deny, allow, bypass))
    };
    let by = async |identity: &Identity| world.ask_as(identity, Method::GET, "/keys/k", None).await;

    world.vault.set_network_rules(rules(&["192.0.2.0/24"], Bypass::TrustedServices)).unwrap();
    assert_eq!(by(&user()).await.error(), (403, "Forbidden", "ForbiddenByFirewall"));
    by(&Identity::System).await.ok();
    world.vault.set_network_rules(rules(&["192.0.2.0/24"], Bypass::None)).unwrap();
    assert_eq!(by(&Identity::System).await.error(), (403, "Forbidden", "ForbiddenByFirewall"));
    world.vault.set_network_rules(rules(&["127.0.0.0/8"], Bypass::None)).unwrap();
    by(&user()).await.ok();
    world.vault.set_network_rules(None).unwrap();
    by(&user()).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn throttling_says_when_to_come_back_if_it_is_to() {
    for retry_after in [true, false] {
        let mut throttle = Throttle::new(2, Duration::from_secs(3600));
        throttle.retry_after = retry_after;
        let world = World::with(ApiOptions { throttle: Some(throttle), ..Default::default() }, true).await;
        world.get("/keys").await.ok();
        // Who proves to be nobody uses nothing up.
        world.client.get(format!("{}/keys?api-version=7.4", world.url)).send().await.unwrap();
        world.get("/keys").await.ok();
        let answer = world.get("/keys").await;
        assert_eq!(answer.error(), (429, "Throttled", ""));
        let after: Option<u64> = answer.retry_after.map(|seconds| seconds.parse().unwrap());
        assert_eq!(after.is_some_and(|seconds| (3590..=3600).contains(&seconds)), retry_after, "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn faults_happen_to_the_next_requests_with_a_token() {
    let faults = Faults::new();
    let world = World::with(ApiOptions { faults: faults.clone(), ..Default::default() }, true).await;
    faults.next(1, &Fault::throttled(Some(Duration::from_millis(1500))));
    faults.next(1, &Fault::inner(409, "Conflict", "ObjectIsBeingRecovered"));
    faults.next(1, &Fault::answer(503, "ServiceUnavailable"));
    world.client.get(format!("{}/keys?api-version=7.4", world.url)).send().await.unwrap();
    let first = world.get("/keys").await;
    assert_eq!((first.error().0, first.retry_after.as_deref()), (429, Some("2")));
    assert_eq!(world.get("/keys").await.error(), (409, "Conflict", "ObjectIsBeingRecovered"));
    assert_eq!(world.get("/keys").await.error().0, 503);
    world.get("/keys").await.ok();

    let url = format!("{}/keys/dropped/create?api-version=7.4", world.url);
    let send =
        || world.client.post(&url).bearer_auth(world.token(&user())).json(&json!({ "kty": "oct" })).send();
    faults.next(1, &Fault::Drop);
    assert!(send().await.is_err());
    assert_eq!(world.get("/keys/dropped").await.status, 404, "nothing happened");
    faults.next(1, &Fault::DropAnswer);
    assert!(send().await.is_err());
    world.get("/keys/dropped").await.ok();

    faults.always(Fault::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(200), world.get("/keys")).await;
    assert!(hanging.is_err());
    faults.clear();
    world.get("/keys").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_operation_is_written_down_without_a_secret() {
    let world = World::new().await;
    let version = world.rsa_key("k");
    let secret = [0x5a; 32];
    let wrapped = world.use_key("/keys/k/wrapkey", "RSA-OAEP-256", &secret).await.value();
    world.use_key("/keys/k/unwrapkey", "RSA-OAEP-256", &wrapped).await.value();
    world.vault.set_enabled("k", None, false).unwrap();
    world.use_key(&format!("/keys/k/{version}/unwrapkey"), "RSA-OAEP-256", &wrapped).await;
    let nobody = world.client.get(format!("{}/keys?api-version=7.4", world.url)).send().await.unwrap();
    answer(nobody).await;

    let lines = world.audit();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            [&line["operation"], &line["version"], &line["identity"], &line["status"], &line["outcome"]]
        })
        .map(|fields| json!(fields))
        .collect();
    assert_eq!(
        json!(seen),
        json!([
            ["wrapKey", version, USER, 200, "Success"],
            ["unwrapKey", version, USER, 200, "Success"],
            ["unwrapKey", version, USER, 403, "KeyDisabled"],
            ["list", null, null, 401, "Unauthorized"],
        ])
    );
    assert!(lines.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
    assert!(lines.iter().all(|line| line["durationMs"].is_f64() && line["time"].is_string()));
    let text = std::fs::read_to_string(world.api.audit_log()).unwrap();
    let encoded = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    for secret in [encoded(&secret), encoded(&wrapped), world.token(&user())] {
        assert!(!text.contains(&secret[..40]));
    }
}
