//! Every answer of a key vault, by its wire body, and what becomes of it.

use std::time::Duration;

use bulla_kek::{DenyReason, KekError, KekErrorKind, KekProvider};

use crate::support::{RSA, Reply, World, user, wrapped};

/// The outcome of an unwrap that the vault answers with this, every time it is asked.
async fn unwrap(world: &World, reply: Reply) -> KekError {
    world.vault.always(reply);
    let (_, value) = wrapped();
    let result = world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await;
    world.vault.always(None);
    result.expect_err("the answer is an error")
}

async fn unwrap_becomes(reply: Reply, kind: KekErrorKind) -> KekError {
    let world = World::new().await;
    let error = unwrap(&world, reply.clone()).await;
    assert_eq!(error.kind(), kind, "{reply:?}: {error}");
    // Both unwrap and describe are asked at a renewal, and must agree.
    world.vault.always(reply.clone());
    let described = world.provider.describe(&world.versioned(), &user()).await.unwrap_err();
    assert_eq!(described.kind(), kind, "{reply:?}: {described}");
    error
}

async fn denies(reply: Reply, reason: DenyReason) -> String {
    let error = unwrap_becomes(reply, KekErrorKind::Denied(reason)).await;
    let text = error.to_string();
    assert!(text.starts_with(&reason.to_string()), "{text}");
    text
}

#[tokio::test]
async fn forbidden_by_policy() {
    let body = r#"{"error":{"code":"Forbidden","message":"The user, group or application 'appid=a;oid=o' does not have keys unwrapKey permission on key vault 'contoso;location=eastus'.","innererror":{"code":"ForbiddenByPolicy"}}}"#;
    let text = denies(Reply::json(403, body), DenyReason::Forbidden).await;
    assert!(text.contains("does not have keys unwrapKey permission"), "{text}");
    assert!(text.contains("403 Forbidden/ForbiddenByPolicy"), "{text}");
}

#[tokio::test]
async fn forbidden_by_rbac() {
    let body = r#"{"error":{"code":"Forbidden","message":"Caller is not authorized to perform action on resource.\r\nAction: 'Microsoft.KeyVault/vaults/keys/unwrap/action'","innererror":{"code":"ForbiddenByRbac"}}}"#;
    let text = denies(Reply::json(403, body), DenyReason::Forbidden).await;
    assert!(!text.contains(['\r', '\n']), "{text}");
}

#[tokio::test]
async fn forbidden_by_firewall() {
    let body = r#"{"error":{"code":"Forbidden","message":"Client address is not authorized and caller is not a trusted service.\r\nClient address: 203.0.113.7","innererror":{"code":"ForbiddenByFirewall"}}}"#;
    denies(Reply::json(403, body), DenyReason::Firewall).await;
}

#[tokio::test]
async fn forbidden_because_public_access_is_off() {
    let codes = ["Forbidden", "ForbiddenByConnection"];
    denies(Reply::error(403, &codes, "Public network access is disabled"), DenyReason::Firewall).await;
}

#[tokio::test]
async fn key_operation_forbidden() {
    let body = r#"{"error":{"code":"Forbidden","message":"Operation unwrapKey is not permitted on this key.","innererror":{"code":"KeyOperationForbidden"}}}"#;
    denies(Reply::json(403, body), DenyReason::OperationNotPermitted).await;
}

#[tokio::test]
async fn key_disabled_in_every_spelling() {
    for body in [
        r#"{"error":{"code":"Forbidden","message":"Operation unwrapKey is not allowed on a disabled key.","innererror":{"code":"KeyDisabled"}}}"#,
        r#"{"error":{"code":"Forbidden","message":"Operation unwrapKey is not allowed on a disabled key.","innerError":{"code":"KeyDisabled"}}}"#,
        r#"{"error":{"code":"KeyDisabled","message":"Operation unwrapKey is not allowed on a disabled key."}}"#,
        r#"{"error":{"code":"Forbidden","message":"","innererror":{"code":"Forbidden","innerError":{"code":"keydisabled"}}}}"#,
    ] {
        denies(Reply::json(403, body), DenyReason::Disabled).await;
    }
}

#[tokio::test]
async fn key_expired_and_not_yet_valid() {
    let expired = "Operation wrapKey is not allowed on an expired key.";
    denies(Reply::error(403, &["Forbidden", "KeyExpired"], expired), DenyReason::Expired).await;
    denies(Reply::error(403, &["Forbidden", "KeyNotYetValid"], ""), DenyReason::NotYetValid).await;
}

