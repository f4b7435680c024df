//! A registry: a store, and what it knows beside its blobs.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla::kek::Now;
use bulla::{Digest, ErrorKind, MetaEntry, MetaKind, MetaWrite, Store};
use bytes::Bytes;

use crate::clock::BucketClock;
use crate::error::Result;
use crate::facts::REPOSITORY;
use crate::name::RepositoryName;

/// Repositories that are remembered to be there.
const REMEMBERED: usize = 10_000;

/// Settings of a registry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// How old what nothing needs must be before gc removes it: 24 h unless set. All nodes and gcs over a store agree on it. A
    /// push whose steps follow each other within half of it never loses anything.
    pub grace: Duration,
    /// The longest manifest that is accepted, in bytes; 8 MiB unless set. The specification asks for at least 4 MiB.
    pub max_manifest: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(24 * 60 * 60), max_manifest: 8 << 20 }
    }
}

/// A registry over a store. Cheap to clone; it keeps no state that matters, so any number of nodes may serve one bucket.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: RegistryOptions,
    clock: BucketClock,
    /// They are never removed, so what was seen once stays true.
    repositories: Mutex<HashSet<RepositoryName>>,
}

/// A repository of a registry, there or not.
#[derive(Clone, Debug)]
pub struct Repository {
    registry: Registry,
    name: RepositoryName,
}

/// The first of a list, and whether there are more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a page is this")]
pub struct Page<T> {
    /// Ascending by what they are asked for with: the next page is what comes after the last.
    pub items: Vec<T>,
    /// Whether there are more after them.
    pub more: bool,
}

impl Registry {
    /// The registry in `store`.
    #[must_use]
    pub fn new(store: Store, options: RegistryOptions) -> Self {
        let clock = BucketClock::new(options.grace);
        Self { inner: Arc::new(Inner { store, options, clock, repositories: Mutex::default() }) }
    }

    /// What it is in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Its settings.
    #[must_use]
    pub fn options(&self) -> &RegistryOptions {
        &self.inner.options
    }

    /// The repository `name`, which need not be there: the first push makes it.
    #[must_use]
    pub fn repository(&self, name: RepositoryName) -> Repository {
        Repository { registry: self.clone(), name }
    }

    /// Steps that rely on one another must follow within this time, with as much again for clocks that differ until what the
    /// first of them touched may go.
    pub(crate) fn patience(&self) -> Duration {
        self.options().grace / 4
    }

    /// Now on this machine, for what must be done within [`patience`](Self::patience).
    pub(crate) fn moment(&self) -> Now {
        self.store().runtime().now()
    }

    /// The time since then.
    pub(crate) fn elapsed(&self, since: &Now) -> Duration {
        self.moment().since(since)
    }

    /// Reads the object at `path` for who relies on it: it stays for at least half of the grace. One that is damaged is not
    /// there, so that it is pushed again, which repairs it.
    pub(crate) async fn rely_on(&self, kind: MetaKind, path: &[&str]) -> Result<Option<MetaEntry>> {
        match self.store().meta().get(kind, path).await {
            Ok(Some(entry)) => self.touch(kind, path, entry).await,
            Ok(None) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(%error, "a damaged object is taken for none");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The size of a blob, for who relies on it: it stays for at least half of the grace. One that is damaged is not there, so
    /// that it is pushed again, which repairs it.
    pub(crate) async fn rely_on_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        let size = match self.store().stat(digest).await {
            Ok(blob) if blob.modified > self.counts_since().await? => return Ok(Some(blob.size)),
            Ok(blob) => blob.size,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(%error, "a damaged blob is taken for none");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(self.keep_blob(digest).await?.then_some(size))
    }

    /// As [`rely_on_blob`](Self::rely_on_blob), whether it is there; without looking whether it is damaged, for that costs a
    /// call of the key provider in direct mode.
    pub(crate) async fn keep_blob(&self, digest: &Digest) -> Result<bool> {
        let since = self.counts_since().await?;
        match self.store().renew(digest, since).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(%error, "a damaged blob is taken for none");
                Ok(false)
            }
            there => Ok(there?),
        }
    }

    /// What was written before this is written again when it is relied on.
    async fn counts_since(&self) -> Result<SystemTime> {
        let now = self.inner.clock.now(self.store()).await?;
        Ok(now.checked_sub(self.options().grace / 2).unwrap_or(UNIX_EPOCH))
    }

