//! One node's connection to the bucket: slow, unreliable, and gone with the node.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use crate::bucket::{Answer, Request, SimBucket};
use crate::faults::{Fate, Faults, Kind};
use crate::runtime::{SeededRandom, SimRuntime};
use crate::trace::Trace;

/// A node's view of a [`SimBucket`]. Cheap to clone; clones are the same connection.
///
/// A request is a task of the network and not of the node: once sent, it arrives and is applied whether or not anybody
/// still waits for it, and a node that is killed leaves its requests under way.
#[derive(Clone)]
pub struct SimStore {
    bucket: SimBucket,
    runtime: SimRuntime,
    random: Arc<SeededRandom>,
    trace: Trace,
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
struct Line {
    faults: Faults,
    sent: u64,
    crash_at: Option<u64>,
}

impl SimStore {
    /// The connection of the node of `runtime`. `random` decides what goes wrong.
    pub fn new(bucket: &SimBucket, runtime: &SimRuntime, random: &Arc<SeededRandom>, trace: &Trace) -> Self {
        let line = Line { faults: Faults::NONE, sent: 0, crash_at: None };
        Self {
            bucket: bucket.clone(),
            runtime: runtime.clone(),
            random: Arc::clone(random),
            trace: trace.clone(),
            line: Arc::new(Mutex::new(line)),
        }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Kills the node when it has sent `more` more requests: the last of them is under way, and applied or not, as are those
    /// before it.
    pub fn crash_after(&self, more: u64) {
        let mut line = self.lock();
        line.crash_at = Some(line.sent + more);
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request) -> Result<Answer> {
        if self.runtime.is_killed() {
            // Only destructors get here.
            return std::future::pending().await;
        }
        let (crash, (there, fate, back)) = {
            let mut line = self.lock();
            line.sent += 1;
            (line.crash_at == Some(line.sent), line.faults.draw(kind(&request), &self.random))
        };
        let (answer, arrived) = oneshot::channel();
        let (bucket, trace) = (self.bucket.clone(), self.trace.clone());
        let node = self.runtime.name().to_owned();
        tokio::spawn(async move {
            let apply = || {
                let answer = bucket.apply(&request);
                trace.note(format_args!("{node}: {} {}", describe(&request), outcome(&answer)));
                answer
            };
            tokio::time::sleep(there).await;
            let result = match fate {
                Fate::Fine => apply(),
                Fate::BrokenRead => apply().map(broken),
                Fate::Retried => {
                    let _ = apply();
                    tokio::time::sleep(there).await;
                    apply()
                }
                Fate::LostAnswer => {
                    let _ = apply();
                    Err(unreachable("the answer was lost"))
                }
                Fate::LostRequest => Err(unreachable("the request was lost")),
                Fate::Late(_) => Err(unreachable("given up")),
                Fate::Conflict => {
                    Err(Error::AlreadyExists { path: String::new(), source: "409 conflict".into() })
                }
            };
            if !matches!(fate, Fate::Fine) {
                trace.note(format_args!("{node}: {fate:?} {}", describe(&request)));
            }
            tokio::time::sleep(back).await;
            // Nobody may be there to hear it.
            let _ = answer.send(result);
            if let Fate::Late(by) = fate {
                tokio::time::sleep(by).await;
                let _ = apply();
            }
        });
        if crash {
            self.trace.note(format_args!("{}: crashes", self.runtime.name()));
            self.runtime.kill();
            return std::future::pending().await;
        }
        match arrived.await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable("the network is gone")),
        }
    }

    fn not_implemented(operation: &str) -> Error {
        Error::NotImplemented { operation: operation.into(), implementer: "SimStore".into() }
    }
}

fn kind(request: &Request) -> Kind {
    match request {
        Request::Get(..) => Kind::Read,
        Request::Put(_, _, PutMode::Overwrite) => Kind::Put,
        Request::Put(..) => Kind::ConditionalPut,
        _ => Kind::Other,
    }
}

fn describe(request: &Request) -> String {
    match request {
        Request::Put(path, payload, mode) => {
            let how = match mode {
                PutMode::Overwrite => "put",
                PutMode::Create => "create",
                PutMode::Update(_) => "update",
            };
            format!("{how} {path} ({} bytes)", payload.content_length())
        }
        Request::Get(path, options) if options.head => format!("head {path}"),
        Request::Get(path, options) => match &options.range {
            Some(range) => format!("get {path} {range}"),
            None => format!("get {path}"),
        },
        Request::Delete(path) => format!("delete {path}"),
        Request::List(prefix) => format!("list {prefix}"),
        Request::Copy { from, to, .. } => format!("copy {from} {to}"),
    }
}

fn outcome(answer: &Result<Answer>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(Error::NotFound { .. }) => "not found",
        Err(Error::AlreadyExists { .. }) => "already exists",
        Err(Error::Precondition { .. }) => "precondition",
        Err(_) => "error",
    }
}

fn unreachable(why: &'static str) -> Error {
    Error::Generic { store: "sim", source: why.into() }
}

/// Half of the body, then an error.
fn broken(answer: Answer) -> Answer {
    match answer {
        Answer::Get(result) => {
            let payload = match result.payload {
                GetResultPayload::Stream(pieces) => {
                    let broken = stream::iter([Err(unreachable("the connection broke"))]);
                    GetResultPayload::Stream(pieces.take(1).chain(broken).boxed())
                }
                payload => payload,
            };
            Answer::Get(GetResult { payload, ..result })
        }
        answer => answer,
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.send(Request::Put(location.clone(), payload, opts.mode)).await? {
            Answer::Put(result) => Ok(result),
            _ => Err(unreachable("another request's answer")),
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Self::not_implemented("`put_multipart_opts`"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.send(Request::Get(location.clone(), options)).await? {
            Answer::Get(result) => Ok(result),
            _ => Err(unreachable("another request's answer")),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .and_then(move |location| {
                let store = store.clone();
                async move { store.send(Request::Delete(location.clone())).await.map(|_| location) }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        stream::once(async move {
            match store.send(Request::List(prefix)).await? {
                Answer::Listed(listed) => Ok(stream::iter(listed.into_iter().map(Ok))),
                _ => Err(unreachable("another request's answer")),
            }
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Self::not_implemented("`list_with_delimiter`"))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let create = matches!(options.mode, CopyMode::Create);
        self.send(Request::Copy { from: from.clone(), to: to.clone(), create }).await.map(drop)
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.runtime.name())
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.runtime.name())
    }
}
