//! A sweep: every envelope is looked at, and its DEK wrapped again under the active key where it is under another.
//!
//! ```text
//! blobs/<root>/00 … 0f │ 10 … 1f │ … │ f0 … ff      16 rows of 16 prefixes; one job object says how far each is
//!        row 0         │  row 1  │   │  row 15       a node claims a row, sweeps it, checkpoints, claims the next
//! ```
//!
//! Claims and checkpoints save work, no more: several nodes at one row only do it twice. What makes a sweep right is that
//! every write is conditional on the envelope that was read, so nothing newer is undone and nothing deleted comes back.

pub(crate) mod envelope;

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bulla_envelope::job::{Claim, PREFIXES_PER_ROW, ROWS, Row, Sweep};
use bulla_envelope::names::blobs_prefix;
use futures::future::{Either, select};
use futures::{StreamExt, TryStreamExt, stream};

use self::envelope::Outcome;
use crate::count::Count;
use crate::error::{Error, Result};
use crate::pace::Pace;
use crate::store::StoreInner;

/// Prefixes of a store.
pub(crate) const PREFIXES: u32 = 256;
/// Prefixes that are listed at once.
pub(crate) const WIDTH: usize = 4;
/// A node tells the others this often how far it is.
const CHECKPOINT: Duration = Duration::from_secs(3);
/// A claim that was not renewed for so long may be taken over.
const CLAIM: Duration = Duration::from_secs(15);

/// How long work over all envelopes is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct SweepOptions {
    /// At most so many envelopes per second; without it as many as can be.
    pub rate: Option<NonZeroU32>,
    /// So many envelopes at once; 16 unless set, and 64 on an object store in hierarchical mode.
    pub concurrency: Option<NonZeroUsize>,
}

/// What happens during long work over all envelopes, for whoever watches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SweepEvent {
    /// The work begins, or goes on where it was interrupted.
    Started {
        /// The keys that are being replaced.
        from: Vec<String>,
        /// The key that replaces them.
        to: String,
        /// Whether somebody began it before.
        resumed: bool,
    },
    /// Until every node has seen the new key.
    Waiting(Duration),
    /// So far.
    Progress(SweepProgress),
    /// A sixteenth is done.
    RowDone(u8),
    /// An envelope or upload session that can't be opened. It stays as it is, and keeps old keys from being retired.
    Failed {
        /// The object.
        key: String,
        /// What is wrong with it.
        error: String,
    },
    /// Every envelope was opened, and counted by the key that its DEK is wrapped under.
    Counted(Count),
    /// Nothing is under these keys any more.
    Retired(Vec<String>),
}

/// How far long work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepProgress {
    /// What is being done.
    pub phase: SweepPhase,
    /// Prefixes that are done, whoever did them; names are spread evenly over them.
    pub done: u32,
    /// Of so many.
    pub total: u32,
    /// Envelopes that this process looked at.
    pub envelopes: u64,
    /// Envelopes that this process wrapped again.
    pub rewrapped: u64,
    /// Envelopes that this process could not open.
    pub failed: u64,
}

/// A part of long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SweepPhase {
    /// DEKs are wrapped again.
    Rewrap,
    /// Every envelope is opened and counted.
    Count,
}

impl fmt::Display for SweepPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rewrap => "rewrap",
            Self::Count => "count",
        })
    }
}

/// Whoever watches.
pub(crate) type Observer<'a> = &'a (dyn Fn(SweepEvent) + Send + Sync);

/// One process's part in long work.
pub(crate) struct Work<'a> {
    pub(crate) store: &'a StoreInner,
    pub(crate) observe: Observer<'a>,
    pub(crate) pace: Pace,
    concurrency: usize,
    node: [u8; 16],
    phase: SweepPhase,
    done: AtomicU64,
    envelopes: AtomicU64,
    rewrapped: AtomicU64,
    failed: AtomicU64,
}

/// What became of the envelopes of one prefix.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    rewrapped: u64,
    failed: u64,
}

/// How far this process is in a row; the tally is of what it has not told the others.
struct RowDone {
    next: u8,
    tally: Tally,
}

