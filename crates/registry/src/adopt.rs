//! Takes over what another registry has stored: CNCF Distribution's ("docker-registry") folder or bucket becomes part of a
//! store, sealed.
//!
//! ```text
//! list the source, read its links (source, tree)
//!   ─► per repository (copy):  blobs ─► manifests, children first ─► tags        each one looked for in the store first
//!   ─► list again: what was written meanwhile?
//!   ─► only if originals are to go (remove):  read everything back ─► list again ─► contents ─► links ─► tags
//! ```
//!
//! Every content is compared with its digest while it is sealed. What is in the store already is not copied again, so a run
//! that was killed is gone on with by another one. The source's registry must be stopped, or read-only, meanwhile; what
//! changed all the same is found by the second listing.
//!
//! Memory: about 400 bytes for each of the source's objects, of which a blob that one repository has are two; it is listed
//! again, and not kept twice. A second run reads every link again, and asks the store for every blob, manifest and tag;
//! contents it reads only where they are missing, or to remove originals.

mod blobs;
mod copy;
mod manifests;
mod remove;
mod report;
mod source;
mod tree;

use std::sync::{Mutex, PoisonError};

use bulla::bucket::{BucketError, ForeignBucket};

use self::copy::Copying;
use self::report::Refusal;
pub use self::report::{AdoptCause, AdoptEvent, AdoptFailure, AdoptProgress, AdoptReport};
use self::source::{Inventory, Listing};
use crate::error::RegistryError;
use crate::registry::Registry;

/// How a source is taken over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AdoptOptions {
    /// Say what would be done and write nothing, neither here nor there.
    pub dry_run: bool,
    /// Remove from the source what was adopted, after all of it was read back from the store and hashed. Nothing is removed if
    /// anything failed, or changed meanwhile. It can't be undone.
    pub delete_source: bool,
    /// Then also remove what no repository of the source has: content without a link, links without content, uploads that did
    /// not end.
    pub drop_unlinked: bool,
    /// Blobs that are copied at once: 8 unless set. Each takes about 24 MiB of memory.
    pub concurrency: usize,
}

impl Default for AdoptOptions {
    fn default() -> Self {
        Self { dry_run: false, delete_source: false, drop_unlinked: false, concurrency: 8 }
    }
}

/// Why an adoption ended early. What was adopted until then stays; run it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// There is nothing of Distribution's in the source.
    #[error("the source has nothing below {}", tree::ROOT)]
    Nothing,
    /// The source can't be listed, or nothing can be removed from it.
    #[error("the source can't be used")]
    Source(#[source] BucketError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] RegistryError),
}

/// What all parts of an adoption write to.
struct Log<'a> {
    report: Mutex<AdoptReport>,
    say: &'a (dyn Fn(AdoptEvent) + Sync),
}

impl Registry {
    /// Takes over what CNCF Distribution has stored in `source`. `say` hears of progress, and of failures as they are found.
    ///
    /// A tag that names another manifest in the store already is a failure and left as it is.
    ///
    /// # Errors
    /// Only what concerns all of it: [`AdoptError`] says what. What concerns one blob, manifest, link or tag is in the
    /// report's `failures`.
    ///
    /// # Cancel safety
    /// What was adopted stays, and nothing is half visible; run it again.
    pub async fn adopt(
        &self,
        source: &ForeignBucket,
        options: AdoptOptions,
        say: &(dyn Fn(AdoptEvent) + Sync),
    ) -> Result<AdoptReport, AdoptError> {
        let log = Log { report: Mutex::default(), say };
        log.progress(AdoptProgress::Looking);
        let listing = Listing::of(source).await.map_err(AdoptError::Source)?;
        if listing.tally().objects == 0 {
            return Err(AdoptError::Nothing);
        }
        let irregular = source.irregular(tree::ROOT).await.map_err(AdoptError::Source)?;
        let (inventory, failures) = Inventory::read(source, &listing).await;
        log.write(|report| {
            report.source = listing.tally();
            report.repositories = inventory.repositories.len() as u64;
            report.uploads = listing.tally_of(&inventory.uploads);
            report.unknown.clone_from(&inventory.unknown);
            report.irregular.clone_from(&irregular);
            report.unlinked = listing.tally_of(inventory.unlinked().into_iter().map(tree::data_key));
        });
        failures.into_iter().for_each(|failure| log.failed(failure));
        // What looks unlinked may be linked by what we don't understand; then nothing is removed at all.
        if options.drop_unlinked {
            let links = format!("{}/repositories/", tree::ROOT);
            for key in inventory.unknown.iter().filter(|key| key.starts_with(&links)) {
                let why =
                    "it may be a link, and what it links would be dropped as unlinked; rename or remove it";
                let refusal = Refusal::new(AdoptCause::Unsupported, why);
                log.failed(AdoptFailure::new(None, format!("object {key}"), refusal));
            }
        }
        if options.delete_source {
            for key in &irregular {
                let why = "it is no file: what it points to would stay, or it itself; put the file in its place, or remove it";
                let refusal = Refusal::new(AdoptCause::Unsupported, why);
                log.failed(AdoptFailure::new(None, format!("object {key}"), refusal));
            }
        }

        let copying = Copying::new(self, source, &inventory, &options, &log);
        copying.all().await?;
        let (now, changed) = listing.again(source).await.map_err(AdoptError::Source)?;
        log.write(|report| (report.unsealed, report.changed) = (now.objects, changed));
        if options.delete_source && !options.dry_run {
            remove::originals(self, source, &listing, &inventory, &options, &log).await?;
        }
        Ok(log.report.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log<'_> {
    fn write<T>(&self, write: impl FnOnce(&mut AdoptReport) -> T) -> T {
        write(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn progress(&self, progress: AdoptProgress) {
        (self.say)(AdoptEvent::Progress(progress));
    }

    fn failed(&self, failure: AdoptFailure) {
        (self.say)(AdoptEvent::Failed(failure.clone()));
        self.write(|report| report.failures.push(failure));
    }
}
