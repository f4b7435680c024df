//! The API as an axum router: every request is placed, its sender asked for, and written down.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bulla_kek::Identity;
use bulla_vault::Vault;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::audit::{Audit, Entry};
use crate::auth::{self, Host};
use crate::error::ServerError;
use crate::faults::{self, Fault, Faults};
use crate::keys::{Call, Done};
use crate::oauth;
use crate::paging::Query;
use crate::reply::{self, Refusal};
use crate::route::{NoRoute, Route};
use crate::throttle::{Throttle, Window};
use crate::token::Tokens;

/// An imported RSA-4096 key is 5 KiB of JSON.
const MAX_BODY: usize = 64 << 10;
/// A body of that size that takes longer is not coming.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Operations at a time; more wait. They are bound by the processor and the disk.
const MAX_OPERATIONS: usize = 64;

/// How the API behaves beyond what the vault says.
#[derive(Debug, Default)]
pub struct ApiOptions {
    /// Where the audit log is; `None`: `audit.jsonl` in the vault's folder.
    pub audit_log: Option<PathBuf>,
    /// More requests than this are refused.
    pub throttle: Option<Throttle>,
    /// Whom the token endpoints know; `None`: everybody. Tokens made with [`Tokens`] are not held by it.
    pub identities: Option<BTreeSet<Identity>>,
    /// Makes requests for keys fail, in tests.
    pub faults: Faults,
    /// Makes requests for tokens fail, in tests.
    pub token_faults: Faults,
}

/// A vault behind Key Vault's REST API. Clones are the same.
#[derive(Clone)]
pub struct Api(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) vault: Vault,
    pub(crate) tokens: Tokens,
    pub(crate) audit: Audit,
    pub(crate) faults: Faults,
    pub(crate) token_faults: Faults,
    identities: Option<BTreeSet<Identity>>,
    throttle: Option<Window>,
    operations: Semaphore,
}