#[tokio::test]
async fn a_403_that_nobody_knows_fails_closed() {
    for reply in [
        Reply::error(403, &["Forbidden", "SomethingNew"], "new"),
        Reply::error(403, &["AccessDenied"], "old"),
        Reply::json(403, "<html>no</html>"),
        Reply::json(403, ""),
        Reply::json(403, r#"{"error":{"code":7,"innererror":[]}}"#),
    ] {
        denies(reply, DenyReason::Forbidden).await;
    }
}

#[tokio::test]
async fn a_token_that_is_refused_twice_is_an_unknown_identity() {
    let world = World::new().await;
    let body = r#"{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer."}}"#;
    let challenge =
        format!("Bearer authorization=\"https://login.test/t\", resource=\"https://{}\"", world.key.host());
    let reply = Reply::Http(401, vec![("www-authenticate", challenge)], body.into());
    let error = unwrap(&world, reply).await;
    assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::IdentityUnknown), "{error}");
}

#[tokio::test]
async fn a_stale_token_is_replaced_before_it_counts_as_a_refusal() {
    let world = World::new().await;
    let (secret, value) = wrapped();
    let stale =
        || Reply::json(401, r#"{"error":{"code":"Unauthorized","message":"AKV10022: Invalid token."}}"#);
    world.provider.describe(&world.versioned(), &user()).await.unwrap();
    world.vault.script([stale()]);
    let back = world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap();
    assert!(back.ct_eq(&secret));
}

#[tokio::test]
async fn not_found() {
    let world = World::new().await;
    let other = world.key.with_version("ffffffffffffffffffffffffffffffff").unwrap();
    let error = world.provider.describe(&other, &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::NotFound), "{error}");
    assert_eq!(
        world.vault.lines(),
        ["GET /keys/registry-key/ffffffffffffffffffffffffffffffff", "GET /deletedkeys/registry-key"]
    );
}

#[tokio::test]
async fn not_found_because_it_is_deleted() {
    let world = World::new().await;
    *world.vault.deleted.lock().unwrap() = true;
    let (_, value) = wrapped();
    for error in [
        world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap_err(),
        world.provider.describe(&world.key, &user()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::Deleted), "{error}");
    }
}

#[tokio::test]
async fn whether_it_is_deleted_may_be_unknown() {
    let world = World::new().await;
    let missing = || Reply::error(404, &["KeyNotFound"], "not found");
    // No permission to look at deleted keys.
    world.vault.script([missing(), Reply::error(403, &["Forbidden", "ForbiddenByPolicy"], "no")]);
    let error = world.provider.describe(&world.key, &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::NotFound), "{error}");
    // An outage in between decides nothing: it is tried again.
    world.vault.script([missing(), Reply::json(503, "")]);
    world.provider.describe(&world.key, &user()).await.unwrap();
}

#[tokio::test]
async fn conflicts() {
    denies(Reply::error(409, &["Conflict", "ObjectIsDeletedButRecoverable"], "deleted"), DenyReason::Deleted)
        .await;
    denies(Reply::error(409, &["Conflict", "ObjectIsBeingDeleted"], "going"), DenyReason::Deleted).await;
    let recovering = Reply::error(409, &["Conflict", "ObjectIsBeingRecovered"], "coming back");
    unwrap_becomes(recovering, KekErrorKind::Unavailable).await;
    unwrap_becomes(Reply::error(409, &["Conflict"], "?"), KekErrorKind::Unavailable).await;
}

#[tokio::test]
async fn throttled_with_and_without_a_time() {
    let world = World::with(|options| options.attempts = 1).await;
    let body = r#"{"error":{"code":"Throttled","message":"Request was not processed because too many requests were received."}}"#;
    let error = unwrap(&world, Reply::json(429, body)).await;
    assert_eq!((error.kind(), error.retry_after()), (KekErrorKind::Throttled, None), "{error}");

    let reply = Reply::Http(429, vec![("retry-after", "17".into())], body.into());
    let error = unwrap(&world, reply).await;
    assert_eq!((error.kind(), error.retry_after()), (KekErrorKind::Throttled, Some(Duration::from_secs(17))));

    for (date, least) in [
        ("Fri, 31 Dec 9999 23:59:59 GMT", Duration::from_secs(1)),
        ("Sat, 01 Jan 2000 00:00:00 GMT", Duration::ZERO),
    ] {
        let error = unwrap(&world, Reply::Http(429, vec![("Retry-After", date.into())], body.into())).await;
        assert!(error.retry_after().is_some_and(|wait| wait >= least), "{date}: {:?}", error.retry_after());
    }
    let error = unwrap(&world, Reply::Http(429, vec![("Retry-After", "soon".into())], String::new())).await;
    assert_eq!((error.kind(), error.retry_after()), (KekErrorKind::Throttled, None));
}

