//! Verify: does everything that should be there check out?
//!
//! ```text
//! log    contiguous; every older record that is not a stub has the hash that the newest remembers
//! blobs  every envelope opens under its name; every extent is there, at exactly its length
//! deep   every byte is read, authenticates, and the whole has the digest that names it
//! uploads  every session opens; its data is there
//! data   what neither names, as information: of unfinished puts, or gc's
//! ```
//!
//! It goes on after damage and changes nothing.

mod blob;
mod log;
mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulla_envelope::digest::Digest;
use bulla_envelope::ids::ExtentName;
use bulla_envelope::names::extent_of_key;
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::gc::{BLOBS, DATA, Tally};
use crate::store::{Store, StoreInner};

/// Envelopes looked at at once.
const LOOKS: usize = 16;
/// Blobs read at once: each may hold what a stream may hold.
const READS: usize = 4;
/// How many objects that no envelope names a report names.
const NAMES: usize = 20;

/// How much is verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Which share of the blobs, chosen at random, is read in full: 0 none, 1 all.
    pub read: f64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Those of them that were read in full, and how many bytes they have.
    pub read: Tally,
    /// Upload sessions looked at.
    pub uploads: u64,
    /// What is damaged; each was told as a [`VerifyEvent::Damaged`].
    pub damaged: u64,
    /// Log records, stubs included.
    pub log_records: u64,
    /// Those of them that were replaced by a stub.
    pub log_stubs: u64,
    /// Data objects.
    pub data: Tally,
    /// Data objects that no envelope and no upload session names: what unfinished, failed and deleted puts leave to gc.
    pub unnamed: Tally,
    /// Objects among the data that are none of Bulla's.
    pub foreign: Tally,
    /// The names of the first of them.
    pub foreign_names: Vec<String>,
}

/// Something that does not check out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The blob that can't be had; `None` where it is not about one.
    pub digest: Option<Digest>,
    /// The object, below the store's prefix.
    pub object: String,
    /// What is wrong with it, in a few words.
    pub what: String,
}

/// Told while a verification runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyEvent {
    /// How far it is.
    Progress(VerifyProgress),
    /// Something does not check out.
    Damaged(Damage),
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Blobs done.
    pub blobs: u64,
    /// Blobs there were at the start.
    pub of_blobs: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// About as many will be.
    pub of_bytes: u64,
}

impl Store {
    /// Checks every blob, and reads as many of them as `options` say. `on_event` is called with each damage as it is found,
    /// and often with the progress, so that who drops this knows what was found so far. Damage is no error: look at
    /// [`VerifyReport::damaged`].
    ///
    /// # Errors
    /// What keeps it from finding out: `Revoked`, `Unavailable`, `Throttled` as everywhere; `Corrupt` where the newest log
    /// record is damaged; `Invalid` where the share to read is none.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn verify(
        &self,
        options: VerifyOptions,
        mut on_event: impl FnMut(VerifyEvent) + Send,
    ) -> Result<VerifyReport> {
        if !(0.0..=1.0).contains(&options.read) {
            return Err(Error::invalid("the share of blobs to read is between 0 and 1"));
        }
        let run = Run {
            inner: Arc::clone(self.inner()),
            share: options.read,
            data: Vec::new(),
            state: Mutex::new(State {
                report: VerifyReport::default(),
                progress: VerifyProgress::default(),
                named: Vec::new(),
                on_event: &mut on_event,
            }),
        };
        run.run().await
    }
}

/// One verification.
struct Run<'a> {
    inner: Arc<StoreInner>,
    share: f64,
    /// What the listing of the data showed, sorted: 24 bytes for each object.
    data: Vec<(ExtentName, u64)>,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    report: VerifyReport,
    progress: VerifyProgress,
    /// A bit for each element of `data`.
    named: Vec<u64>,
    on_event: &'a mut (dyn FnMut(VerifyEvent) + Send),
}

impl<'a> Run<'a> {
    async fn run(mut self) -> Result<VerifyReport> {
        self.check_log().await?;
        self.list_data().await?;
        self.count_blobs().await?;
        // Before the blobs: who commits creates the envelope first and then removes the session.
        self.check_sessions().await?;
        self.check_blobs().await?;
        Ok(self.finish())
    }

    async fn check_blobs(&self) -> Result<()> {
        let at_once = if self.share > 0.0 { READS } else { LOOKS };
        let entries = self.inner.bucket.list(BLOBS).map_err(Error::from);
        let blobs = entries.try_filter(|entry| std::future::ready(!entry.is_tombstone()));
        let checks = blobs.map_ok(|entry| self.check_entry(entry)).try_buffer_unordered(at_once);
        checks.try_for_each(|()| std::future::ready(Ok(()))).await
    }

    /// What is written from here on is looked for by name.
    async fn list_data(&mut self) -> Result<()> {
        let mut listing = self.inner.bucket.list(DATA);
        let mut data = Vec::new();
        while let Some(entry) = listing.try_next().await? {
            let mut state = self.state();
            state.report.data += Tally::one(entry.size);
            match extent_of_key(&entry.key) {
                Some(name) => data.push((name, entry.size)),
                None => {
                    state.report.foreign += Tally::one(entry.size);
                    if state.report.foreign_names.len() < NAMES {
                        state.report.foreign_names.push(entry.key);
                    }
                }
            }
        }
        data.sort_unstable();
        let mut state = self.state();
        state.named = vec![0; data.len().div_ceil(64)];
        let stored: u64 = data.iter().map(|(_, size)| size).sum();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let of_bytes = (stored as f64 * self.share) as u64;
        state.progress.of_bytes = of_bytes;
        drop(state);
        self.data = data;
        Ok(())
    }

    async fn count_blobs(&self) -> Result<()> {
        let mut listing = self.inner.bucket.list(BLOBS);
        let mut blobs = 0;
        while let Some(entry) = listing.try_next().await? {
            blobs += u64::from(!entry.is_tombstone());
        }
        self.state().progress.of_blobs = blobs;
        Ok(())
    }

    fn finish(self) -> VerifyReport {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut report = state.report;
        for (at, (_, size)) in self.data.iter().enumerate() {
            if state.named[at / 64] >> (at % 64) & 1 == 0 {
                report.unnamed += Tally::one(*size);
            }
        }
        report
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, digest: Option<Digest>, object: String, what: String) {
        let mut state = self.state();
        state.report.damaged += 1;
        (state.on_event)(VerifyEvent::Damaged(Damage { digest, object, what }));
    }

    /// Counts what is done, and tells it.
    fn advance(&self, blobs: u64, bytes: u64) {
        let mut state = self.state();
        state.report.blobs += blobs;
        state.progress.blobs += blobs;
        state.progress.bytes += bytes;
        let progress = state.progress;
        (state.on_event)(VerifyEvent::Progress(progress));
    }
}
