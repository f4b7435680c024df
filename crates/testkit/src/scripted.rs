//! An object store that does exactly what a test says: which request fails, whether it was applied before, and what else
//! happens at that moment.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "tests match on every kind")]
pub enum Op {
    /// A conditional put: if absent.
    Create,
    /// A conditional put: if unchanged.
    Update,
    /// An unconditional put.
    Put,
    /// A read, whole or by range.
    Get,
    /// Size and time only.
    Head,
    /// A removal.
    Delete,
    /// A listing.
    List,
    /// A copy inside the store.
    Copy,
}

/// What a script does at its moment; an error replaces the answer.
pub type Action = Box<dyn FnOnce() -> Option<Error> + Send>;

struct Rule {
    op: Op,
    key_contains: String,
    skip: usize,
    applied: bool,
    action: Action,
    hold: Option<oneshot::Receiver<()>>,
}

#[derive(Default)]
struct Script {
    rules: VecDeque<Rule>,
    requests: Vec<(Op, String)>,
    hanging: Option<String>,
    latency: Duration,
    read_only: bool,
}

/// A request that is on its way for as long as this is not dropped.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "what counts is its drop")] oneshot::Sender<()>);

/// Wraps a store and runs a script of single events; everything else passes through.
#[derive(Clone)]
pub struct ScriptedStore {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

impl ScriptedStore {
    /// No script yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// Over memory, empty.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(InMemory::new()))
    }

    /// Makes or replaces an object: a request like any other.
    ///
    /// # Errors
    /// As the script says.
    pub async fn write(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        self.put(&key.into(), bytes.into()).await.map(|_| ())
    }

    /// At the next `op` whose key contains `key`, runs `action` *instead of* applying it, if it gives an error, else before.
    pub fn before(&self, op: Op, key: &str, action: impl FnOnce() -> Option<Error> + Send + 'static) {
        self.rule(op, key, 0, false, Box::new(action));
    }

    /// At the next `op` whose key contains `key`, applies it and then runs `action`, whose error replaces the answer.
    pub fn after(&self, op: Op, key: &str, action: impl FnOnce() -> Option<Error> + Send + 'static) {
        self.rule(op, key, 0, true, Box::new(action));
    }

    /// As [`before`](Self::before), after letting `skip` such requests pass.
    pub fn before_nth(
        &self,
        op: Op,
        key: &str,
        skip: usize,
        action: impl FnOnce() -> Option<Error> + Send + 'static,
    ) {
        self.rule(op, key, skip, false, Box::new(action));
    }

    /// Requests whose key contains `key` get no answer from now on; with `None` they do again. Listings are not among them.
    pub fn set_hanging(&self, key: Option<&str>) {
        self.lock().hanging = key.map(str::to_owned);
    }

    /// How long every request but listings takes, in virtual time.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// From now on whoever writes or removes is told that he may not.
    pub fn set_read_only(&self) {
        self.lock().read_only = true;
    }

    /// The next `op` whose key contains `key` stays on its way until what this returns is dropped.
    #[must_use]
    pub fn hold(&self, op: Op, key: &str) -> Held {
        let (held, hold) = oneshot::channel();
        let key_contains = key.to_owned();
        let rule =
            Rule { op, key_contains, skip: 0, applied: false, action: Box::new(|| None), hold: Some(hold) };
        self.lock().rules.push_back(rule);
        Held(held)
    }

    /// Every request so far, in order, and forgets them.
    pub fn take_requests(&self) -> Vec<(Op, String)> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Whether everything that was scripted has happened.
    pub fn is_done(&self) -> bool {
        self.lock().rules.is_empty()
    }

    fn rule(&self, op: Op, key: &str, skip: usize, applied: bool, action: Action) {
        let key_contains = key.to_owned();
        self.lock().rules.push_back(Rule { op, key_contains, skip, applied, action, hold: None });
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rule for this request, if there is one.
    fn event(&self, op: Op, key: &Path) -> Option<Rule> {
        let mut script = self.lock();
        script.requests.push((op, key.to_string()));
        let at = script
            .rules
            .iter()
            .position(|rule| rule.op == op && key.as_ref().contains(&rule.key_contains))?;
        if script.rules[at].skip > 0 {
            script.rules[at].skip -= 1;
            return None;
        }
        script.rules.remove(at)
    }

    async fn run<T>(&self, op: Op, key: &Path, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let event = self.event(op, key);
        if self.lock().read_only && !matches!(op, Op::Get | Op::Head | Op::List) {
            return Err(not_permitted());
        }
        let (hangs, latency) = {
            let script = self.lock();
            (script.hanging.as_ref().is_some_and(|part| key.as_ref().contains(part)), script.latency)
        };
        if hangs {
            futures::future::pending::<()>().await;
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match event {
            None => request.await,
            Some(Rule { hold: Some(hold), .. }) => {
                // Released by a drop: there is nothing to be sent.
                let _ = hold.await;
                request.await
            }
            Some(Rule { applied: false, action, .. }) => match action() {
                Some(error) => Err(error),
                None => request.await,
            },
            Some(Rule { applied: true, action, .. }) => {
                let answer = request.await;
                match action() {
                    Some(error) => Err(error),
                    None => answer,
                }
            }
        }
    }
}

/// The connection broke: no definite answer.
pub fn broken_connection() -> Error {
    Error::Generic { store: "scripted", source: "connection reset".into() }
}

/// "Exists already", as the retry of a create that was applied is answered.
pub fn already_exists() -> Error {
    Error::AlreadyExists { path: String::new(), source: "409".into() }
}

/// "Condition not met", as the retry of an update that was applied is answered.
pub fn precondition() -> Error {
    Error::Precondition { path: String::new(), source: "412".into() }
}

/// Credentials that do not suffice.
fn not_permitted() -> Error {
    Error::PermissionDenied { path: String::new(), source: "403".into() }
}

#[async_trait]
impl ObjectStore for ScriptedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let op = match opts.mode {
            PutMode::Create => Op::Create,
            PutMode::Update(_) => Op::Update,
            PutMode::Overwrite => Op::Put,
        };
        self.run(op, location, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if self.lock().read_only {
            return Err(not_permitted());
        }
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        self.run(op, location, self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    if store.lock().read_only {
                        return Err(not_permitted());
                    }
                    let one = futures::stream::once({
                        let location = location.clone();
                        async move { Ok(location) }
                    });
                    let mut deleted = store.inner.delete_stream(one.boxed());
                    store
                        .run(Op::Delete, &location, async {
                            deleted.next().await.unwrap_or(Ok(Path::default()))
                        })
                        .await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = Path::default();
        match self.event(Op::List, prefix.unwrap_or(&root)).and_then(|rule| (rule.action)()) {
            Some(error) => futures::stream::iter([Err(error)]).boxed(),
            None => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(Op::Copy, from, self.inner.copy_opts(from, to, options)).await
    }
}

impl fmt::Display for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted({})", self.inner)
    }
}

impl fmt::Debug for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScriptedStore({})", self.inner)
    }
}
