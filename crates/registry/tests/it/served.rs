//! A server on a port of its own, clients that trust it, and a store whose key can be taken away.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bulla::{CreateOptions, Engine, Managed, Mode, Store, StoreUrl};
use bulla_kek::{Identity, KeyKind, Providers};
use bulla_registry::access::{Access, Action, Needs, Refused};
use bulla_registry::server::{Server, ServerOptions, Service, TlsFiles};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultProvider};
use reqwest::{Certificate, Client};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long unwrapped secrets may be used, in these tests.
pub(crate) const R: Duration = Duration::from_secs(2);

/// A store under a key of a vault.
pub(crate) struct World {
    _folder: TempDir,
    vault: Vault,
    pub(crate) store: Store,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let cost = PassphraseCost::MINIMAL;
        let options = CreateVault { cost, ..CreateVault::new(Passphrase::new("p")) };
        let vault = Vault::create(folder.path().join("vault"), options).unwrap();
        vault.create_key(&CreateKey::new("k", KeyKind::Aes { bits: 256 })).unwrap();
        vault.set_policy(&Identity::System, &Permission::FOR_STORES).unwrap();
        let providers = Providers::new().with(Arc::new(VaultProvider::new(vault.clone())));
        let options = CreateOptions {
            mode: Mode::Hierarchical,
            key: vault.key_id("k", None).unwrap(),
            identity: Identity::System,
            managed: Managed::Customer,
            revocation_bound: R,
            allow_unprotected_key: false,
            second: None,
        };
        let url = StoreUrl::parse(&folder.path().join("store").display().to_string()).unwrap();
        let engine = Engine::builder().providers(providers).build();
        let store = engine.create(url.connect(true).unwrap(), options).await.unwrap();
        Self { _folder: folder, vault, store }
    }

    pub(crate) fn enable_key(&self, enabled: bool) {
        self.vault.set_enabled("k", None, enabled).unwrap();
    }
}

/// A running server.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) service: Service,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) serving: JoinHandle<()>,
}

impl Served {
    /// Nothing is served until the service is told.
    pub(crate) async fn start(access: &dyn Access, mut options: ServerOptions) -> Self {
        options.listen = (Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::bind(access, options).await.unwrap();
        let (url, address, admin) = (server.url(), server.address(), server.admin());
        let service = server.service().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move { drop(stopped.await) }));
        Self { url, address, admin, service, stop: Some(stop), serving }
    }

    pub(crate) fn tell_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

/// What asks `access` as the registry does: by the last part of the path, and the method.
pub(crate) fn guarded(access: Arc<dyn Access>) -> Router {
    Router::new().fallback(move |request: Request| {
        let access = Arc::clone(&access);
        async move {
            let (method, path, headers) =
                (request.method().clone(), request.uri().to_string(), request.headers().clone());
            let needs = match path.strip_prefix("/v2/").unwrap() {
                "" => Needs::Login,
                "_catalog" => Needs::Catalog,
                "a/b/blobs/uploads/?from=c" => Needs::Mount { name: "a/b", from: "c" },
                rest => Needs::Repository {
                    name: rest.rsplit_once("/manifests/").unwrap().0,
                    action: match method {
                        Method::GET => Action::Pull,
                        Method::DELETE => Action::Delete,
                        _ => Action::Push,
                    },
                },
            };
            match access.check(&headers, needs).await {
                Ok(()) => StatusCode::OK.into_response(),
                Err(refused) => refusal(refused),
            }
        }
    })
}

fn refusal(refused: Refused) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = match refused {
        Refused::Unauthorized { challenge } => {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            StatusCode::UNAUTHORIZED
        }
        Refused::Denied => StatusCode::FORBIDDEN,
        Refused::TooMany { retry_after } => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
            StatusCode::TOO_MANY_REQUESTS
        }
    };
    response
}

/// A certificate for 127.0.0.1, in `cert.pem` and `key.pem`.
pub(crate) fn certificate(folder: &Path) -> TlsFiles {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// A client that trusts the certificate in the file as it is now, and nothing else.
pub(crate) fn trusting(file: &Path) -> Client {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let certificate = Certificate::from_pem(&fs::read(file).unwrap()).unwrap();
    Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap()
}

/// A client in plain HTTP.
pub(crate) fn client() -> Client {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    Client::builder().tls_certs_only([]).no_proxy().build().unwrap()
}

/// Asks until it is so: for what happens within seconds by itself.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("it does not become so");
}
