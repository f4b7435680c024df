//! Extents on their way into the bucket: bytes in, batches to the sealing thread, PUTs ahead within the memory budget.
//!
//! ```text
//! write ─► pending (1 MiB) ─► sealing, on another thread ─► full extents ─► PUTs in flight ─► landed
//! ```
//!
//! What puts and upload sessions have in common; who names the extents, and when, is theirs.

mod outrun;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::cobblestone::{HEADER_LEN, Opener, sealed_len};
use bulla_envelope::digest::{HashState, Hasher};
use bulla_envelope::envelope::Extent;
use bulla_envelope::ids::ExtentName;
use bulla_envelope::names::extent_key;
use bulla_envelope::secret::Dek;
use bulla_kek::{Now, compute};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::oneshot;

use crate::bucket::{BucketError, BucketErrorKind};
use crate::error::{Error, ErrorKind, Result};
use crate::horizon::Horizon;
use crate::sealing::{MAX_EXTENTS, SealedExtent, Sealing};
use crate::store::StoreInner;

/// Bytes are handed to the sealing thread in batches of this size, so that the hop between threads costs nothing.
pub(crate) const BATCH: usize = 1 << 20;

/// Copies and deletions at once.
const CONCURRENCY: usize = 16;

/// A last extent shorter than this is taken back by who goes on, and sealed anew with what follows: however small the pieces
/// are that a blob comes in, its extents are not.
pub(crate) const SMALL_EXTENT: u64 = 1 << 20;

/// An extent whose PUT was acknowledged, or is on its way.
#[derive(Clone, Debug)]
pub(crate) struct PlacedExtent {
    pub(crate) extent: Extent,
    /// Before its PUT was sent.
    pub(crate) started: Now,
}

#[derive(Debug)]
struct InFlight {
    done: oneshot::Receiver<Result<(), BucketError>>,
    bytes: usize,
    /// How many extents are stored when this one is.
    extents: usize,
    hasher: Hasher,
}

/// Writes one blob's extents.
pub(crate) struct ExtentWriter {
    inner: Arc<StoreInner>,
    /// `None` while a sealing job has it, and after a failed one.
    sealing: Option<Box<Sealing>>,
    /// Hashed, to be sealed before what is pending: the tail of an upload session.
    tail: Bytes,
    pending: Vec<Bytes>,
    pending_len: usize,
    extents: Vec<PlacedExtent>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// How many extents are stored, and the hash up to there; `None` before the first of this writer is.
    landed: Option<(usize, Hasher)>,
    max_extents: usize,
    /// No extent is older than this; known before the first is sent.
    horizon: Horizon,
    /// Whether the last extent may be taken back if it is small.
    may_take_back: bool,
    /// Objects that this writer wrote and nobody names yet.
    fresh: Vec<ExtentName>,
    /// Objects that this writer's extents no longer need: copied, or taken back.
    replaced: Vec<ExtentName>,
}

