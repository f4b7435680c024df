//! The objects behind every node's connection: S3's semantics, in memory, under the virtual clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use object_store::path::Path;
use object_store::{
    Attributes, Error, Extensions, GetOptions, GetResult, GetResultPayload, ObjectMeta, PutMode, PutPayload,
    PutResult, Result,
};
use tokio::time::Instant;

/// Objects that all nodes of a simulation share. Cheap to clone; clones are the same bucket.
#[derive(Clone, Debug)]
pub struct SimBucket {
    start: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<Path, Stored>,
    writes: u64,
    content_etags: bool,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    etag: String,
    modified: SystemTime,
}

/// One request as it travels.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Put(Path, PutPayload, PutMode),
    Get(Path, GetOptions),
    Delete(Path),
    List(Path),
    Copy { from: Path, to: Path, create: bool },
}

#[derive(Debug)]
pub(crate) enum Answer {
    Put(PutResult),
    Get(GetResult),
    Listed(Vec<ObjectMeta>),
    Done,
}

impl SimBucket {
    /// An empty bucket. ETags are counted, so that no two writes share one; or, with `content_etags`, they are hashes
    /// of the content, as on S3, so that writing the same again brings the same ETag back.
    pub fn new(start: Instant, content_etags: bool) -> Self {
        let state = State { objects: BTreeMap::new(), writes: 0, content_etags };
        Self { start, state: Arc::new(Mutex::new(state)) }
    }

    /// Every object's key and content, for looking behind the scenes.
    pub fn objects(&self) -> Vec<(String, Bytes)> {
        self.lock().objects.iter().map(|(path, stored)| (path.to_string(), stored.bytes.clone())).collect()
    }

    /// Replaces an object, makes it, or with `None` removes it: what an attacker, or a disk, does.
    pub fn tamper(&self, key: &str, bytes: Option<Bytes>) {
        let (path, now) = (Path::from(key), self.now());
        let mut state = self.lock();
        match bytes {
            Some(bytes) => drop(state.insert(path, bytes, now)),
            None => drop(state.objects.remove(&path)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> SystemTime {
        crate::runtime::epoch() + self.start.elapsed()
    }

    /// Applies one request, at once and as a whole.
    pub(crate) fn apply(&self, request: &Request) -> Result<Answer> {
        let now = self.now();
        let mut state = self.lock();
        match request {
            Request::Put(path, payload, mode) => {
                state.check(path, mode)?;
                let etag = state.insert(path.clone(), payload.clone().into(), now);
                Ok(Answer::Put(PutResult {
                    e_tag: Some(etag),
                    version: None,
                    extensions: Extensions::default(),
                }))
            }
            Request::Get(path, options) => state.get(path, options).map(Answer::Get),
            Request::Delete(path) => {
                state.objects.remove(path);
                Ok(Answer::Done)
            }
            Request::List(prefix) => {
                let below =
                    |path: &Path| path.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some());
                let listed = state.objects.iter().filter(|(path, _)| below(path));
                Ok(Answer::Listed(listed.map(|(path, stored)| stored.meta(path)).collect()))
            }
            Request::Copy { from, to, create } => {
                let bytes = state.find(from)?.bytes.clone();
                state.check(to, if *create { &PutMode::Create } else { &PutMode::Overwrite })?;
                state.insert(to.clone(), bytes, now);
                Ok(Answer::Done)
            }
        }
    }
}

impl State {
    fn find(&self, path: &Path) -> Result<&Stored> {
        self.objects
            .get(path)
            .ok_or_else(|| Error::NotFound { path: path.to_string(), source: "no such key".into() })
    }

    fn check(&self, path: &Path, mode: &PutMode) -> Result<()> {
        let refused = |source: &str| Error::Precondition { path: path.to_string(), source: source.into() };
        match (mode, self.objects.get(path)) {
            (PutMode::Overwrite, _) | (PutMode::Create, None) => Ok(()),
            (PutMode::Create, Some(_)) => {
                Err(Error::AlreadyExists { path: path.to_string(), source: "If-None-Match: *".into() })
            }
            (PutMode::Update(_), None) => Err(refused("nothing is there")),
            (PutMode::Update(version), Some(stored)) => match &version.e_tag {
                None => {
                    Err(Error::Generic { store: "sim", source: "a conditional put needs an ETag".into() })
                }
                Some(etag) if *etag == stored.etag => Ok(()),
                Some(_) => Err(refused("If-Match")),
            },
        }
    }

    fn insert(&mut self, path: Path, bytes: Bytes, modified: SystemTime) -> String {
        self.writes += 1;
        let etag = if self.content_etags { hash(&bytes) } else { self.writes };
        let etag = format!("\"{etag:016x}\"");
        self.objects.insert(path, Stored { bytes, etag: etag.clone(), modified });
        etag
    }

    fn get(&self, path: &Path, options: &GetOptions) -> Result<GetResult> {
        let stored = self.find(path)?;
        let meta = stored.meta(path);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..meta.size,
            Some(range) => range
                .as_range(meta.size)
                .map_err(|source| Error::Generic { store: "sim", source: source.into() })?,
        };
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = if options.head {
            Bytes::new()
        } else {
            stored.bytes.slice(index(range.start)..index(range.end))
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter(halves(bytes).map(Ok)).boxed()),
            meta,
            range,
            attributes: Attributes::default(),
            extensions: Extensions::default(),
        })
    }
}

/// In two pieces, as nothing promises that a body comes in one.
fn halves(mut bytes: Bytes) -> [Bytes; 2] {
    let first = bytes.split_to(bytes.len() / 2);
    [first, bytes]
}

impl Stored {
    fn meta(&self, path: &Path) -> ObjectMeta {
        ObjectMeta {
            location: path.clone(),
            last_modified: self.modified.into(),
            size: u64::try_from(self.bytes.len()).unwrap_or(u64::MAX),
            e_tag: Some(self.etag.clone()),
            version: None,
        }
    }
}

/// FNV-1a: no secret, no attacker, the same on every machine.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
