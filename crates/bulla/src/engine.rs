//! The engine: what all stores of a process share.

use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::crypto::CryptoProvider;
use bulla_kek::{Providers, Runtime, TokioRuntime};

use crate::audit::AuditMode;
use crate::buffers::Buffers;
use crate::events::{EventSink, Events};

/// What is injected, chosen once.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) crypto: &'static CryptoProvider,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Watched: every call to them is an event.
    pub(crate) providers: Providers,
    /// Of the store that these parts are for.
    pub(crate) events: Arc<Events>,
    pub(crate) memory_per_stream: usize,
    pub(crate) gc_grace: Duration,
    pub(crate) outage_grace: Duration,
    /// `MAX`: never.
    pub(crate) follow_versions_every: Duration,
    pub(crate) cached_envelopes: usize,
    /// For sealed extents on their way.
    pub(crate) buffers: Buffers,
}

/// Opens and creates stores. Cheap to clone; one per process is enough for any number of stores and keys.
///
/// ```
/// use bulla::Engine;
/// let engine = Engine::builder().build();
/// # drop(engine);
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) parts: Arc<Parts>,
    /// As they were given: watched anew for each store, so that calls are events of that store. Nobody else calls them.
    unwatched: Providers,
}

/// Settings of an [`Engine`].
#[derive(Debug)]
pub struct EngineBuilder {
    parts: Parts,
    sink: Option<Arc<dyn EventSink>>,
    node: Option<Arc<str>>,
    audit: AuditMode,
}

impl Engine {
    /// Starts with the defaults: the fastest crypto back end that was built, tokio, no key providers.
    #[must_use]
    pub fn builder() -> EngineBuilder {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        EngineBuilder {
            sink: None,
            node: None,
            audit: AuditMode::default(),
            parts: Parts {
                crypto: CryptoProvider::best(),
                events: Arc::new(Events::new(None, Arc::clone(&runtime), "".into(), AuditMode::Off)),
                runtime,
                providers: Providers::new(),
                memory_per_stream: 16 << 20,
                gc_grace: Duration::from_secs(24 * 60 * 60),
                outage_grace: Duration::ZERO,
                follow_versions_every: Duration::from_secs(60 * 60),
                cached_envelopes: 4096,
                buffers: Buffers::default(),
            },
        }
    }

    /// The parts for one store.
    pub(crate) fn parts_of_a_store(&self) -> Arc<Parts> {
        let events = Arc::new(self.parts.events.for_another_store());
        let providers = events.watch(&self.unwatched);
        Arc::new(Parts { providers, events, ..(*self.parts).clone() })
    }
}

impl EngineBuilder {
    /// Where keys may come from. A key id in a bucket that none of these accepts is refused.
    #[must_use]
    pub fn providers(mut self, providers: Providers) -> Self {
        self.parts.providers = providers;
        self
    }

    /// Clock, tasks and randomness; [`TokioRuntime`] unless a simulation drives them.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.parts.runtime = runtime;
        self
    }

    /// The crypto back end. All of them read and write the same bytes.
    #[must_use]
    pub fn crypto(mut self, crypto: &'static CryptoProvider) -> Self {
        self.parts.crypto = crypto;
        self
    }

    /// How much memory one put or get stream may hold, in bytes; 16 MiB unless set, at least 4 MiB.
    #[must_use]
    pub fn memory_per_stream(mut self, bytes: usize) -> Self {
        self.parts.memory_per_stream = bytes.max(4 << 20);
        self
    }

    /// How old unused data must be before gc removes it; 24 h unless set. All nodes of a store must agree on it: a put
    /// that takes longer than half of it is refused.
    #[must_use]
    pub fn gc_grace(mut self, grace: Duration) -> Self {
        self.parts.gc_grace = grace;
        self
    }

    /// Lengthens the lease while the key provider can't be *reached*; zero unless set. It never lengthens it after a
    /// denial; but who can cut the network can delay a denial, so the revocation bound becomes R + grace.
    #[must_use]
    pub fn outage_grace(mut self, grace: Duration) -> Self {
        self.parts.outage_grace = grace;
        self
    }

    /// Within how long a store whose key id has no version notices a newer version of its key, and rotates to it in the
    /// background; 1 h unless set, [`Duration::MAX`] for never. It asks when the store is opened, and then, while the store
    /// is in use, in place of another question, so that it costs no calls; an unused store does not ask. A version that
    /// can't hold the store (disabled, expired, too weak, not permitted) is not taken: [`Store::status`](crate::Store::status)
    /// says why, and it is tried again after the same time. A key id with a version never moves.
    #[must_use]
    pub fn follow_versions_every(mut self, interval: Duration) -> Self {
        self.parts.follow_versions_every = interval;
        self
    }

    /// How many decoded envelopes each store keeps; 4,096 unless set. Each takes its blob's inline bytes, at most 64 KiB.
    #[must_use]
    pub fn cached_envelopes(mut self, count: usize) -> Self {
        self.parts.cached_envelopes = count;
        self
    }

    /// Who listens to events; nobody unless set. They go to `tracing` as well, and with the feature `metrics` to its
    /// recorder.
    #[must_use]
    pub fn events(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// What events call this node: its host's name, say. 1 to 64 printable characters; what is beyond, and what can't
    /// be printed, is left out. A random name unless set.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        let printable = name.chars().filter(char::is_ascii_graphic).take(64);
        self.node = Some(printable.collect::<String>().into()).filter(|name: &Arc<str>| !name.is_empty());
        self
    }

    /// Whether stores write their audit logs; [`AuditMode::Follow`] unless set.
    #[must_use]
    pub fn audit(mut self, mode: AuditMode) -> Self {
        self.audit = mode;
        self
    }

    /// The engine.
    #[must_use]
    pub fn build(mut self) -> Engine {
        #[cfg(feature = "locked-memory")]
        crate::memory::lock_secrets();
        let runtime = &self.parts.runtime;
        let node = self.node.unwrap_or_else(|| {
            let mut id = [0; 4];
            runtime.random().fill(&mut id);
            format!("node-{:08x}", u32::from_be_bytes(id)).into()
        });
        let unwatched = self.parts.providers;
        self.parts.events = Arc::new(Events::new(self.sink, Arc::clone(runtime), node, self.audit));
        self.parts.providers = self.parts.events.watch(&unwatched);
        Engine { parts: Arc::new(self.parts), unwatched }
    }
}