#[tokio::test]
async fn server_errors_are_outages() {
    for status in [408, 500, 502, 503, 504, 599] {
        let world = World::with(|options| options.attempts = 1).await;
        let error = unwrap(&world, Reply::json(status, r#"{"error":{"code":"InternalServerError"}}"#)).await;
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_bad_parameter_is_a_bad_wrap_not_a_verdict() {
    let body = r#"{"error":{"code":"BadParameter","message":"The parameter is incorrect."}}"#;
    unwrap_becomes(Reply::json(400, body), KekErrorKind::Invalid).await;
}

#[tokio::test]
async fn what_is_not_a_key_vault_is_an_outage() {
    for reply in [
        Reply::json(400, "<html>Bad Request</html>"),
        Reply::json(404, "<html>Not Found</html>"),
        Reply::json(404, ""),
        Reply::json(402, r#"{"error":{"code":"PayFirst"}}"#),
        Reply::json(418, "teapot"),
        Reply::Http(302, vec![("location", "https://elsewhere.example/".into())], String::new()),
        Reply::Http(
            200,
            vec![("content-type", "text/html".into())],
            "<html>sign in to the network</html>".into(),
        ),
        Reply::json(200, ""),
        Reply::json(200, "[]"),
        Reply::json(200, r#"{"value":5}"#),
        Reply::json(200, format!(r#"{{"value":"{}"}}"#, "A".repeat(70_000))),
        Reply::json(200, "[".repeat(60_000)),
        Reply::json(204, ""),
        Reply::json(403, "x".repeat(70_000)),
    ] {
        unwrap_becomes(reply, KekErrorKind::Unavailable).await;
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let world = World::new().await;
    let elsewhere = World::new().await;
    let location = format!("https://localhost:{}/keys/k", elsewhere.vault.addr().port());
    let error = unwrap(&world, Reply::Http(307, vec![("location", location)], String::new())).await;
    assert!(error.to_string().contains("redirect"), "{error}");
    assert!(elsewhere.vault.seen().is_empty());
}

#[tokio::test]
async fn answers_about_another_key_are_none() {
    let world = World::new().await;
    let (_, value) = wrapped();
    let host = world.key.host();
    let good = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for kid in [
        format!("https://{host}/keys/other/0123456789abcdef0123456789abcdef"),
        format!("https://{host}/keys/registry-key/ffffffffffffffffffffffffffffffff"),
        format!("https://{host}/keys/registry-key"),
        "https://elsewhere.vault.azure.net/keys/registry-key/0123456789abcdef0123456789abcdef".into(),
        "0123456789abcdef0123456789abcdef".into(),
        String::new(),
    ] {
        world.vault.script([Reply::json(200, format!(r#"{{"kid":"{kid}","value":"{good}"}}"#))]);
        let error = world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{kid}: {error}");
        let key = format!(r#"{{"key":{{"kid":"{kid}","kty":"RSA"}},"attributes":{{"enabled":true}}}}"#);
        world.vault.script([Reply::json(200, key)]);
        let error = world.provider.describe(&world.versioned(), &user()).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{kid}: {error}");
    }
    // The same key by another spelling is the same key.
    let kid = world
        .versioned()
        .to_string()
        .replace("localhost", "LOCALHOST")
        .replace("registry-key", "Registry-Key");
    world.vault.script([Reply::json(200, format!(r#"{{"kid":"{kid}","value":"{good}"}}"#))]);
    world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap();
}

#[tokio::test]
async fn what_unwraps_to_another_length_is_invalid() {
    let world = World::new().await;
    let (_, value) = wrapped();
    for secret in ["", "AAAA", &"A".repeat(44)] {
        let answer = format!(r#"{{"kid":"{}","value":"{secret}"}}"#, world.versioned());
        world.vault.script([Reply::json(200, answer)]);
        let error = world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
    }
}
