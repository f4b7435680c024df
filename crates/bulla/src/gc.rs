//! Gc: removes data objects that no envelope and no upload session names.
//!
//! ```text
//! T := the bucket's clock − grace ─► horizon := T ─► wait for writers, if the grace is a short one
//!   ─► mark     list and open every session, then every envelope: the extents that are named; then both again, what is new
//!               or changed. In this order, for a commit creates the envelope first and then removes the session
//!   ─► expired  remove the envelopes of blobs past their time; this mark still counts their data as named
//!   ─► collect  remove data that is older than T and not named, in batches: the lease is live, the log was read again
//! ```
//!
//! What may be removed is fixed when marking begins, however late the removal itself happens; [`crate::horizon`] says why
//! nothing that a writer acknowledged is among it. Killed anywhere and run again, it does what is left; nothing that it
//! found out is ever stored.

mod collect;
mod mark;

use std::ops::AddAssign;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bulla_envelope::digest::Digest;
use bulla_envelope::job::JOBS;
use futures::TryStreamExt;

use crate::bucket::{Conditional, PROBE};
use crate::commit::contended;
use crate::envelopes::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::horizon::{Horizon, unix_ms};
use crate::shred::Shredded;
use crate::store::{Store, StoreInner};
use crate::sweep::{SweepEvent, SweepOptions};

pub(crate) use self::collect::DATA;
pub(crate) use self::mark::{BLOBS, Named};

const ATTEMPTS: usize = 16;

/// A request to an object store that was sent by somebody who did not know the horizon yet has arrived after this time: its
/// client gives it up after 30 s.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(60);

/// What an object that shows the bucket's time is called, before its random part.
const CLOCK: &str = "jobs/clock-";
/// Whatever process made a small object for a moment has ended by then.
const LEFTOVER: Duration = Duration::from_secs(24 * 60 * 60);
/// An upload session that nobody went on with for this long is given up.
const IDLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a gc removes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Data that was written less than this before the gc began stays. Without it
    /// [`gc_grace`](crate::EngineBuilder::gc_grace), which writers count on. A shorter one makes the gc wait for them,
    /// R and a minute, and makes uploads that began before it copy their data; those that stall meanwhile fail.
    pub grace: Option<Duration>,
    /// Find out what would be removed, and change nothing. This machine's clock stands in for the bucket's.
    pub dry_run: bool,
}

/// A number of objects and what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

/// What a gc did or, in a dry run, would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Blobs there are.
    pub envelopes: u64,
    /// Blobs past their time, whose envelopes were removed. Their data goes with the next gc.
    pub expired: u64,
    /// Upload sessions there are.
    pub uploads: u64,
    /// Upload sessions that nobody went on with for seven days, and that were removed. Their data goes with the next gc.
    pub expired_uploads: u64,
    /// All data objects.
    pub data: Tally,
    /// Removed, because no envelope and no upload session named them.
    pub removed: Tally,
    /// Named by nothing, and not older than the grace.
    pub too_young: Tally,
    /// Objects among the data that are none of Bulla's. They were left alone.
    pub foreign: Tally,
    /// The names of the first of them.
    pub foreign_names: Vec<String>,
    /// Wraps of keys that were destroyed. A dry run does not look for them.
    pub shredded: Shredded,
}

/// How far a gc is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GcProgress {
    /// It waits until every writer knows of it.
    Waiting(Duration),
    /// It has opened so many envelopes.
    Marking(u64),
    /// It has looked at so many data objects, and removed so many.
    Collecting {
        /// Looked at.
        seen: Tally,
        /// Removed.
        removed: Tally,
    },
    /// A retired store key is due: it has opened so many envelopes again.
    Shredding(u64),
}

impl Store {
    /// Removes what nobody needs any more: data that no blob and no upload session names, blobs past their time, upload
    /// sessions that nobody went on with for seven days, and the wraps of retired keys. Reads and writes go on throughout;
    /// several may run at once. `progress` is called often. (FORMAT-P13)
    ///
    /// # Errors
    /// `Corrupt` where an envelope or session can't be opened: what it names is unknown, so no data is removed until it is
    /// restored or deleted. `Revoked`, `Unavailable`, `Throttled` as everywhere. Whatever the error, running it again is
    /// safe.
    ///
    /// # Cancel safety
    /// A dropped gc has removed a part of what it would: run it again.
    pub async fn gc(
        &self,
        options: GcOptions,
        mut progress: impl FnMut(GcProgress) + Send,
    ) -> Result<GcReport> {
        self.inner().gc(options, &mut progress).await
    }
}

