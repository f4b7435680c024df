//! Gc of a registry: what no tag, no manifest and no recent push needs goes.
//!
//! ```text
//! T := the bucket's clock − grace
//! blobs older than T
//! each repository:  links, manifests with their versions    candidates are older than T
//!                   then tags, then manifests again         what they need is marked
//!                   unmarked candidates                     removed, if they are still as they were read
//! blobs that no repository links                            removed, if still not written after T
//! ```
//!
//! Nothing waits, and no clock counts but the bucket's. Who relies on something that is there writes it again if it is older
//! than half of the grace; so either its version is another one than gc read, and gc's removal fails, or gc's marking, which
//! comes later, sees what it was for: a manifest, which is there as a pending one before anything that it needs is looked for,
//! or a link, which is written within a quarter of the grace. Of blobs, which all repositories share, it is the envelope that is
//! written again ([`bulla::Store::renew`]).
//!
//! Killed anywhere and run again, it does what is left; several may run at once.

mod blobs;
mod manifests;
mod repository;

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla::{Digest, MetaKind, MetaVersion, MetaWrite, Tally};
use futures::TryStreamExt;

use crate::error::{ErrorCode, RegistryError, Result};
use crate::facts::REPOSITORY;
use crate::listing::Listing;
use crate::registry::Registry;

/// Meta objects listed in one go.
const PAGE: usize = 1000;

/// Requests at once.
const REQUESTS: usize = 16;

/// How many damaged objects a report names.
const NAMES: usize = 20;

/// What a gc removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectOptions {
    /// Manifests without a tag go once they were neither pushed, nor looked for, nor untagged for so long, but never before
    /// the grace; those that an index or a subject keeps stay. `None`: they all stay.
    pub untagged_after: Option<Duration>,
    /// Find out what would be removed, and change nothing. This machine's clock stands in for the bucket's.
    pub dry_run: bool,
}

/// What a gc did or, in a dry run, would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectReport {
    /// Repositories there are.
    pub repositories: u64,
    /// Manifests that stay.
    pub manifests: u64,
    /// Manifests that went.
    pub removed_manifests: u64,
    /// Tags that went, because what they named was gone.
    pub removed_tags: u64,
    /// Links that stay: blobs, counted once per repository.
    pub links: u64,
    /// Links that went.
    pub removed_links: u64,
    /// Blobs that went, because no repository has them any more. Their data goes with [`bulla::Store::gc`].
    pub removed_blobs: Tally,
    /// Blobs that no repository has, and that stay, because somebody used them within the grace.
    pub too_young: u64,
    /// What can't be read, so that what it needs is unknown: nothing else of its repository was removed, and no blob.
    pub damaged: u64,
    /// The first of it.
    pub damaged_names: Vec<String>,
}

/// How far a gc is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectProgress {
    /// It has listed so many blobs.
    Listing(u64),
    /// It has been through so many repositories.
    Repositories(u64),
    /// It has been through so many blobs that no repository has.
    Blobs(u64),
}

