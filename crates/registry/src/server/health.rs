//! `/healthz`: the process answers. `/readyz`: the store's key and bucket can be used, or why not. `/metrics`: Prometheus' text.
//!
//! None of them names a repository, a tag or a digest. Everybody may see the first two, so they say to others than operators
//! neither where keys nor where buckets are.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use bulla::{Algorithm, Digest, Store};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::service::{Service, Waiting};
use super::{Exposition, refusal};

/// For so long an answer holds: probes of everybody cost one request to the bucket per second.
const FRESH: Duration = Duration::from_secs(1);
/// A bucket or key provider that takes longer is out of reach.
const PATIENCE: Duration = Duration::from_secs(5);
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The pages of one address.
#[derive(Clone)]
pub(super) struct Pages {
    service: Service,
    metrics: Option<Exposition>,
    /// Who reaches the address may see everything.
    for_operators: bool,
}

/// One of them.
pub(super) enum Page {
    Alive,
    Ready { operator: bool },
    Metrics(Exposition),
}

impl Pages {
    pub(super) fn of_operators(service: Service, metrics: Option<Exposition>) -> Self {
        Self { service, metrics, for_operators: true }
    }

    /// Where everybody comes; those from this machine are operators.
    pub(super) fn of_everybody(service: Service, metrics: Option<Exposition>) -> Self {
        Self { service, metrics, for_operators: false }
    }

    /// The page that the request is for, if it is for one.
    pub(super) fn find(&self, request: &Request) -> Option<Page> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let operator = self.for_operators || peer.is_some_and(|peer| peer.to_canonical().is_loopback());
        match request.uri().path() {
            "/healthz" => Some(Page::Alive),
            "/readyz" => Some(Page::Ready { operator }),
            "/metrics" if operator => self.metrics.clone().map(Page::Metrics),
            _ => None,
        }
    }

    pub(super) async fn show(&self, page: Page) -> Response {
        match page {
            Page::Alive => refusal::json_body(StatusCode::OK, &json!({ "status": "alive" })),
            Page::Ready { operator } => self.readiness(operator).await,
            Page::Metrics(metrics) => {
                let mut response = Response::new(Body::from(metrics()));
                response.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
                response
            }
        }
    }

    async fn readiness(&self, operator: bool) -> Response {
        match self.service.ready().look(&self.service).await {
            Ok(()) => refusal::json_body(StatusCode::OK, &json!({ "status": "ready" })),
            Err(why) => {
                let mut body = json!({ "status": why.kind, "reason": why.reason });
                if operator {
                    body["message"] = json!(why.message);
                }
                refusal::json_body(StatusCode::SERVICE_UNAVAILABLE, &body)
            }
        }
    }
}

/// The last look, for all who ask within a second.
#[derive(Default)]
pub(super) struct Ready(Mutex<Option<(Instant, Result<(), Waiting>)>>);

impl Ready {
    async fn look(&self, service: &Service) -> Result<(), Waiting> {
        let mut last = self.0.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < FRESH
        {
            return result.clone();
        }
        let result = match service.store() {
            Ok(store) => look(&store).await,
            Err(waiting) => Err(waiting),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// What was seen does not hold any more.
    pub(super) fn forget(&self) {
        // Who looks at the moment sees what was a moment ago.
        if let Ok(mut last) = self.0.try_lock() {
            *last = None;
        }
    }
}

/// Uses key and bucket as a pull does: an idle store's lease has run out, and that alone is no trouble.
async fn look(store: &Store) -> Result<(), Waiting> {
    static NOTHING: OnceLock<Digest> = OnceLock::new();
    let nothing = NOTHING.get_or_init(|| Digest::of(Algorithm::Sha256, b""));
    match tokio::time::timeout(PATIENCE, store.contains(nothing)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Waiting::of(&error)),
        Err(_) => Err(Waiting {
            kind: "unavailable",
            reason: None,
            message: "key provider or bucket do not answer".to_owned(),
        }),
    }
}