impl StoreInner {
    async fn gc(
        &self,
        options: GcOptions,
        progress: &mut (dyn FnMut(GcProgress) + Send),
    ) -> Result<GcReport> {
        let usual = self.parts.gc_grace;
        let grace = options.grace.unwrap_or(usual);
        let began = if options.dry_run { self.parts.runtime.now().wall } else { self.bucket_time().await? };
        let before = Horizon(unix_ms(began).saturating_sub(millis(grace)));
        if !options.dry_run {
            self.raise_horizon(before).await?;
            if grace < usual {
                self.wait_for_writers(progress).await?;
            }
        }
        let mut report = GcReport::default();
        if let Some(idle_since) = began.checked_sub(IDLE)
            && !options.dry_run
        {
            report.expired_uploads = self.expire_sessions(idle_since).await?;
        }
        let mark = self.mark(unix_ms(began), progress).await?;
        (report.envelopes, report.uploads) = (mark.envelopes, mark.uploads);
        for digest in &mark.expired {
            report.expired += u64::from(options.dry_run || self.remove_expired(digest, began).await?);
        }
        self.collect(&mark, before, options.dry_run, &mut report, progress).await?;
        if !options.dry_run {
            self.remove_leftovers(began).await?;
            // Last, for it may look at every envelope again.
            let progress = Mutex::new(progress);
            let tell = |event| {
                if let SweepEvent::Progress(at) = event {
                    (progress.lock().unwrap_or_else(PoisonError::into_inner))(GcProgress::Shredding(
                        at.envelopes,
                    ));
                }
            };
            report.shredded = self.shred(grace, &SweepOptions::default(), &tell).await?;
        }
        Ok(report)
    }

    /// What the bucket's clock says: when an object that is written now was written.
    pub(crate) async fn bucket_time(&self) -> Result<SystemTime> {
        self.gate.secrets(self).await?;
        let key = format!("{CLOCK}{:032x}", u128::from_be_bytes(self.nonce()));
        self.bucket.put_new(&key, "now".into()).await?;
        let entry = self.bucket.head(&key).await;
        if let Err(error) = self.bucket.delete_data(&key).await {
            tracing::debug!(%error, key, "an object of three bytes stays");
        }
        let vanished = || Error::new(ErrorKind::Unavailable, "the object store lost what was just written");
        Ok(entry?.ok_or_else(vanished)?.last_modified)
    }

    /// Objects of a few bytes that killed processes left behind: of clocks, and of the probe that opening a store is.
    async fn remove_leftovers(&self, began: SystemTime) -> Result<()> {
        let mut listing = self.bucket.list(JOBS);
        while let Some(entry) = listing.try_next().await? {
            let is_leftover = entry.key.starts_with(CLOCK) || entry.key.starts_with(PROBE);
            let age = began.duration_since(entry.last_modified).unwrap_or_default();
            if is_leftover && age > LEFTOVER {
                self.patiently(|| async { Ok(self.bucket.delete_data(&entry.key).await?) }).await?;
            }
        }
        Ok(())
    }

    /// After R every writer acknowledges with the new horizon in view, and what others sent before has arrived.
    async fn wait_for_writers(&self, progress: &mut (dyn FnMut(GcProgress) + Send)) -> Result<()> {
        let bound = self.gate.revocation_bound();
        let wait = if self.bucket.is_folder() { bound } else { bound + IN_FLIGHT };
        progress(GcProgress::Waiting(wait));
        self.parts.runtime.sleep(wait).await;
        Ok(())
    }

    /// Removes the envelope of a blob that is past its time by the bucket's clock and by this machine's, as a delete does.
    /// Whether it was there to be removed.
    async fn remove_expired(&self, digest: &Digest, began: SystemTime) -> Result<bool> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            // Read again: it may have been put anew, to stay.
            let Found::Blob(found) = self.read_envelope(digest).await? else { return Ok(attempt > 0) };
            if !self.has_expired(found.record.expires, unix_ms(began)) {
                return Ok(false);
            }
            let keys = self.gate.secrets(self).await?;
            match self.bucket.remove(&self.blob_key(&keys, digest), &found.version, self.nonce()).await {
                Conditional::Done(()) => {
                    self.cache.remove(digest);
                    return Ok(true);
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
        }
        Err(contended(failure, digest))
    }

    fn has_expired(&self, expires: Option<u64>, began: u64) -> bool {
        expires.is_some_and(|expires| expires <= began.min(self.parts.runtime.now().unix_ms()))
    }
}

impl Tally {
    pub(crate) fn one(bytes: u64) -> Self {
        Self { objects: 1, bytes }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