impl ExtentWriter {
    pub(crate) fn new(inner: Arc<StoreInner>, sealing: Sealing) -> Self {
        Self {
            inner,
            sealing: Some(Box::new(sealing)),
            tail: Bytes::new(),
            pending: Vec::new(),
            pending_len: 0,
            extents: Vec::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            landed: None,
            max_extents: MAX_EXTENTS,
            horizon: Horizon::default(),
            may_take_back: false,
            fresh: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Goes on after `extents`, none of which is older than `horizon`, and `tail`; `sealing` has hashed both. There are at most
    /// `max_extents` in all.
    pub(crate) fn go_on(
        inner: Arc<StoreInner>,
        sealing: Sealing,
        (extents, horizon): (Vec<PlacedExtent>, Horizon),
        tail: Bytes,
        max_extents: usize,
    ) -> Self {
        Self { extents, horizon, tail, max_extents, may_take_back: true, ..Self::new(inner, sealing) }
    }

    /// Whether nothing has been sealed or stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty() && self.sealing.as_ref().is_none_or(|sealing| !sealing.is_filling())
    }

    /// How many bytes are in extents, stored or on their way.
    pub(crate) fn placed_len(&self) -> u64 {
        self.extents.iter().map(|placed| placed.extent.len).sum()
    }

    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        // However much comes at once, no more than a batch is sealed before there is room for it.
        while !bytes.is_empty() {
            let batch = bytes.split_to(bytes.len().min(BATCH - self.pending_len));
            self.pending_len += batch.len();
            self.pending.push(batch);
            if self.pending_len == BATCH {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Hashes what was written and not sealed, and gives it back with the tail before it, if both together are no longer
    /// than `max` and no extent has begun that they belong to.
    pub(crate) fn hash_short_rest(&mut self, max: usize) -> Result<Option<Vec<u8>>> {
        let is_filling = self.sealing.as_ref().ok_or_else(broken)?.is_filling();
        if is_filling || self.tail.len() + self.pending_len > max {
            return Ok(None);
        }
        let tail = std::mem::take(&mut self.tail);
        Ok(Some([&tail[..], &self.hash_pending()?].concat()))
    }

    /// Hashes what was written and not sealed, and gives it back.
    pub(crate) fn hash_pending(&mut self) -> Result<Vec<u8>> {
        let data = std::mem::take(&mut self.pending).concat();
        self.pending_len = 0;
        self.sealing.as_mut().ok_or_else(broken)?.hash_only(&data);
        Ok(data)
    }

    /// Seals and stores everything that was written.
    pub(crate) async fn write_rest(&mut self) -> Result<()> {
        self.flush().await?;
        if let Some(last) = self.sealing.as_mut().ok_or_else(broken)?.close_extent() {
            self.place(last).await?;
        }
        self.land_all().await
    }

    /// The hash of everything that was written, sealed or not, but for what is pending.
    pub(crate) fn hash(&self) -> Result<HashState> {
        Ok(self.sealing.as_ref().ok_or_else(broken)?.hash())
    }

    /// What has been stored in one piece from the start, once more than `step` bytes of extents are placed beyond `saved`:
    /// how many extents, and the hash up to there.
    pub(crate) async fn stored_prefix(
        &mut self,
        saved: u64,
        step: u64,
    ) -> Result<Option<(usize, HashState)>> {
        if self.placed_len() < saved.saturating_add(step) {
            return Ok(None);
        }
        // With a large budget nearly all of it may still be on its way.
        while self.in_flight_bytes as u64 > step / 2 && self.land_one().await? {}
        let Some((count, hasher)) = &self.landed else { return Ok(None) };
        let hash = hasher.state();
        Ok((hash.len() > saved).then_some((*count, hash)))
    }

    pub(crate) fn dek(&self) -> Result<&Dek> {
        Ok(self.sealing.as_ref().ok_or_else(broken)?.dek())
    }

    pub(crate) fn take_extents(&mut self) -> Vec<PlacedExtent> {
        std::mem::take(&mut self.extents)
    }

    /// No extent is older than this.
    pub(crate) fn horizon(&self) -> Horizon {
        self.horizon
    }

    pub(crate) fn extents(&self) -> &[PlacedExtent] {
        &self.extents
    }

    pub(crate) fn take_sealing(&mut self) -> Result<Sealing> {
        self.sealing.take().map(|sealing| *sealing).ok_or_else(broken)
    }

    /// The first `count` extents have been named by a durable object.
    pub(crate) fn named(&mut self, count: usize) {
        let later: Vec<ExtentName> = self.extents[count..].iter().map(|placed| placed.extent.name).collect();
        self.fresh.retain(|name| later.contains(name));
    }

    /// Removes the objects that are not needed any more. Nobody may name them.
    pub(crate) async fn drop_replaced(&mut self) {
        let replaced = std::mem::take(&mut self.replaced);
        self.inner.drop_objects(&replaced).await;
    }

    /// Gives up and removes what nobody names. Never fails: what can't be removed now is gc's.
    pub(crate) async fn abandon(mut self) {
        while let Some(flight) = self.in_flight.pop_front() {
            // A PUT without a definite answer may still arrive; gc finds it.
            let _ = flight.done.await;
        }
        self.inner.drop_objects(&self.fresh).await;
    }

    /// Seals what is pending and sends off the extents that became full.
    async fn flush(&mut self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        inner.gate.secrets(&inner).await?;
        let mut hashed = self.take_back().await?;
        hashed.extend(Some(std::mem::take(&mut self.tail)).filter(|tail| !tail.is_empty()));
        let pending = std::mem::take(&mut self.pending);
        self.pending_len = 0;
        let mut sealing = self.sealing.take().ok_or_else(broken)?;
        let runtime = Arc::clone(&inner.parts.runtime);
        let work = move || {
            let mut full = sealing.absorb_hashed(&hashed, runtime.random());
            full.extend(sealing.absorb(&pending, runtime.random()));
            (sealing, full)
        };
        let (sealing, full) = compute(&*inner.parts.runtime, work).await.ok_or_else(broken)?;
        self.sealing = Some(sealing);
        for extent in full {
            self.place(extent).await?;
        }
        self.renew_old_extents().await
    }

    /// The bytes of the last extent if it is small and nothing was sealed after it.
    async fn take_back(&mut self) -> Result<Vec<Bytes>> {
        if !std::mem::take(&mut self.may_take_back) {
            return Ok(Vec::new());
        }
        // It may have been collected, which is no damage.
        self.renew_old_extents().await?;
        let Some(last) = self.extents.pop_if(|last| last.extent.len < SMALL_EXTENT) else {
            return Ok(Vec::new());
        };
        let sealing = self.sealing.as_mut().ok_or_else(broken)?;
        let opener = sealing.opener(&last.extent).map_err(|error| damaged().with_source(error))?;
        sealing.take_back_one();
        let bytes = self.inner.read_extent(opener, &last.extent).await?;
        self.replaced.push(last.extent.name);
        Ok(vec![bytes])
    }

    /// Keeps the last extent as it is, however small.
    pub(crate) fn take_nothing_back(&mut self) {
        self.may_take_back = false;
    }

    /// Sends an extent on its way, as soon as the budget has room for it.
    async fn place(&mut self, sealed: SealedExtent) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        if self.extents.len() == self.max_extents {
            return Err(Error::invalid(format!(
                "the blob is larger than {} extents can hold; give streams more memory, or split it",
                self.max_extents
            )));
        }
        let bytes = sealed.message.len();
        // The extent being filled has its share of the budget too.
        let budget = inner.parts.memory_per_stream.saturating_sub(bytes + BATCH);
        while self.in_flight_bytes + bytes > budget && self.land_one().await? {}
        if self.extents.is_empty() {
            // However old: what is sent from now on is younger.
            self.horizon = inner.horizon(Duration::MAX).await?;
        }
        let started = inner.parts.runtime.now();
        let SealedExtent { extent, message, hasher } = sealed;
        let key = extent_key(&extent.name);
        self.fresh.push(extent.name);
        self.extents.push(PlacedExtent { extent, started });
        let (send, done) = oneshot::channel();
        let bucket = inner.bucket.clone();
        let put = async move {
            let _ = send.send(bucket.put_new(&key, message.into()).await);
        };
        // A task of its own: it goes on while the caller waits for more bytes.
        inner.parts.runtime.spawn(Box::pin(put));
        self.in_flight.push_back(InFlight { done, bytes, extents: self.extents.len(), hasher });
        self.in_flight_bytes += bytes;
        Ok(())
    }

    /// Waits for the oldest PUT; `false` if there is none. It stays in flight until it is answered: a caller who gives up
    /// here and then abandons the blob still has to wait for it, or its object would appear after it was removed.
    async fn land_one(&mut self) -> Result<bool> {
        let Some(flight) = self.in_flight.front_mut() else { return Ok(false) };
        let outcome = (&mut flight.done).await;
        let Some(flight) = self.in_flight.pop_front() else { return Ok(false) };
        self.in_flight_bytes -= flight.bytes;
        outcome.map_err(|_| broken())??;
        self.landed = Some((flight.extents, flight.hasher));
        Ok(true)
    }

    pub(crate) async fn land_all(&mut self) -> Result<()> {
        while self.land_one().await? {}
        Ok(())
    }
}

impl StoreInner {
    /// Reads and opens a whole extent.
    pub(crate) async fn read_extent(&self, opener: Opener, extent: &Extent) -> Result<Bytes> {
        let len = usize::try_from(extent.len).map_err(|_| damaged())?;
        let sealed = sealed_len(extent.len).ok_or_else(damaged)?;
        let sealed = self.bucket.get_range(&extent_key(&extent.name), 0..sealed).await.map_err(missing_or)?;
        // The lease before use of the key, and again before anything is released.
        self.gate.secrets(self).await?;
        let work = move || {
            let mut plain = vec![0; len];
            opener.open_chunks(0, &sealed[HEADER_LEN..], true, &mut plain).map(|()| plain)
        };
        let opened = compute(&*self.parts.runtime, work).await.ok_or_else(broken)?;
        let plain = opened.map_err(|error| damaged().with_source(error))?;
        self.gate.secrets(self).await?;
        Ok(Bytes::from(plain))
    }

    /// Removes data objects that nobody names. Best effort: what stays is gc's.
    pub(crate) async fn drop_objects(&self, names: &[ExtentName]) {
        let dropped = stream::iter(names.to_vec()).for_each_concurrent(CONCURRENCY, |name| async move {
            if let Err(error) = self.bucket.delete_data(&extent_key(&name)).await {
                tracing::debug!(%error, "an unused data object stays until gc");
            }
        });
        dropped.await;
    }

    pub(crate) async fn drop_extents(&self, extents: &[PlacedExtent]) {
        let names: Vec<ExtentName> = extents.iter().map(|placed| placed.extent.name).collect();
        self.drop_objects(&names).await;
    }
}

/// Data that was stored and is not there is damage.
fn missing_or(error: BucketError) -> Error {
    match error.kind() {
        BucketErrorKind::NotFound | BucketErrorKind::ShortObject => {
            Error::corrupt("data of this upload is missing").with_source(error)
        }
        _ => error.into(),
    }
}

fn damaged() -> Error {
    Error::corrupt("data of this upload does not authenticate")
}

fn broken() -> Error {
    Error::new(ErrorKind::Internal, "this upload failed before; start a new one")
}

impl fmt::Debug for ExtentWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtentWriter")
            .field("extents", &self.extents.len())
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