impl Registry {
    /// Removes what nobody needs any more: links without a manifest, untagged manifests if the options say so, and blobs that
    /// no repository has. Pushes and pulls go on throughout; several may run at once. The bytes go with the engine's
    /// [`gc`](bulla::Store::gc) after it. Takes about a hundred bytes of memory for every blob that is older than the grace.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now. Whatever the error, running it again is safe.
    ///
    /// # Cancel safety
    /// A dropped gc has removed a part of what it would: run it again.
    pub async fn collect(
        &self,
        options: &CollectOptions,
        progress: &(dyn Fn(CollectProgress) + Send + Sync),
    ) -> Result<CollectReport> {
        let now = if options.dry_run {
            UNIX_EPOCH + Duration::from_millis(self.store().runtime().now().unix_ms())
        } else {
            self.store().bucket_time().await?
        };
        let grace = self.options().grace;
        let before = |age: Duration| now.checked_sub(age).unwrap_or(UNIX_EPOCH);
        let mut run = Run {
            registry: self.clone(),
            before: before(grace),
            untagged_before: options.untagged_after.map(|age| before(age.max(grace))),
            dry_run: options.dry_run,
            progress,
            report: CollectReport::default(),
        };
        let mut unneeded = run.old_blobs().await?;
        let mut repositories = Listing::new(self, REPOSITORY, &[], PAGE);
        while let Some(page) = repositories.names().await? {
            for name in page {
                let name = name.parse().map_err(|_| RegistryError::damaged("a repository's name"))?;
                run.repository(name, &mut unneeded).await?;
                run.report.repositories += 1;
                progress(CollectProgress::Repositories(run.report.repositories));
            }
        }
        if run.report.damaged > 0 {
            return Ok(run.report);
        }
        run.blobs(unneeded).await?;
        Ok(run.report)
    }

    /// [`collect`](Self::collect) and the engine's gc, again and again, the first after `every`, give or take a tenth, so that
    /// nodes that start together do not all begin at once; a failure is logged, and the next goes on from there. Never returns.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn collect_every(&self, every: Duration, options: CollectOptions) {
        loop {
            let runtime = self.store().runtime();
            let mut random = [0; 4];
            runtime.random().fill(&mut random);
            let share = f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX);
            runtime.sleep((every / 10 * 9).saturating_add((every / 5).mul_f64(share))).await;
            match self.collect(&options, &|_| {}).await {
                Ok(report) if report.damaged > 0 => {
                    tracing::error!(?report, "gc: what is damaged keeps all blobs")
                }
                Ok(report) => tracing::info!(?report, "gc of the registry"),
                Err(error) => tracing::warn!(%error, "gc of the registry"),
            }
            match self.store().gc(bulla::GcOptions::default(), |_| {}).await {
                Ok(report) => tracing::info!(?report, "gc of the store"),
                Err(error) => tracing::warn!(%error, "gc of the store"),
            }
        }
    }
}

struct Run<'a> {
    registry: Registry,
    /// What was written after this stays.
    before: SystemTime,
    /// And manifests without a tag that were written after this; `None`: all of them.
    untagged_before: Option<SystemTime>,
    dry_run: bool,
    progress: &'a (dyn Fn(CollectProgress) + Send + Sync),
    report: CollectReport,
}

impl Run<'_> {
    async fn old_blobs(&self) -> Result<HashSet<Digest>> {
        let mut old = HashSet::new();
        let mut blobs = self.registry.store().list();
        let mut seen = 0;
        while let Some(blob) = blobs.try_next().await? {
            seen += 1;
            (self.progress)(CollectProgress::Listing(seen));
            if blob.modified <= self.before {
                old.insert(blob.digest);
            }
        }
        Ok(old)
    }

    fn is_old(&self, entry_modified: SystemTime) -> bool {
        entry_modified <= self.before
    }

    fn damaged(&mut self, what: String) {
        tracing::error!(%what, "gc can't read what a repository needs");
        self.report.damaged += 1;
        if self.report.damaged_names.len() < NAMES {
            self.report.damaged_names.push(what);
        }
    }

    /// Removes the object at `path` if it is still that version. Whether it is gone.
    async fn remove(&self, kind: MetaKind, path: &[&str], version: &MetaVersion) -> Result<bool> {
        if self.dry_run {
            return Ok(true);
        }
        Ok(match self.registry.store().meta().remove(kind, path, version).await? {
            MetaWrite::Done(()) | MetaWrite::Changed(None) => true,
            MetaWrite::Changed(Some(_)) => false,
        })
    }
}

/// Whether it says that something stored is damaged, and not that something can't be had now.
fn is_damage(error: &RegistryError) -> bool {
    error.code() == ErrorCode::Unknown || error.code() == ErrorCode::ManifestInvalid
}
