//! A key vault over HTTPS that does what it is told: an RSA key, challenges, and answers that no real vault gives on demand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use azure_core::credentials::{AccessToken, Secret as Token, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use bulla_envelope::crypto::{CryptoProvider, RsaPrivateKey};
use bulla_envelope::secret::Secret;
use bulla_kek::{Identity, KekError, KeyId, SystemRandom, TokioRuntime, WrapAlgorithm, async_trait};
use bulla_kek_azure::{AzureOptions, AzureProvider, CredentialSource, Credentials};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the vault accepts; looks like a token, so that a search for tokens finds it.
pub(crate) const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL3ZhdWx0LmF6dXJlLm5ldCIsImV4cCI6MH0.c2lnbmF0dXJl";
pub(crate) const VERSION: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const USER: &str = "registry";

/// A request that arrived with a token.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `GET /keys/k`, `POST /keys/k/VERSION/unwrapkey`
    pub(crate) line: String,
    pub(crate) query: String,
    pub(crate) body: String,
}

/// What the vault answers instead of what is true.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, headers, body.
    Http(u16, Vec<(&'static str, String)>, String),
    /// Nothing, for ever.
    Hang,
    /// The connection ends.
    Drop,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl ToString) -> Self {
        Self::Http(status, vec![("content-type", "application/json; charset=utf-8".into())], body.to_string())
    }

    /// Key Vault's error body; `codes` from the outermost to the innermost.
    pub(crate) fn error(status: u16, codes: &[&str], message: &str) -> Self {
        let mut inner = serde_json::Value::Null;
        for code in codes[1..].iter().rev() {
            inner = serde_json::json!({ "code": code, "innererror": inner });
        }
        let error = serde_json::json!({ "code": codes[0], "message": message, "innererror": inner });
        Self::json(status, serde_json::json!({ "error": error }))
    }
}

#[derive(Debug)]
pub(crate) struct State {
    addr: Mutex<Option<SocketAddr>>,
    /// Answers given instead, first come, first served.
    script: Mutex<VecDeque<Reply>>,
    /// The answer to everything that the script has none for.
    always: Mutex<Option<Reply>>,
    seen: Mutex<Vec<Seen>>,
    pub(crate) tokens: AtomicU32,
    pub(crate) attributes: Mutex<serde_json::Value>,
    pub(crate) kty: Mutex<&'static str>,
    pub(crate) deleted: Mutex<bool>,
    /// Requests are answered this much later.
    pub(crate) latency: Mutex<Duration>,
    /// The private key; another's in a description if `impostor`.
    pub(crate) impostor: Mutex<bool>,
}

/// A vault, a provider that may ask it, and its certificate.
pub(crate) struct World {
    pub(crate) vault: Arc<State>,
    pub(crate) provider: AzureProvider,
    pub(crate) options: AzureOptions,
    /// Without a version.
    pub(crate) key: KeyId,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other options than the tests' own.
    pub(crate) async fn with(change: impl FnOnce(&mut AzureOptions)) -> Self {
        let vault = Arc::new(State {
            addr: Mutex::default(),
            script: Mutex::default(),
            always: Mutex::default(),
            seen: Mutex::default(),
            tokens: AtomicU32::new(0),
            attributes: Mutex::new(serde_json::json!({
                "enabled": true, "created": 1_700_000_000, "updated": 1_700_000_000,
                "recoveryLevel": "Recoverable", "recoverableDays": 90,
            })),
            kty: Mutex::new("RSA"),
            deleted: Mutex::new(false),
            latency: Mutex::new(Duration::ZERO),
            impostor: Mutex::new(false),
        });
        let ca = start(&vault).await;
        let host = format!("localhost:{}", vault.addr().port());
        let mut options = AzureOptions {
            credentials: Credentials::Custom(Arc::new(Tokens { vault: Arc::clone(&vault), token: TOKEN })),
            extra_hosts: vec![host.clone()],
            extra_ca_pem: ca.into_bytes(),
            request_timeout: Duration::from_secs(2),
            ..AzureOptions::default()
        };
        change(&mut options);
        let provider = AzureProvider::new(options.clone(), Arc::new(TokioRuntime)).unwrap();
        let key = KeyId::key_vault(&host, "registry-key", None).unwrap();
        Self { vault, provider, options, key }
    }

    pub(crate) fn versioned(&self) -> KeyId {
        self.key.with_version(VERSION).unwrap()
    }
}

pub(crate) fn user() -> Identity {
    Identity::User(USER.into())
}

/// A secret, wrapped as whoever has the public key would.
pub(crate) fn wrapped() -> (Secret<32>, Vec<u8>) {
    let secret = Secret::random(&SystemRandom);
    let rsa = CryptoProvider::best().rsa;
    let value = rsa.wrap(private_key().public_key(), secret.expose(), &SystemRandom).unwrap();
    (secret, value)
}

pub(crate) const RSA: WrapAlgorithm = WrapAlgorithm::RsaOaep256;
pub(crate) const AES: WrapAlgorithm = WrapAlgorithm::A256Kw;

/// The vault's key, made once.
pub(crate) fn private_key() -> &'static dyn RsaPrivateKey {
    static KEY: OnceLock<Box<dyn RsaPrivateKey>> = OnceLock::new();
    &**KEY.get_or_init(new_key)
}

