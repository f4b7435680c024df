//! Whatever is sent, the answer is an answer: no panic, no 500, nothing outside the vault's folder.

use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::{Method, Request};
use bulla_vault::{CreateVault, Passphrase, PassphraseCost, Permission, Vault};
use bulla_vault_server::{Api, ApiOptions, Audience};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tower::ServiceExt;

use crate::support::user;

/// Words that mean something somewhere, and some that mean nothing.
fn segment() -> impl Strategy<Value = String> {
    let known = [
        "",
        ".",
        "..",
        "%2e%2e",
        "%00",
        "keys",
        "KEYS",
        "deletedkeys",
        "k",
        "K",
        "create",
        "versions",
        "wrapkey",
        "unwrapkey",
        "encrypt",
        "decrypt",
        "recover",
        "rotate",
        "oauth2",
        "v2.0",
        "token",
        "msi",
    ];
    prop_oneof![
        6 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[!-~]{0,200}",
        1 => "[0-9a-f]{32}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let pair = (
        proptest::sample::select(vec!["api-version", "maxresults", "$skiptoken", "resource", "x", ""]),
        prop_oneof![Just("7.4".to_owned()), "[ -~]{0,40}"],
    );
    proptest::collection::vec(pair, 0..4)
        .prop_map(|pairs| url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        proptest::sample::select(vec![
            "oct", "oct-HSM", "A256KW", "RSA1_5", "RSA-OAEP", "AAAA", "wrapKey", "-"
        ])
        .prop_map(Into::into),
        "[A-Za-z0-9_=-]{0,60}".prop_map(Into::into),
    ];
    let field = proptest::sample::select(vec![
        "kty",
        "key",
        "key_size",
        "key_ops",
        "attributes",
        "tags",
        "alg",
        "value",
        "k",
        "n",
        "exp",
        "nbf",
        "enabled",
        "Hsm",
    ]);
    let json = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::hash_map(field.clone(), inner, 0..6).prop_map(|fields| {
                let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
                serde_json::Value::Object(fields.collect())
            }),
        ]
    });
    prop_oneof![
        4 => json.prop_map(|json| json.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

fn outside(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn any_request_has_an_answer_and_stays_in_the_folder() {
    let folder = tempfile::TempDir::new().unwrap();
    let create =
        CreateVault { cost: PassphraseCost::MINIMAL, ..CreateVault::new(Passphrase::new("open sesame")) };
    let vault = Vault::create(folder.path().join("vault"), create).unwrap();
    vault.set_policy(&user(), &[Permission::ALL]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let api = runtime.block_on(Api::new(vault, ApiOptions::default())).unwrap();
    let token = api.tokens().issue(&user(), &Audience::Vault, std::time::Duration::from_secs(600));

    let methods = proptest::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ]);
    let requests = (methods, proptest::collection::vec(segment(), 0..6), query(), body());
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    runner
        .run(&requests, |(method, segments, query, body)| {
            let uri = format!("/{}?{query}", segments.join("/"));
            let request = Request::builder()
                .method(&method)
                .uri(&uri)
                .header("host", "localhost")
                .header("authorization", format!("Bearer {}", *token))
                .body(Body::from(body));
            // What is no URI does not come through HTTP either.
            let Ok(request) = request else { return Ok(()) };
            let response = runtime.block_on(api.router().oneshot(request)).unwrap();
            let status = response.status().as_u16();
            prop_assert!(status < 500 || status == 501, "{method} {uri}: {status}");
            Ok(())
        })
        .unwrap();
    assert_eq!(outside(folder.path()), ["vault"]);
    assert_eq!(outside(&folder.path().join("vault")), ["audit.jsonl", "keys", "lock", "vault.json"]);
}
