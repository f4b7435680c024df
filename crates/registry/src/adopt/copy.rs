//! A few repositories at once; in each what its blobs are, then its manifests, then its tags, so that a tag that can be pulled
//! can be pulled whole.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bulla::bucket::ForeignBucket;
use bulla::{Digest, Tally};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Semaphore};

use super::report::{AdoptCause, AdoptFailure, Refusal};
use super::source::{Inventory, SourceRepository};
use super::{AdoptOptions, Log};
use crate::error::{RegistryError, Result};
use crate::name::{Reference, RepositoryName, Tag};
use crate::registry::{Registry, Repository};

/// Most of a registry's repositories are small: one at a time, and it is the way to the bucket that takes the time.
const REPOSITORIES: usize = 4;

/// Blobs, manifests or tags of a repository that are looked for at once: small requests, where content has
/// [`AdoptOptions::concurrency`].
pub(super) const LOOKS: usize = 32;

/// Blobs that are not the same lock each other out once in so many.
const LOCKS: usize = 256;

/// So many things may be unavailable before it is taken for all of them.
const MAX_UNAVAILABLE: usize = 100;

/// Why one thing is not adopted; or why nothing more is.
pub(super) type Adopted<T> = Result<Result<T, Refusal>, RegistryError>;

pub(super) struct Copying<'a> {
    pub(super) registry: &'a Registry,
    pub(super) source: &'a ForeignBucket,
    pub(super) inventory: &'a Inventory,
    pub(super) options: &'a AdoptOptions,
    pub(super) log: &'a Log<'a>,
    /// Blobs that are in the report: each once, however many repositories have it.
    pub(super) counted: Mutex<HashSet<&'a Digest>>,
    pub(super) bytes: AtomicU64,
    pub(super) of_bytes: u64,
    unavailable: AtomicUsize,
    /// For each content that is on its way through this machine.
    pub(super) seals: Semaphore,
    /// So that a layer that several repositories have is sealed by the first that comes to it, and found by the others.
    locks: Vec<AsyncMutex<()>>,
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        source: &'a ForeignBucket,
        inventory: &'a Inventory,
        options: &'a AdoptOptions,
        log: &'a Log<'a>,
    ) -> Self {
        Self {
            registry,
            source,
            inventory,
            options,
            log,
            counted: Mutex::default(),
            bytes: AtomicU64::default(),
            of_bytes: inventory.layers().iter().filter_map(|digest| inventory.data.get(digest)).sum(),
            unavailable: AtomicUsize::default(),
            seals: Semaphore::new(options.concurrency.max(1)),
            locks: std::iter::repeat_with(AsyncMutex::default).take(LOCKS).collect(),
        }
    }

    pub(super) async fn all(&self) -> Result<()> {
        stream::iter(&self.inventory.repositories)
            .map(|(name, found)| self.repository(name, found))
            .buffer_unordered(REPOSITORIES)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    async fn repository(&self, name: &RepositoryName, found: &'a SourceRepository) -> Result<()> {
        let repository = &self.registry.repository(name.clone());
        stream::iter(&found.layers)
            .map(|digest| async move {
                let done = self.blob(repository, digest).await;
                self.settle(name, || format!("blob {digest}"), done).map(|blob| self.count(digest, blob))
            })
            .buffer_unordered(LOOKS)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        let there = &self.manifests(repository, found).await?;
        stream::iter(&found.tags)
            .map(|(tag, digest)| async move {
                let done = self.tag(repository, there, tag, digest).await;
                self.settle(name, || format!("tag {tag}"), done).map(drop)
            })
            .buffer_unordered(LOOKS)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    /// Names what failed and goes on, unless it concerns everything.
    pub(super) fn settle<T>(
        &self,
        name: &RepositoryName,
        what: impl FnOnce() -> String,
        done: Adopted<T>,
    ) -> Result<Option<T>> {
        let refusal = match done {
            Ok(Ok(done)) => return Ok(Some(done)),
            Ok(Err(refusal)) => refusal,
            Err(error) => Refusal::of_registry(&error).ok_or(error)?,
        };
        if refusal.cause == AdoptCause::Unavailable
            && self.unavailable.fetch_add(1, Ordering::Relaxed) >= MAX_UNAVAILABLE
        {
            // Each of millions would wait for its retries.
            let why = refusal.why;
            return Err(RegistryError::busy(format!(
                "too much can't be read for the rest to be tried: {why}"
            )));
        }
        self.log.failed(AdoptFailure::new(Some(name), what(), refusal));
        Ok(None)
    }

    /// Waits until nobody else is at this content.
    pub(super) async fn lock(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(digest);
        let at = usize::try_from(hash % LOCKS as u64).unwrap_or_default();
        self.locks[at].lock().await
    }

    async fn tag(
        &self,
        repository: &Repository,
        there: &HashSet<Digest>,
        tag: &Tag,
        digest: &Digest,
    ) -> Adopted<()> {
        match repository.tag(tag).await? {
            Some(named) if named == *digest => {
                self.log.write(|report| report.present_tags += 1);
                return Ok(Ok(()));
            }
            Some(named) => {
                let why = format!(
                    "it names {digest} in the source, and {named} in the store; delete one of the two"
                );
                return Ok(Err(Refusal::new(AdoptCause::Conflict, why)));
            }
            None => {}
        }
        // What a run before has removed the links of in the source is in the store.
        let reference = Reference::Digest(digest.clone());
        if !there.contains(digest) && repository.manifest(&reference).await?.is_none() {
            return Ok(Err(Refusal::damaged(format!("it names {digest}, which is not adopted"))));
        }
        if !self.options.dry_run && !repository.tag_existing(tag, digest).await? {
            let why = format!("it names {digest}, which gc has removed as untagged meanwhile; run it again");
            return Ok(Err(Refusal::new(AdoptCause::Unavailable, why)));
        }
        self.log.write(|report| report.tags += 1);
        Ok(Ok(()))
    }
}

/// A lock that was held by who panicked is as good as any: what it guards is only ever added to.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add(tally: &mut Tally, bytes: u64) {
    tally.objects += 1;
    tally.bytes += bytes;
}
