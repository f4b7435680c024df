//! What can be done with keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_vault::AttributeChanges;
use reqwest::Method;
use serde_json::json;

use crate::support::World;
use bulla_vault_server::ApiOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn wraps_open_with_every_algorithm_and_on_both_surfaces_of_the_vault() {
    let world = World::new().await;
    let rsa = world.rsa_key("rsa");
    world.aes_key("aes");
    let secret = [7; 32];
    for (key, alg) in [("rsa", "RSA-OAEP-256"), ("rsa", "RSA-OAEP"), ("aes", "A256KW")] {
        let wrapped = world.use_key(&format!("/keys/{key}/wrapkey"), alg, &secret).await.value();
        assert_eq!(world.use_key(&format!("/keys/{key}/unwrapkey"), alg, &wrapped).await.value(), secret);
    }
    // Key Vault wraps whatever fits.
    for (key, alg, len) in [("rsa", "RSA-OAEP-256", 1), ("rsa", "RSA-OAEP", 214), ("aes", "A256KW", 64)] {
        let secret = vec![3; len];
        let wrapped = world.use_key(&format!("/keys/{key}/wrapkey"), alg, &secret).await.value();
        assert_eq!(world.use_key(&format!("/keys/{key}/unwrapkey"), alg, &wrapped).await.value(), secret);
    }
    let encrypted = world.use_key("/keys/rsa/encrypt", "RSA-OAEP-256", b"hello").await.value();
    assert_eq!(world.use_key("/keys/rsa/decrypt", "RSA-OAEP-256", &encrypted).await.value(), b"hello");

    // The answer names the version that was used, in the host's words.
    let answer = world.use_key("/KEYS/RSA/WrapKey", "RSA-OAEP-256", &secret).await.ok();
    assert_eq!(answer["kid"], format!("{}/keys/rsa/{rsa}", world.url));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_does_not_open_is_a_bad_parameter() {
    let world = World::new().await;
    world.rsa_key("rsa");
    world.aes_key("aes");
    let bad = (400, "BadParameter", "");
    let used = async |path: &str, alg: &str, value: &[u8]| world.use_key(path, alg, value).await;
    assert_eq!(used("/keys/rsa/unwrapkey", "RSA-OAEP-256", &[1; 256]).await.error(), bad, "no wrap");
    assert_eq!(used("/keys/aes/unwrapkey", "A256KW", &[1; 40]).await.error(), bad, "no wrap");
    assert_eq!(used("/keys/rsa/wrapkey", "RSA1_5", &[1; 32]).await.error(), bad, "refused everywhere");
    assert_eq!(used("/keys/rsa/wrapkey", "A256KW", &[1; 32]).await.error(), bad, "not for the key");
    assert_eq!(used("/keys/aes/wrapkey", "RSA-OAEP", &[1; 32]).await.error(), bad, "not for the key");
    assert_eq!(used("/keys/rsa/wrapkey", "RSA-OAEP-256", &[1; 191]).await.error(), bad, "too long");
    assert_eq!(used("/keys/aes/wrapkey", "A256KW", &[1; 33]).await.error(), bad, "not in steps of 8");
    let secret = json!({ "alg": "A256KW", "value": "c2VjcmV0!" });
    let answer = world.post("/keys/aes/wrapkey", secret).await;
    assert_eq!(answer.error(), bad);
    assert!(!answer.body.to_string().contains("c2VjcmV0"), "{answer:?}");
    assert_eq!(world.post("/keys/aes/wrapkey", json!({ "alg": "A256KW" })).await.error(), bad);
    assert_eq!(world.post("/keys/aes/wrapkey", json!("?")).await.error(), bad);
    assert_eq!(world.get("/keys/a_b").await.error(), bad, "no name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_are_made_shown_and_changed() {
    let world = World::new().await;
    let made = world
        .post(
            "/keys/K/create",
            json!({
                "kty": "RSA", "key_size": 2048, "key_ops": ["wrapKey", "unwrapKey"],
                "attributes": { "exp": 4_000_000_000_u64 }, "tags": { "team": "storage" },
            }),
        )
        .await
        .ok();
    let kid = made["key"]["kid"].as_str().unwrap().to_owned();
    assert!(kid.starts_with(&format!("{}/keys/K/", world.url)), "{kid}");
    assert_eq!(made["key"]["kty"], "RSA");
    assert_eq!(made["key"]["key_ops"], json!(["wrapKey", "unwrapKey"]));
    assert_eq!(made["key"]["n"].as_str().unwrap().len(), 342);
    assert_eq!(made["key"]["e"], "AQAB");
    assert_eq!(made["attributes"]["enabled"], true);
    assert_eq!(made["attributes"]["exp"], 4_000_000_000_u64);
    assert_eq!(made["attributes"]["recoveryLevel"], "Recoverable");
    assert_eq!(made["tags"], json!({ "team": "storage" }));

    let path = kid.strip_prefix(&world.url).unwrap();
    assert_eq!(world.get(path).await.ok(), made);
    assert_eq!(world.get("/Keys/k/").await.ok(), made, "the newest, in any case");

    let changed = world
        .ask(Method::PATCH, path, Some(json!({ "attributes": { "enabled": false }, "tags": {} })))
        .await
        .ok();
    assert_eq!(changed["attributes"]["enabled"], false);
    assert_eq!(changed["attributes"]["exp"], 4_000_000_000_u64, "what is not named stays");
    assert_eq!(changed.get("tags"), None);

    let hsm = world.post("/keys/H/create", json!({ "kty": "oct-HSM" })).await.ok();
    assert_eq!(hsm["key"]["kty"], "oct-HSM");
    assert_eq!(hsm["key"].get("k"), None, "nothing private is shown");
    assert!(world.use_key("/keys/H/wrapkey", "A256KW", &[1; 32]).await.status.is_success());

    for body in [
        json!({ "kty": "EC", "crv": "P-256" }),
        json!({ "kty": "RSA", "key_size": 1024 }),
        json!({ "kty": "RSA", "public_exponent": 3 }),
        json!({ "kty": "oct", "key_size": 128 }),
        json!({ "kty": "RSA", "key_ops": ["fly"] }),
        json!({ "kty": "RSA", "attributes": { "exportable": true } }),
        json!({ "kty": "RSA", "attributes": { "nbf": 2, "exp": 1 } }),
        json!({ "kty": "RSA", "attributes": { "exp": u64::MAX } }),
    ] {
        assert_eq!(
            world.post("/keys/X/create", body.clone()).await.error(),
            (400, "BadParameter", ""),
            "{body}"
        );
    }
    assert_eq!(world.get("/keys/X").await.error(), (404, "KeyNotFound", ""));
    assert_eq!(world.get("/keys/K/00000000000000000000000000000000").await.error(), (404, "KeyNotFound", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn imported_keys_open_what_was_wrapped_for_them() {
    let world = World::new().await;
    let aes = json!({ "key": { "kty": "oct", "k": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", "key_ops": ["wrapKey", "unwrapKey"] } });
    let imported = world.ask(Method::PUT, "/keys/aes", Some(aes)).await.ok();
    assert_eq!(imported["key"].get("k"), None);
    // RFC 3394 with a KEK of 32 bytes 0x01, by another implementation.
    let wrapped = bulla_envelope::keywrap::wrap_key(&[1; 32], &[2; 32]);
    assert_eq!(world.use_key("/keys/aes/unwrapkey", "A256KW", &wrapped).await.value(), [2; 32]);

    let short = json!({ "key": { "kty": "oct", "k": "AQEB" } });
    assert_eq!(world.ask(Method::PUT, "/keys/x", Some(short)).await.error(), (400, "BadParameter", ""));
    let public = json!({ "key": { "kty": "RSA", "n": "AQEB", "e": "AQAB" } });
    assert_eq!(world.ask(Method::PUT, "/keys/x", Some(public)).await.error(), (400, "BadParameter", ""));
    let odd = json!({ "key": { "kty": "RSA", "n": "AQEB", "e": "AQAB", "d": "AQ", "p": "AQ", "q": "AQ" } });
    assert_eq!(world.ask(Method::PUT, "/keys/x", Some(odd)).await.error(), (400, "BadParameter", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disabled_key_wraps_as_the_service_does_but_does_not_unwrap() {
    let world = World::new().await;
    for (key, alg, wraps) in [("rsa", "RSA-OAEP-256", true), ("aes", "A256KW", false)] {
        if key == "rsa" {
            world.rsa_key(key)
        } else {
            world.aes_key(key)
        };
        let (wrap, unwrap) = (format!("/keys/{key}/wrapkey"), format!("/keys/{key}/unwrapkey"));
        let wrapped = world.use_key(&wrap, alg, &[1; 32]).await.value();
        world.vault.set_enabled(key, None, false).unwrap();
        let disabled = (403, "Forbidden", "KeyDisabled");
        assert_eq!(world.use_key(&unwrap, alg, &wrapped).await.error(), disabled);
        // The public half of an RSA key; an AES key has none.
        let again = world.use_key(&wrap, alg, &[1; 32]).await;
        assert_eq!(again.status.is_success(), wraps, "{again:?}");
        assert_eq!(world.get(&format!("/keys/{key}")).await.ok()["attributes"]["enabled"], false);
        world.vault.set_enabled(key, None, true).unwrap();
        assert_eq!(world.use_key(&unwrap, alg, &wrapped).await.value(), [1; 32]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn outside_its_validity_a_key_unwraps_and_does_not_wrap() {
    let world = World::new().await;
    world.aes_key("k");
    let wrapped = world.use_key("/keys/k/wrapkey", "A256KW", &[1; 32]).await.value();
    let (past, future) =
        (UNIX_EPOCH + Duration::from_secs(1000), SystemTime::now() + Duration::from_secs(3600));
    for (changes, inner) in [
        (AttributeChanges { expires: Some(Some(past)), ..Default::default() }, "KeyExpired"),
        (
            AttributeChanges { expires: Some(None), not_before: Some(Some(future)), ..Default::default() },
            "KeyNotYetValid",
        ),
    ] {
        world.vault.set_attributes("k", None, &changes).unwrap();
        let wrap = world.use_key("/keys/k/wrapkey", "A256KW", &[1; 32]).await;
        assert_eq!(wrap.error(), (403, "Forbidden", inner));
        assert_eq!(world.use_key("/keys/k/unwrapkey", "A256KW", &wrapped).await.value(), [1; 32]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_keys_own_operations_bind() {
    let world = World::new().await;
    world.aes_key("k");
    let changes = AttributeChanges { key_ops: Some(vec!["unwrapKey".into()]), ..Default::default() };
    world.vault.set_attributes("k", None, &changes).unwrap();
    let answer = world.use_key("/keys/k/wrapkey", "A256KW", &[1; 32]).await;
    assert_eq!(answer.error(), (403, "Forbidden", "KeyOperationForbidden"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_deleted_key_is_not_found_until_it_is_recovered() {
    let world = World::new().await;
    let version = world.aes_key("k");
    let wrapped = world.use_key("/keys/k/wrapkey", "A256KW", &[1; 32]).await.value();
    let gone = (404, "KeyNotFound", "");
    assert_eq!(world.get("/deletedkeys/k").await.error(), gone);
    assert_eq!(world.post("/deletedkeys/k/recover", json!({})).await.error(), gone);

    let deleted = world.ask(Method::DELETE, "/keys/K", None).await.ok();
    assert_eq!(deleted["recoveryId"], format!("{}/deletedkeys/k", world.url));
    assert_eq!(deleted["key"]["kid"], format!("{}/keys/k/{version}", world.url));
    assert!(deleted["deletedDate"].is_u64());
    assert_eq!(world.get("/deletedkeys/k").await.ok(), deleted);
    assert_eq!(world.get("/deletedkeys").await.ok()["value"][0]["recoveryId"], deleted["recoveryId"]);
    assert_eq!(world.get("/keys").await.ok()["value"], json!([]));

    for path in ["/keys/k", "/keys/k/versions", &format!("/keys/k/{version}")] {
        assert_eq!(world.get(path).await.error(), gone, "{path}");
    }
    assert_eq!(world.ask(Method::DELETE, "/keys/k", None).await.error(), gone);
    assert_eq!(world.ask(Method::PATCH, "/keys/k", Some(json!({}))).await.error(), gone);
    assert_eq!(world.use_key("/keys/k/unwrapkey", "A256KW", &wrapped).await.error(), gone);
    let taken = world.post("/keys/k/create", json!({ "kty": "oct" })).await;
    assert_eq!(taken.error(), (409, "Conflict", "ObjectIsDeletedButRecoverable"));
    let purge = world.ask(Method::DELETE, "/deletedkeys/k", None).await;
    assert_eq!(purge.status, 403, "purge protection: {purge:?}");

    world.post("/deletedkeys/k/recover", json!({})).await.ok();
    assert_eq!(world.use_key("/keys/k/unwrapkey", "A256KW", &wrapped).await.value(), [1; 32]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_purge_protection_a_deleted_key_can_be_purged() {
    let world = World::with(ApiOptions::default(), false).await;
    world.aes_key("k");
    assert_eq!(world.get("/keys/k").await.ok()["attributes"]["recoveryLevel"], "Recoverable+Purgeable");
    assert_eq!(world.ask(Method::DELETE, "/deletedkeys/k", None).await.error(), (404, "KeyNotFound", ""));
    world.ask(Method::DELETE, "/keys/k", None).await.ok();
    assert_eq!(world.ask(Method::DELETE, "/deletedkeys/k", None).await.status, 204);
    assert_eq!(world.get("/deletedkeys/k").await.error(), (404, "KeyNotFound", ""));
    world.post("/keys/k/create", json!({ "kty": "oct" })).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn listings_come_in_pages() {
    let world = World::new().await;
    for number in 0..7 {
        world.aes_key(&format!("k{number}"));
    }
    let versions: Vec<String> = (0..3).map(|_| world.aes_key("k0")).collect();
    let mut seen = Vec::new();
    let mut next = Some(format!("{}/keys?maxresults=3&api-version=7.4", world.url));
    let mut pages = 0;
    while let Some(url) = next {
        let request = world.client.get(url).bearer_auth(world.token(&crate::support::user()));
        let page = crate::support::answer(request.send().await.unwrap()).await.ok();
        seen.extend(
            page["value"].as_array().unwrap().iter().map(|item| item["kid"].as_str().unwrap().to_owned()),
        );
        next = page["nextLink"].as_str().map(str::to_owned);
        pages += 1;
    }
    let expected: Vec<String> = (0..7).map(|number| format!("{}/keys/k{number}", world.url)).collect();
    assert_eq!((seen, pages), (expected, 3));
    let listed = world.get("/keys/k0/versions").await.ok();
    let listed = listed["value"].to_string();
    assert!(versions.iter().all(|version| listed.contains(version)), "{listed}");
    assert_eq!(world.get("/keys?maxresults=100").await.error(), (400, "BadParameter", ""));
}