fn impostor_key() -> &'static dyn RsaPrivateKey {
    static KEY: OnceLock<Box<dyn RsaPrivateKey>> = OnceLock::new();
    &**KEY.get_or_init(new_key)
}

fn new_key() -> Box<dyn RsaPrivateKey> {
    let rsa = CryptoProvider::best().rsa;
    rsa.private_key(&rsa.generate(2048, &SystemRandom).unwrap()).unwrap()
}

/// Gives one token to everybody, and counts.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) vault: Arc<State>,
    pub(crate) token: &'static str,
}

impl CredentialSource for Tokens {
    fn credential(&self, _: &Identity) -> Result<Arc<dyn TokenCredential>, KekError> {
        Ok(Arc::new(Self { vault: Arc::clone(&self.vault), token: self.token }))
    }
}

#[async_trait]
impl TokenCredential for Tokens {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        self.vault.tokens.fetch_add(1, Ordering::SeqCst);
        Ok(AccessToken::new(Token::new(self.token), OffsetDateTime::now_utc() + Duration::from_secs(3600)))
    }
}

impl State {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr.lock().unwrap().unwrap()
    }

    /// Answers the next request with this.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    /// Answers every request with this.
    pub(crate) fn always(&self, reply: impl Into<Option<Reply>>) {
        *self.always.lock().unwrap() = reply.into();
    }

    /// What was asked so far; forgotten then.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The first lines of [`seen`](Self::seen).
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    fn answer(&self, seen: &Seen, host: &str) -> Reply {
        if let Some(reply) = self.script.lock().unwrap().pop_front() {
            return reply;
        }
        if let Some(reply) = self.always.lock().unwrap().clone() {
            return reply;
        }
        let (method, path) = seen.line.split_once(' ').unwrap();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let kid = |name: &str, version: &str| format!("https://{host}/keys/{name}/{version}");
        let deleted = *self.deleted.lock().unwrap();
        match (method, parts.as_slice()) {
            ("GET", ["deletedkeys", name]) if deleted => Reply::json(
                200,
                serde_json::json!({ "recoveryId": format!("https://{host}/deletedkeys/{name}"),
                                    "key": { "kid": kid(name, VERSION) } }),
            ),
            ("GET", ["keys", name]) if !deleted => self.described(&kid(name, VERSION)),
            ("GET", ["keys", name, version]) if !deleted && *version == VERSION => {
                self.described(&kid(name, version))
            }
            ("POST", ["keys", name, version, "unwrapkey"]) if !deleted && *version == VERSION => {
                let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
                let value = BASE64URL_NOPAD.decode(body["value"].as_str().unwrap().as_bytes()).unwrap();
                match private_key().unwrap(&value, &SystemRandom) {
                    Ok(secret) if body["alg"] == "RSA-OAEP-256" => Reply::json(
                        200,
                        serde_json::json!({ "kid": kid(name, version), "value": BASE64URL_NOPAD.encode(&secret) }),
                    ),
                    _ => Reply::error(400, &["BadParameter"], "The parameter is incorrect."),
                }
            }
            _ => Reply::error(
                404,
                &["KeyNotFound"],
                "A key with (name/id) was not found in this key vault. If you recently deleted this key you may be able to \
                 recover it using the correct recovery command.",
            ),
        }
    }

    fn described(&self, kid: &str) -> Reply {
        let public = if *self.impostor.lock().unwrap() { impostor_key() } else { private_key() }.public_key();
        let mut key = serde_json::json!({
            "kid": kid, "kty": *self.kty.lock().unwrap(), "key_ops": ["wrapKey", "unwrapKey"],
            "n": BASE64URL_NOPAD.encode(public.n()), "e": BASE64URL_NOPAD.encode(public.e()),
        });
        if key["kty"].as_str().unwrap().starts_with("oct") {
            key.as_object_mut().unwrap().retain(|name, _| name != "n" && name != "e");
        }
        Reply::json(200, serde_json::json!({ "key": key, "attributes": *self.attributes.lock().unwrap() }))
    }
}

/// Listens on a port of its own; the certificate to trust.
async fn start(vault: &Arc<State>) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *vault.addr.lock().unwrap() = Some(listener.local_addr().unwrap());
    let vault = Arc::clone(vault);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (vault, acceptor) = (Arc::clone(&vault), acceptor.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request| serve(Arc::clone(&vault), request));
                // A connection that the client or the script ends.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    cert.pem()
}

async fn serve(
    vault: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let host = format!("localhost:{}", vault.addr().port());
    let authorized =
        request.headers().get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
    let line = format!("{} {}", request.method(), request.uri().path());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    if !authorized {
        let challenge =
            format!("Bearer authorization=\"https://login.test/tenant\", resource=\"https://{host}\"");
        let body = r#"{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer or PoP token."}}"#;
        return Ok(response(401, &[("www-authenticate", challenge)], body.to_owned()));
    }
    let seen = Seen { line, query, body };
    vault.seen.lock().unwrap().push(seen.clone());
    let latency = *vault.latency.lock().unwrap();
    tokio::time::sleep(latency).await;
    match vault.answer(&seen, &host) {
        Reply::Http(status, headers, body) => Ok(response(status, &headers, body)),
        Reply::Hang => std::future::pending::<Result<_, Infallible>>().await.map_err(|never| match never {}),
        Reply::Drop => Err(std::io::Error::other("told to")),
    }
}

fn response(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Full::new(Bytes::from(body))).unwrap()
}