    /// Keeps the object at `path` as long as gc's grace from now on: one that is older than half of it is written again. `None`
    /// if it is gone.
    pub(crate) async fn touch(
        &self,
        kind: MetaKind,
        path: &[&str],
        mut entry: MetaEntry,
    ) -> Result<Option<MetaEntry>> {
        loop {
            let now = self.inner.clock.now(self.store()).await?;
            let age = now.duration_since(entry.modified).unwrap_or_default();
            if age < self.options().grace / 2 {
                return Ok(Some(entry));
            }
            let written =
                self.store().meta().update(kind, path, entry.payload.clone(), &entry.version).await?;
            match written {
                MetaWrite::Done(version) => {
                    entry.version = version;
                    entry.modified = now;
                    return Ok(Some(entry));
                }
                MetaWrite::Changed(Some(other)) => entry = other,
                MetaWrite::Changed(None) => return Ok(None),
            }
        }
    }

    /// Makes or replaces the object at `path`, damaged ones included: one request where there is none, which is usual. One that
    /// says the same is touched.
    pub(crate) async fn write(&self, kind: MetaKind, path: &[&str], payload: Bytes) -> Result<()> {
        let meta = self.store().meta();
        let mut written = match meta.create(kind, path, payload.clone()).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(%error, "a damaged object is replaced");
                meta.set(kind, path, payload).await?;
                return Ok(());
            }
            written => written?,
        };
        loop {
            let found = match written {
                MetaWrite::Done(_) => return Ok(()),
                MetaWrite::Changed(Some(entry)) if entry.payload == payload => {
                    match self.touch(kind, path, entry).await? {
                        Some(entry) if entry.payload == payload => return Ok(()),
                        found => found,
                    }
                }
                MetaWrite::Changed(found) => found,
            };
            written = match found {
                Some(entry) => meta.update(kind, path, payload.clone(), &entry.version).await?,
                None => meta.create(kind, path, payload.clone()).await?,
            };
        }
    }

    /// As [`write`](Self::write), and it is another version afterwards, whatever it said.
    pub(crate) async fn write_anew(&self, kind: MetaKind, path: &[&str], payload: Bytes) -> Result<()> {
        let meta = self.store().meta();
        if let Ok(MetaWrite::Done(_)) = meta.create(kind, path, payload.clone()).await {
            return Ok(());
        }
        meta.set(kind, path, payload).await?;
        Ok(())
    }

    /// Removes the object at `path`, whatever it says. Whether it was there.
    pub(crate) async fn remove(&self, kind: MetaKind, path: &[&str]) -> Result<bool> {
        let meta = self.store().meta();
        let mut entry = match meta.get(kind, path).await {
            // Nobody can read it; it is replaced, to be removed.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let version = meta.set(kind, path, Bytes::from_static(b"{}")).await?;
                return Ok(meta.remove(kind, path, &version).await?.is_done());
            }
            found => match found? {
                Some(entry) => entry,
                None => return Ok(false),
            },
        };
        while let MetaWrite::Changed(Some(other)) = meta.remove(kind, path, &entry.version).await? {
            entry = other;
        }
        Ok(true)
    }
}

impl Repository {
    /// The registry that it is in.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Whether anything was ever pushed to it.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    pub async fn exists(&self) -> Result<bool> {
        if self.is_remembered() {
            return Ok(true);
        }
        let there = match self.store().meta().get(REPOSITORY, &[self.name.as_str()]).await {
            // What it says does not matter; the next push repairs it.
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(true),
            there => there?.is_some(),
        };
        if there {
            self.remember();
        }
        Ok(there)
    }

    /// Makes it, unless it is there.
    pub(crate) async fn ensure(&self) -> Result<()> {
        if !self.is_remembered() {
            let (meta, path) = (self.store().meta(), [self.name.as_str()]);
            let payload = Bytes::from_static(b"{}");
            // Never written again: a listing of files may miss what is replaced meanwhile, and gc the repository.
            match meta.create(REPOSITORY, &path, payload.clone()).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    meta.set(REPOSITORY, &path, payload).await?;
                }
                created => drop(created?),
            }
            self.remember();
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> &Store {
        self.registry.store()
    }

    fn is_remembered(&self) -> bool {
        self.registry.inner.repositories.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.name)
    }

    fn remember(&self) {
        let mut known = self.registry.inner.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(self.name.clone());
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("store", &self.inner.store)
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