impl Api {
    /// Opens the vault with its passphrase, and the audit log.
    ///
    /// # Errors
    /// `Vault` if the passphrase is missing or wrong or the vault can't be read, `Io` if the log can't be written.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn new(vault: Vault, options: ApiOptions) -> Result<Self, ServerError> {
        let opened = tokio::task::spawn_blocking(move || {
            let path = options.audit_log.unwrap_or_else(|| vault.dir().join("audit.jsonl"));
            let tokens = Tokens::new(&vault)?;
            let audit = Audit::open(&path).map_err(|error| {
                ServerError::io(format!("the audit log {} can't be written", path.display()), error)
            })?;
            Ok::<_, ServerError>(Inner {
                vault,
                tokens,
                audit,
                faults: options.faults,
                token_faults: options.token_faults,
                identities: options.identities,
                throttle: options.throttle.map(Window::new),
                operations: Semaphore::new(MAX_OPERATIONS),
            })
        });
        match opened.await {
            Ok(inner) => Ok(Self(Arc::new(inner?))),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// The API, for a server of one's own. Where firewall rules matter, requests need axum's `ConnectInfo<SocketAddr>`:
    /// without it they come from nowhere. HTTPS is the caller's duty then.
    pub fn router(&self) -> Router {
        let api = self.clone();
        Router::new().fallback(move |request: Request| {
            let api = api.clone();
            async move { api.answer(request).await }
        })
    }

    /// Issues tokens for the vault.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// Where the audit log is.
    pub fn audit_log(&self) -> &Path {
        self.0.audit.path()
    }

    async fn answer(&self, request: Request) -> Response {
        let start = Instant::now();
        if oauth::is_token_request(request.uri().path()) {
            return oauth::answer(self, request).await;
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let route = Route::parse(request.method(), request.uri().path());
        let mut entry = Entry::new(route.as_ref().map_or("unknown", Route::operation), peer);
        if let Ok(route) = &route {
            let (name, version) = route.key();
            entry.key(name, version);
        }
        let Some(host) = Host::of(request.uri(), request.headers()) else {
            let refusal = Refusal::bad_parameter("The request names no host.");
            return self.log(entry, start, Err(refusal));
        };
        let identity = match auth::identity(&self.0.tokens, &host, request.headers()) {
            Ok(identity) => identity,
            Err(unauthorized) => {
                entry.outcome = "Unauthorized".into();
                entry.status = StatusCode::UNAUTHORIZED.as_u16();
                return self.logged(&mut entry, start, unauthorized.challenge(&self.0.tokens, &host));
            }
        };
        entry.identity = Some(identity.to_string());
        let fault = self.0.faults.take();
        if let Some(fault) = fault.clone().filter(|fault| *fault != Fault::DropAnswer) {
            return faults::happen(fault).await;
        }
        if let Some(Err(after)) = self.0.throttle.as_ref().map(Window::admit) {
            let refusal = Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Throttled",
                "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
            );
            return self.log(entry, start, Err(refusal.retry_after(after)));
        }
        let route = match route {
            Ok(route) => route,
            Err(none) => return self.log(entry, start, Err(none.refusal())),
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let (host, body) = (host.url(), request.into_body());
        let api = self.clone();
        // A task of its own: a client that goes away must not keep an operation out of the log.
        let task = tokio::spawn(async move {
            let done = match read(body).await {
                Ok(body) => api.perform(Call { route, identity, peer, host, query, body }).await,
                Err(refusal) => Err(refusal),
            };
            api.log(entry, start, done)
        });
        let response = task.await.unwrap_or_else(|_| Refusal::internal().into_response());
        if fault.is_some() { faults::dropped() } else { response }
    }

    async fn perform(&self, call: Call) -> Result<Done, Refusal> {
        let _permit = self.0.operations.acquire().await.expect("the semaphore is never closed");
        let vault = self.0.vault.clone();
        // Files, Argon2 and RSA.
        tokio::task::spawn_blocking(move || call.run(&vault))
            .await
            .unwrap_or_else(|_| Err(Refusal::internal()))
    }

    /// Turns the outcome into an answer, and writes it down first.
    fn log(&self, mut entry: Entry, start: Instant, done: Result<Done, Refusal>) -> Response {
        let response = match done {
            Ok(Done { body, version }) => {
                entry.outcome = "Success".into();
                entry.version = version.or(entry.version);
                match body {
                    Some(body) => reply::json(StatusCode::OK, &body),
                    None => StatusCode::NO_CONTENT.into_response(),
                }
            }
            Err(refusal) => {
                entry.outcome = refusal.outcome().to_owned();
                refusal.into_response()
            }
        };
        entry.status = response.status().as_u16();
        self.logged(&mut entry, start, response)
    }

    /// The answer, if it could be written down.
    pub(crate) fn logged(&self, entry: &mut Entry, start: Instant, response: Response) -> Response {
        entry.took(start.elapsed());
        match self.0.audit.record(entry) {
            Ok(()) => response,
            Err(error) => {
                tracing::error!(%error, path = %self.0.audit.path().display(), "the audit log can't be written");
                Refusal::internal().into_response()
            }
        }
    }

    /// Whether the token endpoints know the identity.
    pub(crate) fn knows(&self, identity: &Identity) -> bool {
        self.0.identities.as_ref().is_none_or(|known| known.contains(identity))
    }
}

impl NoRoute {
    fn refusal(self) -> Refusal {
        match self {
            Self::Unknown => Refusal::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                "There is nothing here but /keys and /deletedkeys.",
            ),
            Self::Method => {
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Not with this HTTP method.")
            }
            Self::Unsupported => Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotSupported",
                "This vault has no such operation: it neither signs nor backs up nor rotates by itself.",
            ),
        }
    }
}

/// The body, if it comes in time and is no larger than any that makes sense.
pub(crate) async fn read(body: Body) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await {
        // The connection's own buffers are not ours to wipe.
        Ok(Ok(body)) => Ok(Zeroizing::new(body.into())),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLarge",
            "The request's body is larger than 64 KiB, or was cut off.",
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeout",
            "The request's body did not come.",
        )),
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("vault", &self.0.vault).finish_non_exhaustive()
    }
}