enum Next {
    Row { row: u8, from: u8 },
    Wait(Duration),
    Done,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        store: &'a StoreInner,
        phase: SweepPhase,
        options: &SweepOptions,
        asks_the_kek: bool,
        observe: Observer<'a>,
    ) -> Self {
        let usual = if store.bucket.is_folder() || asks_the_kek { 16 } else { 64 };
        let concurrency = options.concurrency.map_or(usual, NonZeroUsize::get);
        let zero = AtomicU64::default;
        Self {
            pace: Pace::new(options.rate),
            node: store.nonce(),
            concurrency,
            phase,
            store,
            observe,
            done: zero(),
            envelopes: zero(),
            rewrapped: zero(),
            failed: zero(),
        }
    }

    /// Takes part in the sweep `name` until all of it is done, by whomever. Envelopes that can't be opened are left as they
    /// are; the count afterwards names them.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled`, `Conflict`: what is done is done, and it can be gone on with.
    pub(crate) async fn sweep(&self, name: &str) -> Result<()> {
        loop {
            match self.claim(name).await? {
                Next::Row { row, from } => self.sweep_row(name, row, from).await?,
                Next::Wait(wait) => self.store.parts.runtime.sleep(wait).await,
                Next::Done => return self.sweep_sessions().await,
            }
        }
    }

    /// The same without telling anybody: for the little that is left now and then.
    ///
    /// # Errors
    /// As [`sweep`](Self::sweep).
    pub(crate) async fn sweep_alone(&self) -> Result<()> {
        let prefixes = (0..PREFIXES).filter_map(|prefix| u8::try_from(prefix).ok());
        let mut prefixes =
            stream::iter(prefixes).map(|prefix| self.sweep_prefix(prefix)).buffer_unordered(WIDTH);
        while prefixes.try_next().await?.is_some() {
            self.note_prefix();
        }
        self.sweep_sessions().await
    }

    /// The next row that nobody is at.
    async fn claim(&self, name: &str) -> Result<Next> {
        // Not all nodes try the same row first.
        let start = self.store.nonce()[0] % ROWS;
        let next = self.store.change_sweep(name, |sweep| {
            let now = self.store.parts.runtime.now().unix_ms();
            self.note_done(sweep);
            if sweep.rows.iter().all(Row::is_done) {
                return (false, Next::Done);
            }
            let free = (0..ROWS).map(|row| (row + start) % ROWS).find(|row| {
                let row = &sweep.rows[usize::from(*row)];
                !row.is_done() && !row.claim.is_some_and(|claim| self.is_held(&claim, now))
            });
            let Some(row) = free else {
                let ends = sweep.rows.iter().filter_map(|row| Some(row.claim?.until));
                let wait = Duration::from_millis(ends.min().unwrap_or(now).saturating_sub(now));
                return (false, Next::Wait(wait.clamp(Duration::from_millis(100), CHECKPOINT)));
            };
            let claimed = &mut sweep.rows[usize::from(row)];
            claimed.claim = Some(self.new_claim(now));
            (true, Next::Row { row, from: claimed.next })
        });
        next.await
    }

    /// Whether another node is at it. A claim that ends later than any node would have it was made under a wrong clock.
    fn is_held(&self, claim: &Claim, now: u64) -> bool {
        claim.node != self.node && claim.until > now && claim.until - now <= 4 * millis(CLAIM)
    }

    fn new_claim(&self, now: u64) -> Claim {
        Claim { node: self.node, until: now.saturating_add(millis(CLAIM)) }
    }

    async fn sweep_row(&self, name: &str, row: u8, from: u8) -> Result<()> {
        let done = Mutex::new(RowDone { next: from, tally: Tally::default() });
        if !self.sweep_prefixes(name, row, from, &done).await? {
            // Somebody took it over, who will go on.
            return Ok(());
        }
        self.checkpoint(name, row, &done).await?;
        (self.observe)(SweepEvent::RowDone(row));
        Ok(())
    }

    /// Works and checkpoints side by side: a future that is not polled while another is awaited could hold the very lock
    /// that the other waits for. `false`: the row is another's by now.
    async fn sweep_prefixes(&self, name: &str, row: u8, from: u8, done: &Mutex<RowDone>) -> Result<bool> {
        let work = async {
            let prefixes = (from..PREFIXES_PER_ROW).map(|prefix| self.sweep_prefix(row * ROWS + prefix));
            // In order, so that what is done can be told by one number.
            let mut prefixes = stream::iter(prefixes).buffered(WIDTH);
            while let Some(tally) = prefixes.try_next().await? {
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.next += 1;
                done.tally.rewrapped += tally.rewrapped;
                done.tally.failed += tally.failed;
                drop(done);
                self.done.fetch_add(1, Ordering::Relaxed);
                self.progress();
            }
            Ok(true)
        };
        let beat = async {
            loop {
                self.store.parts.runtime.sleep(CHECKPOINT).await;
                self.progress();
                if !self.checkpoint(name, row, done).await? {
                    return Ok(false);
                }
            }
        };
        match select(pin!(work), pin!(beat)).await {
            Either::Left((result, _)) | Either::Right((result, _)) => result,
        }
    }

    /// Tells the others how far the row is. `false`: it is another's by now.
    async fn checkpoint(&self, name: &str, row: u8, done: &Mutex<RowDone>) -> Result<bool> {
        let (next, tally) = {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            (done.next, std::mem::take(&mut done.tally))
        };
        let ours = self.store.change_sweep(name, |sweep| {
            let now = self.store.parts.runtime.now().unix_ms();
            let row = &mut sweep.rows[usize::from(row)];
            row.next = row.next.max(next);
            row.rewrapped = row.rewrapped.saturating_add(tally.rewrapped);
            row.failed = row.failed.saturating_add(tally.failed);
            let ours = row.claim.is_none_or(|claim| !self.is_held(&claim, now));
            if row.is_done() {
                row.claim = None;
            } else if ours {
                row.claim = Some(self.new_claim(now));
            }
            self.note_done(sweep);
            (true, ours)
        });
        ours.await
    }

    async fn sweep_prefix(&self, prefix: u8) -> Result<Tally> {
        let keys = self.envelope_keys(prefix).await?;
        let outcomes = stream::iter(keys).map(|key| async move {
            self.pace.turn(&*self.store.parts.runtime).await;
            let outcome = self.store.patiently(|| self.store.rewrap_envelope(&key)).await?;
            self.envelopes.fetch_add(1, Ordering::Relaxed);
            match &outcome {
                Outcome::Rewrapped => self.rewrapped.fetch_add(1, Ordering::Relaxed),
                Outcome::Failed(error) => {
                    tracing::warn!(%key, %error, "an envelope can't be wrapped again");
                    self.failed.fetch_add(1, Ordering::Relaxed)
                }
                Outcome::Current | Outcome::Gone => 0,
            };
            Ok::<_, Error>(outcome)
        });
        let mut outcomes = outcomes.buffer_unordered(self.per_prefix());
        let mut tally = Tally::default();
        while let Some(outcome) = outcomes.try_next().await? {
            match outcome {
                Outcome::Rewrapped => tally.rewrapped += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Current | Outcome::Gone => {}
            }
        }
        Ok(tally)
    }

    /// Does for upload sessions what a sweep does for envelopes. There are few of them, so every node looks at them all.
    async fn sweep_sessions(&self) -> Result<()> {
        let sessions = stream::iter(self.session_keys().await?).map(|key| async move {
            self.pace.turn(&*self.store.parts.runtime).await;
            let outcome = self.store.patiently(|| self.store.rewrap_session(&key)).await?;
            if let Outcome::Failed(error) = &outcome {
                tracing::warn!(%key, %error, "an upload session can't be wrapped again");
            }
            Ok::<_, Error>(())
        });
        sessions.buffer_unordered(self.per_prefix()).try_collect().await
    }

    /// The upload sessions. All at once, as of envelopes.
    pub(crate) async fn session_keys(&self) -> Result<Vec<String>> {
        self.store.patiently(|| self.store.session_keys().try_collect()).await
    }

    /// The envelopes below a prefix. All at once: a folder's listing may miss what is replaced meanwhile.
    pub(crate) async fn envelope_keys(&self, prefix: u8) -> Result<Vec<String>> {
        let store = self.store;
        let list = || async move {
            let keys = store.gate.secrets(store).await?;
            let listing = store.bucket.list(&format!("{}{prefix:02x}", blobs_prefix(&keys.root_id)));
            let living = listing.try_filter(|entry| futures::future::ready(!entry.is_tombstone()));
            Ok::<Vec<String>, Error>(living.map_ok(|entry| entry.key).try_collect().await?)
        };
        store.patiently(list).await
    }

    /// Envelopes of one prefix at once.
    pub(crate) fn per_prefix(&self) -> usize {
        self.concurrency.div_ceil(WIDTH)
    }

    /// One more envelope was counted.
    pub(crate) fn note_envelope(&self, failed: bool) {
        self.envelopes.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// One more prefix is done.
    pub(crate) fn note_prefix(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.progress();
    }

    fn note_done(&self, sweep: &Sweep) {
        let done = sweep.rows.iter().map(|row| u64::from(row.next)).sum();
        self.done.store(done, Ordering::Relaxed);
    }

    fn progress(&self) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (self.observe)(SweepEvent::Progress(SweepProgress {
            phase: self.phase,
            done: u32::try_from(read(&self.done)).unwrap_or(PREFIXES).min(PREFIXES),
            total: PREFIXES,
            envelopes: read(&self.envelopes),
            rewrapped: read(&self.rewrapped),
            failed: read(&self.failed),
        }));
    }

    /// Envelopes that this process wrapped again.
    pub(crate) fn rewrapped(&self) -> u64 {
        self.rewrapped.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
