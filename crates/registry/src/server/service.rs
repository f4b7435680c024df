//! What is served: the registry, once its store is open.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bulla::Store;
use tower::ServiceExt;

use super::health::Ready;
use super::{metered, refusal, uploads};
use crate::http::{self, Content};

/// The registry behind a server's address. It may come after the server: a node that starts while its key is revoked says so, and
/// serves from the moment that it is given back. Clones are the same.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    state: RwLock<State>,
    blobs: uploads::Places,
    manifests: uploads::Places,
    ready: Ready,
}

enum State {
    Waiting(Waiting),
    Open { store: Store, router: Router },
}

/// Why there is nothing to serve.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The kind of the engine's error.
    pub(super) kind: &'static str,
    /// Why the key provider said no, as it says it.
    pub(super) reason: Option<&'static str>,
    pub(super) message: String,
}

impl Service {
    pub(super) fn new(uploads: usize) -> Self {
        let message = "the store is being opened".to_owned();
        let waiting = Waiting { kind: "starting", reason: None, message };
        Self(Arc::new(Inner {
            state: RwLock::new(State::Waiting(waiting)),
            blobs: uploads::Places::new(uploads),
            manifests: uploads::Places::new(uploads),
            ready: Ready::default(),
        }))
    }

    /// From now on `router` answers, over this store.
    pub fn open(&self, store: Store, router: Router) {
        self.set(State::Open { store, router });
    }

    /// The store can't be opened now: every request is answered with 503, and [`Self::open`] may come later.
    pub fn wait_for(&self, error: &bulla::Error) {
        self.set(State::Waiting(Waiting::of(error)));
    }

    fn set(&self, state: State) {
        *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.0.ready.forget();
    }

    /// The store, or why there is none.
    pub(super) fn store(&self) -> Result<Store, Waiting> {
        match &*self.0.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open { store, .. } => Ok(store.clone()),
            State::Waiting(waiting) => Err(waiting.clone()),
        }
    }

    pub(super) fn ready(&self) -> &Ready {
        &self.0.ready
    }

    pub(super) async fn answer(&self, request: Request) -> Response {
        let (count, request) = metered::Count::begin(request);
        count.end(self.ask(request).await)
    }

    async fn ask(&self, request: Request) -> Response {
        let router = match &*self.0.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open { router, .. } => router.clone(),
            State::Waiting(waiting) => return refusal::unavailable(waiting.public()),
        };
        let places = http::content(request.method(), request.uri().path()).map(|content| match content {
            Content::Blob => &self.0.blobs,
            Content::Manifest => &self.0.manifests,
        });
        let _place = match places {
            Some(places) => match places.take().await {
                Ok(place) => Some(place),
                Err(uploads::Full) => return refusal::too_many("too many uploads at a time"),
            },
            None => None,
        };
        router.oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

impl Waiting {
    pub(super) fn of(error: &bulla::Error) -> Self {
        Self {
            kind: error.kind().as_str(),
            reason: error.denied().map(|reason| reason.code()),
            message: error.to_string(),
        }
    }

    /// For clients: what is the matter, and nothing about where keys and buckets are.
    fn public(&self) -> &'static str {
        match self.kind {
            "revoked" => "the key of this registry is not available: its owner has withdrawn it",
            "starting" => "the registry is starting",
            _ => "the key or the storage of this registry can't be reached",
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}
