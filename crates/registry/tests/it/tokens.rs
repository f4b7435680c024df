//! Bearers of tokens, which a token server signed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bulla_registry::access::{Bearer, BearerOptions};
use bulla_registry::server::ServerOptions;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::served::{Served, World, client, guarded, until};

/// A token server's key.
struct Signer {
    key: KeyPair,
    algorithm: Algorithm,
}

impl Signer {
    fn new(algorithm: Algorithm) -> Self {
        let of = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        Self { key: KeyPair::generate_for(of).unwrap(), algorithm }
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&Header::new(self.algorithm), claims)
    }

    fn sign_as(&self, header: &Header, claims: &Value) -> String {
        let der = self.key.serialize_der();
        let key = match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&der),
            Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
            // What is inside PKCS #8 for RSA, behind a header of 26 bytes.
            _ => EncodingKey::from_rsa_der(&der[26..]),
        };
        encode(header, claims, &key).unwrap()
    }

    fn public_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// Of a P-256 key.
    fn jwk(&self, id: &str) -> Value {
        let point = self.key.der_bytes();
        let part = |range| BASE64URL_NOPAD.encode(&point[range]);
        json!({ "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": part(1..33), "y": part(33..65) })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Good for five minutes, with these grants.
fn claims(access: Value) -> Value {
    json!({ "iss": "auth.example", "aud": "registry.example", "sub": "alice", "iat": now(), "nbf": now(),
            "exp": now() + 300, "access": access })
}

fn repository(name: &str, actions: &[&str]) -> Value {
    json!({ "type": "repository", "name": name, "actions": actions })
}

struct Asked {
    _world: World,
    _folder: TempDir,
    served: Served,
    client: Client,
    keys: PathBuf,
}

impl Asked {
    async fn new(keys: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("keys");
        fs::write(&file, keys).unwrap();
        let options = BearerOptions {
            keys: file.clone(),
            issuer: "auth.example".to_owned(),
            service: "registry.example".to_owned(),
            realm: "https://auth.example/token".to_owned(),
        };
        let access = Arc::new(Bearer::load(options).await.unwrap());
        let world = World::new().await;
        let served = Served::start(&*access, ServerOptions::default()).await;
        served.service.open(world.store.clone(), guarded(access));
        Self { _world: world, _folder: folder, served, client: client(), keys: file }
    }

    /// The status, and the challenge.
    async fn ask(&self, method: Method, path: &str, token: Option<&str>) -> (u16, String) {
        let mut request = self.client.request(method, format!("{}/v2/{path}", self.served.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let challenge = response.headers().get("www-authenticate");
        let challenge = challenge.map_or("", |challenge| challenge.to_str().unwrap()).to_owned();
        (response.status().as_u16(), challenge)
    }

    /// Whether a token may log in.
    async fn holds(&self, token: &str) -> bool {
        let (status, challenge) = self.ask(Method::GET, "", Some(token)).await;
        if status == 200 {
            return true;
        }
        assert!(status == 401 && challenge.contains("invalid_token"), "{status} {challenge}");
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_allows_what_it_says_and_the_challenge_says_what_is_missing() {
    let signer = Signer::new(Algorithm::ES256);
    let asked = Asked::new(&signer.public_pem()).await;
    let requests = [
        (Method::GET, "a/b/manifests/x", r#"scope="repository:a/b:pull""#),
        (Method::PUT, "a/b/manifests/x", r#"scope="repository:a/b:pull,push""#),
        (Method::DELETE, "a/b/manifests/x", r#"scope="repository:a/b:delete""#),
        (Method::GET, "_catalog", r#"scope="registry:catalog:*""#),
        (Method::POST, "a/b/blobs/uploads/?from=c", r#"scope="repository:a/b:pull,push repository:c:pull""#),
    ];
    for (grants, allowed) in [
        (json!([]), [false, false, false, false, false]),
        (json!(null), [false, false, false, false, false]),
        (json!([repository("a/b", &["pull"])]), [true, false, false, false, false]),
        (json!([repository("a/b", &["push"])]), [false, true, false, false, true]),
        (json!([repository("a/b", &["pull", "push"])]), [true, true, false, false, true]),
        (json!([repository("a/b", &["delete"])]), [false, false, true, false, false]),
        (json!([repository("a/b", &["*"])]), [true, true, true, false, true]),
        (json!([repository("a/b", &[])]), [false, false, false, false, false]),
        (json!([repository("a", &["*"]), repository("a/b/c", &["*"])]), [false, false, false, false, false]),
        (
            json!([{ "type": "registry", "name": "catalog", "actions": ["*"] }]),
            [false, false, false, true, false],
        ),
        (
            json!([{ "type": "registry", "name": "catalog", "actions": ["pull"] }]),
            [false, false, false, false, false],
        ),
        (
            json!([{ "type": "repository", "name": "catalog", "actions": ["*"] }]),
            [false, false, false, false, false],
        ),
        (
            json!([{ "type": "registry", "name": "a/b", "actions": ["*"] }]),
            [false, false, false, false, false],
        ),
    ] {
        let token = signer.sign(&claims(grants.clone()));
        assert!(asked.holds(&token).await, "{grants}");
        for ((method, path, scope), allowed) in requests.iter().zip(allowed) {
            let (status, challenge) = asked.ask(method.clone(), path, Some(&token)).await;
            assert_eq!(status, if allowed { 200 } else { 401 }, "{grants}: {method} {path}");
            if !allowed {
                let start = r#"Bearer realm="https://auth.example/token",service="registry.example","#;
                assert!(challenge.starts_with(start), "{challenge}");
                assert!(challenge.contains(scope) && challenge.contains("insufficient_scope"), "{challenge}");
            }
        }
    }
    let (status, challenge) = asked.ask(Method::GET, "a/b/manifests/x", None).await;
    assert_eq!((status, challenge.contains("error")), (401, false), "{challenge}");
    let (status, challenge) = asked.ask(Method::GET, "", None).await;
    assert_eq!((status, challenge.contains("scope")), (401, false), "{challenge}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_of_another_time_issuer_audience_or_key_are_nothing() {
    let signer = Signer::new(Algorithm::ES256);
    let asked = Asked::new(&signer.public_pem()).await;
    let with = |name: &str, value: Value| {
        let mut claims = claims(json!([]));
        claims[name] = value;
        signer.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims(json!([]));
        claims.as_object_mut().unwrap().remove(name);
        signer.sign(&claims)
    };
    assert!(asked.holds(&with("aud", json!(["other", "registry.example"]))).await);
    // Clocks differ by up to a minute.
    assert!(asked.holds(&with("exp", json!(now() - 30))).await);
    assert!(asked.holds(&with("nbf", json!(now() + 30))).await);
    for (token, why) in [
        (with("exp", json!(now() - 90)), "expired"),
        (with("nbf", json!(now() + 90)), "not yet"),
        (with("iss", json!("elsewhere")), "issuer"),
        (with("aud", json!("elsewhere")), "audience"),
        (with("aud", json!(["elsewhere"])), "audiences"),
        (with("exp", json!("tomorrow")), "no time"),
        (with("access", json!("everything")), "no list"),
        (without("exp"), "for ever"),
        (without("iss"), "nobody's"),
        (without("aud"), "for nobody"),
        (Signer::new(Algorithm::ES256).sign(&claims(json!([]))), "another key"),
    ] {
        assert!(!asked.holds(&token).await, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_key_decides_the_algorithm() {
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256] {
        let signer = Signer::new(algorithm);
        let asked = Asked::new(&signer.public_pem()).await;
        let claims = claims(json!([]));
        let good = signer.sign(&claims);
        assert!(asked.holds(&good).await, "{algorithm:?}");

        // None, and what a public key makes when it is taken for a secret.
        let (_, rest) = good.split_once('.').unwrap();
        let (body, signature) = rest.rsplit_once('.').unwrap();
        for (alg, signature) in
            [("none", ""), ("None", ""), ("none", signature), ("RS512", signature), ("", signature)]
        {
            let header = BASE64URL_NOPAD.encode(json!({ "typ": "JWT", "alg": alg }).to_string().as_bytes());
            assert!(!asked.holds(&format!("{header}.{body}.{signature}")).await, "{alg}");
        }
        for secret in [signer.public_pem().into_bytes(), signer.key.der_bytes().to_vec()] {
            let forged = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&secret));
            assert!(!asked.holds(&forged.unwrap()).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_that_is_sent_as_a_token_is_anybody_or_a_panic() {
    let signer = Signer::new(Algorithm::ES256);
    let asked = Asked::new(&signer.public_pem()).await;
    let good = signer.sign(&claims(json!([])));
    for at in (0..good.len()).step_by(7) {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(!asked.holds(std::str::from_utf8(&changed).unwrap()).await, "at {at}");
        assert!(!asked.holds(&good[..=at]).await, "up to {at}");
    }
    for odd in [".", "..", "...", "a.b.c", "e30.e30.", "e30.e30.e30", "=.=.=", &"a.".repeat(9000)] {
        assert!(!asked.holds(odd).await, "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_in_a_set_are_found_by_id_and_change_without_a_restart() {
    let (old, new) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let asked = Asked::new(&json!({ "keys": [old.jwk("old")] }).to_string()).await;
    let named = |id: Option<&str>| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = id.map(str::to_owned);
        header
    };
    let claims = claims(json!([]));
    let (by_old, by_new) =
        (old.sign_as(&named(Some("old")), &claims), new.sign_as(&named(Some("new")), &claims));
    assert!(asked.holds(&by_old).await && asked.holds(&old.sign_as(&named(None), &claims)).await);
    assert!(!asked.holds(&old.sign_as(&named(Some("other")), &claims)).await);
    assert!(!asked.holds(&by_new).await && !asked.holds(&new.sign_as(&named(Some("old")), &claims)).await);
    fs::write(&asked.keys, json!({ "keys": [old.jwk("old"), new.jwk("new")] }).to_string()).unwrap();
    until(async || asked.holds(&by_new).await).await;
    assert!(asked.holds(&by_old).await);
    fs::write(&asked.keys, json!({ "keys": [new.jwk("new")] }).to_string()).unwrap();
    until(async || !asked.holds(&by_old).await).await;
    assert!(asked.holds(&by_new).await);
}

#[tokio::test]
async fn files_without_public_keys_say_what_to_do() {
    let folder = TempDir::new().unwrap();
    let signer = Signer::new(Algorithm::ES256);
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    let encrypting = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "use": "enc", "x": "AA", "y": "AA" }] });
    for (text, realm, why) in [
        (signer.key.serialize_pem(), "https://a/token", "openssl pkey"),
        (secret, "https://a/token", "secret key"),
        (encrypting.to_string(), "https://a/token", "no key"),
        ("{}".to_owned(), "https://a/token", "JWK"),
        (String::new(), "https://a/token", "PUBLIC KEY"),
        (signer.public_pem(), "auth.example", "URL"),
        (signer.public_pem(), "https://a/\"token", "quotes"),
    ] {
        let keys = folder.path().join("keys");
        fs::write(&keys, text).unwrap();
        let options = BearerOptions { keys, issuer: "i".into(), service: "s".into(), realm: realm.into() };
        let error = Bearer::load(options).await.unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("c2VjcmV0"), "{why}: {error}");
    }
}
