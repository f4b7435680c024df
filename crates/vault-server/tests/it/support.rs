//! A vault behind a server on a port of its own, and a client that trusts it.

use std::fs;
use std::sync::Once;

use bulla_kek::{Identity, KeyKind};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault};
use bulla_vault_server::{Api, ApiOptions, Server, ServerOptions};
use data_encoding::BASE64URL_NOPAD;
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const USER: &str = "registry";

pub(crate) struct World {
    _folder: TempDir,
    pub(crate) vault: Vault,
    pub(crate) api: Api,
    pub(crate) url: String,
    pub(crate) identity: (String, String),
    pub(crate) client: Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) challenge: Option<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ApiOptions::default(), true).await
    }

    /// With an identity that may do everything.
    pub(crate) async fn with(options: ApiOptions, purge_protection: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let create = CreateVault {
            purge_protection,
            cost: PassphraseCost::MINIMAL,
            ..CreateVault::new(Passphrase::new("open sesame"))
        };
        let vault = Vault::create(folder.path().join("vault"), create).unwrap();
        vault.set_policy(&user(), &[Permission::ALL]).unwrap();
        let api = Api::new(vault.clone(), options).await.unwrap();
        let server = Server::bind(api.clone(), ServerOptions::default()).await.unwrap();
        let client = client(&server);
        let identity = server.identity().unwrap();
        let identity = (identity.url.clone(), identity.header.to_string());
        let url = server.url();
        drop(tokio::spawn(server.serve(std::future::pending())));
        Self { _folder: folder, vault, api, url, identity, client }
    }

    /// An RSA key of 2048 bits; its version.
    pub(crate) fn rsa_key(&self, name: &str) -> String {
        self.key(name, KeyKind::Rsa { bits: 2048 })
    }

    pub(crate) fn aes_key(&self, name: &str) -> String {
        self.key(name, KeyKind::Aes { bits: 256 })
    }

    fn key(&self, name: &str, kind: KeyKind) -> String {
        let mut options = CreateKey::new(name, kind);
        options.key_ops = ["wrapKey", "unwrapKey", "encrypt", "decrypt"].map(str::to_owned).to_vec();
        self.vault.create_key(&options).unwrap().version
    }

    pub(crate) fn token(&self, identity: &Identity) -> String {
        let audience = bulla_vault_server::Audience::Vault;
        self.api.tokens().issue(identity, &audience, std::time::Duration::from_secs(600)).to_string()
    }

    /// As the identity that may do everything, with an api-version.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ask_as(&user(), method, path, body).await
    }

    pub(crate) async fn ask_as(
        &self,
        identity: &Identity,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let joint = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}{joint}api-version=7.4", self.url);
        let mut request = self.client.request(method, url).bearer_auth(self.token(identity));
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// One of wrapkey, unwrapkey, encrypt, decrypt.
    pub(crate) async fn use_key(&self, path: &str, alg: &str, value: &[u8]) -> Answer {
        self.post(path, json!({ "alg": alg, "value": BASE64URL_NOPAD.encode(value) })).await
    }

    /// The audit log's lines.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.api.audit_log()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Answer {
    /// `error.code` and `error.innererror.code`
    pub(crate) fn error(&self) -> (u16, &str, &str) {
        let error = &self.body["error"];
        let code =
            |value: &'_ Value| -> &'static str { value.as_str().unwrap_or_default().to_owned().leak() };
        (self.status.as_u16(), code(&error["code"]), code(&error["innererror"]["code"]))
    }

    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.body
    }

    /// The bytes of `value`.
    pub(crate) fn value(self) -> Vec<u8> {
        BASE64URL_NOPAD.decode(self.ok()["value"].as_str().unwrap().as_bytes()).unwrap()
    }
}

pub(crate) async fn answer(response: Response) -> Answer {
    let status = response.status();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (challenge, retry_after) = (header("www-authenticate"), header("retry-after"));
    let body = response.bytes().await.unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Answer { status, challenge, retry_after, body }
}

pub(crate) fn user() -> Identity {
    Identity::User(USER.into())
}

/// A client that trusts the server's certificate and nothing else.
pub(crate) fn client(server: &Server) -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        #[cfg(feature = "aws-lc")]
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        #[cfg(not(feature = "aws-lc"))]
        let provider = rustls::crypto::ring::default_provider();
        drop(provider.install_default());
    });
    let certificate = Certificate::from_pem(&fs::read(server.certificate()).unwrap()).unwrap();
    Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap()
}
