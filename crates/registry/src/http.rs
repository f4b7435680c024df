//! The specification's HTTP: requests to the model, and its answers back.
//!
//! ```text
//! request ─► route ─► method? ─► name? ─► may the sender do that? ─► handler ─► answer, or the specification's error body
//!             404       405       400       401, 403, 429
//! ```
//!
//! Bodies of blobs stream both ways. A stream that fails in the middle ends the connection: no answer is shorter than it
//! says and looks complete.

mod answer;
mod blobs;
mod conditional;
mod lists;
mod manifests;
mod parts;
mod query;
mod range;
mod referrers;
mod route;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use axum::routing::any;
use bulla::SessionId;
use quick_cache::sync::Cache;

use self::answer::{Failure, empty, json};
use self::query::Query;
use self::route::{Endpoint, Route};
use crate::access::{Access, Action, Needs};
use crate::error::{ErrorCode, RegistryError};
use crate::name::RepositoryName;
use crate::registry::{Registry, Repository};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What all handlers need.
#[derive(Clone)]
struct App {
    registry: Registry,
    access: Arc<dyn Access>,
    /// Uploads that ended here lately before anything of them was stored, or whose end is remembered nowhere else. A courtesy:
    /// at another node such a name is that of an upload which has not begun.
    ended: Arc<Cache<SessionId, ()>>,
}

/// How many of them.
const ENDED: usize = 10_000;

/// A request that is about a repository, and may be served. Without its body, which is no two threads' at once.
struct Call {
    app: App,
    repository: Repository,
    query: Query,
    headers: HeaderMap,
}

/// Everything below `/v2/`, over `registry`, for those whom `access` lets.
///
/// The router wants no state and serves any number of connections. Limits on connections, headers and time, TLS, health and
/// metrics are the server's around it.
///
/// ```no_run
/// # async fn serve(store: bulla::Store) -> std::io::Result<()> {
/// use bulla_registry::{Registry, RegistryOptions, access::Open, http};
///
/// let registry = Registry::new(store, RegistryOptions::default());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:5000").await?;
/// axum::serve(listener, http::router(registry, std::sync::Arc::new(Open))).await
/// # }
/// ```
pub fn router(registry: Registry, access: Arc<dyn Access>) -> Router {
    let app = App { registry, access, ended: Arc::new(Cache::new(ENDED)) };
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .fallback(elsewhere)
        .with_state(app)
}

/// What a request may have in its body.
pub(crate) enum Content {
    Blob,
    Manifest,
}

/// What it is, if anything: by the endpoint that the request gets to, however its path is written.
pub(crate) fn content(method: &Method, path: &str) -> Option<Content> {
    if !matches!(*method, Method::POST | Method::PATCH | Method::PUT) {
        return None;
    }
    match Route::parse(path).ok()?.endpoint {
        Endpoint::Uploads | Endpoint::Upload(_) => Some(Content::Blob),
        Endpoint::Manifest(_) => Some(Content::Manifest),
        _ => None,
    }
}

async fn serve(State(app): State<App>, request: Request) -> Response {
    let mut response = match dispatch(app, request).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn elsewhere() -> Response {
    let message = "there is nothing at this path; the registry is below /v2/";
    Failure::from(RegistryError::new(ErrorCode::NameUnknown, message)).into_response()
}

async fn dispatch(app: App, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path())?;
    let method = parts.method;
    route.endpoint.check_method(&method)?;
    let query = Query::parse(parts.uri.query());
    let Some(name) = &route.name else {
        return match route.endpoint {
            Endpoint::Catalog => {
                check(&app, &parts.headers, Needs::Catalog).await?;
                lists::catalog(&app, &query).await
            }
            _ => {
                check(&app, &parts.headers, Needs::Login).await?;
                Ok(json(&serde_json::json!({})))
            }
        };
    };
    let name: RepositoryName = name.parse()?;
    check(&app, &parts.headers, needs(&name, &route.endpoint, &method, &query)).await?;
    let repository = app.registry.repository(name);
    let call = Call { app, repository, query, headers: parts.headers };
    match route.endpoint {
        Endpoint::Base | Endpoint::Catalog => Ok(empty(axum::http::StatusCode::OK)),
        Endpoint::Tags => lists::tags(call).await,
        Endpoint::Manifest(reference) => manifests::serve(call, body, &method, &reference).await,
        Endpoint::Blob(digest) => blobs::serve(call, &method, &digest).await,
        Endpoint::Uploads => uploads::begin(call, body).await,
        Endpoint::Upload(id) => uploads::serve(call, body, &method, &id).await,
        Endpoint::Referrers(digest) => referrers::list(call, &digest).await,
    }
}

/// What a request to a repository needs. `from` is said of what could be the name of one, and looked at later.
fn needs<'a>(name: &'a RepositoryName, endpoint: &Endpoint, method: &Method, query: &'a Query) -> Needs<'a> {
    let name = name.as_str();
    match (endpoint, query.get("mount"), query.get("from")) {
        (Endpoint::Uploads, Some(_), Some(from)) if from.parse::<RepositoryName>().is_ok() => {
            Needs::Mount { name, from }
        }
        _ => Needs::Repository { name, action: action(endpoint, method) },
    }
}

/// What a request does to its repository. An upload is looked at and given up by who may push.
fn action(endpoint: &Endpoint, method: &Method) -> Action {
    match (endpoint, method) {
        (Endpoint::Uploads | Endpoint::Upload(_), _) | (_, &Method::PUT) => Action::Push,
        (_, &Method::DELETE) => Action::Delete,
        _ => Action::Pull,
    }
}

async fn check(app: &App, headers: &HeaderMap, needs: Needs<'_>) -> Result<(), Failure> {
    app.access.check(headers, needs).await.map_err(Failure::from)
}
