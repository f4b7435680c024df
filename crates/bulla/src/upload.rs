//! Putting a blob: bytes in, hash ∥ seal ∥ upload of extents, then the commit of [`crate::commit`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::{Extent, MAX_INLINE_LEN};
use bulla_envelope::names::extent_key;
use bulla_kek::{Now, compute};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::bucket::BucketError;
use crate::commit::{Draft, collected};
use crate::envelopes::age;
use crate::error::{Error, ErrorKind, Result};
use crate::horizon::{Horizon, Outrun};
use crate::sealing::{MAX_EXTENTS, SealedExtent, Sealing};
use crate::store::{Store, StoreInner};

/// Bytes are handed to the sealing thread in batches of this size, so that the hop between threads costs nothing.
const BATCH: usize = 1 << 20;

/// What the caller claims about a blob, and for how long it is to be kept.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// The digest the bytes must have; also chooses the algorithm. Without it the blob is named by SHA-256.
    pub digest: Option<Digest>,
    /// The number of bytes there must be.
    pub size: Option<u64>,
    /// The blob is there for at least this long and gone after it; without it, until it is deleted.
    pub ttl: Option<Duration>,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResult {
    /// The blob's name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// `false` where an equal blob was there already and was kept.
    pub created: bool,
}

/// An extent whose PUT was acknowledged, or is on its way.
#[derive(Debug)]
pub(crate) struct PlacedExtent {
    pub(crate) extent: Extent,
    /// Before its PUT was sent.
    pub(crate) started: Now,
}

#[derive(Debug)]
struct InFlight {
    done: oneshot::Receiver<Result<(), BucketError>>,
    bytes: usize,
}

/// A blob being written. `write(…).await` is the backpressure: it returns when there is room in the stream's memory budget.
///
/// Nothing is visible before [`Upload::commit`]. A dropped upload leaves nothing but data objects that no envelope
/// names, which gc removes; [`Upload::abort`] removes them at once.
pub struct Upload {
    store: Store,
    options: PutOptions,
    /// `None` while a sealing job has it, and after a failed one.
    sealing: Option<Box<Sealing>>,
    pending: Vec<Bytes>,
    pending_len: usize,
    size: u64,
    extents: Vec<PlacedExtent>,
    /// No extent is older than this; known before the first is sent.
    horizon: Horizon,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
}

impl Upload {
    pub(crate) fn new(store: Store, keys: &crate::unlock::Unlocked, options: PutOptions) -> Self {
        let parts = &store.inner().parts;
        let algorithm = options.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let sealing = Sealing::new(
            parts.crypto,
            keys.store(),
            algorithm,
            parts.memory_per_stream,
            parts.runtime.random(),
            parts.buffers.clone(),
        );
        Self {
            options,
            sealing: Some(Box::new(sealing)),
            pending: Vec::new(),
            pending_len: 0,
            size: 0,
            extents: Vec::new(),
            horizon: Horizon::default(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            store,
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Unavailable` or `Throttled` where the object store does not take data (start a new upload later); `Invalid` once
    /// more was written than [`PutOptions::size`] or than one envelope can describe (50,400 MiB with 16 MiB of memory per
    /// stream); `Revoked` where the key was taken away meanwhile. The upload can only
    /// be dropped or aborted afterwards.
    ///
    /// # Cancel safety
    /// Not cancel safe: an upload whose `write` was dropped can only be dropped or aborted.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        if let Some(size) = self.options.size
            && self.size > size
        {
            return Err(Error::invalid(format!("more bytes than the {size} announced")));
        }
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

    /// Makes the blob visible and durable.
    ///
    /// # Errors
    /// `Invalid` where digest or length are not as claimed (nothing is left behind); `Conflict` where the upload took
    /// longer than half of the gc grace (do it again); `Revoked`, `Unavailable`, `Throttled` as everywhere: the blob may
    /// or may not be there, and putting it again is safe.
    ///
    /// # Cancel safety
    /// A dropped `commit` may or may not have made the blob visible; it is never half visible.
    pub async fn commit(mut self) -> Result<PutResult> {
        match self.finish().await {
            Ok(draft) => self.store.inner().commit(draft).await,
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Uploads the rest and compares with what was claimed.
    async fn finish(&mut self) -> Result<Draft> {
        let mut inline = None;
        if self.size <= MAX_INLINE_LEN as u64 && self.extents.is_empty() {
            let data: Vec<u8> = std::mem::take(&mut self.pending).concat();
            let sealing = self.sealing.as_mut().ok_or_else(broken)?;
            sealing.hash_only(&data);
            inline = Some(data);
        } else {
            self.flush().await?;
        }
        let sealing = self.sealing.take().ok_or_else(broken)?;
        let blob = sealing.blob();
        let (digest, dek, last) = sealing.finish();
        if let Some(last) = last {
            self.place(last).await?;
        }
        while let Some(flight) = self.in_flight.pop_front() {
            self.land(flight).await?;
        }
        self.check_claims(&digest)?;
        let extents = std::mem::take(&mut self.extents);
        let horizon = self.horizon;
        Ok(Draft { blob, digest, size: self.size, dek, inline, extents, horizon, ttl: self.options.ttl })
    }

    /// Gives up and removes what was uploaded. Never fails: what can't be removed now is gc's.
    pub async fn abort(mut self) {
        while let Some(flight) = self.in_flight.pop_front() {
            // A PUT without a definite answer may still arrive; gc finds it.
            let _ = flight.done.await;
        }
        self.store.inner().drop_extents(&self.extents).await;
    }

    fn check_claims(&self, digest: &Digest) -> Result<()> {
        if let Some(size) = self.options.size
            && size != self.size
        {
            return Err(Error::invalid(format!("{} bytes came where {size} were announced", self.size)));
        }
        match &self.options.digest {
            Some(claimed) if claimed != digest => {
                Err(Error::invalid(format!("the bytes have digest {digest}, not {claimed} as claimed")))
            }
            _ => Ok(()),
        }
    }

    /// Seals what is pending and sends off the extents that became full.
    async fn flush(&mut self) -> Result<()> {
        let inner = Arc::clone(self.store.inner());
        inner.gate.secrets(&inner).await?;
        let pending = std::mem::take(&mut self.pending);
        self.pending_len = 0;
        let mut sealing = self.sealing.take().ok_or_else(broken)?;
        let runtime = Arc::clone(&inner.parts.runtime);
        let work = move || {
            let full = sealing.absorb(&pending, runtime.random());
            (sealing, full)
        };
        let (sealing, full) = compute(&*inner.parts.runtime, work).await.ok_or_else(broken)?;
        self.sealing = Some(sealing);
        for extent in full {
            self.place(extent).await?;
        }
        self.renew_old_extents().await
    }

    /// Sends an extent on its way, as soon as the budget has room for it.
    async fn place(&mut self, sealed: SealedExtent) -> Result<()> {
        let inner = Arc::clone(self.store.inner());
        if self.extents.len() == MAX_EXTENTS {
            return Err(Error::invalid(format!(
                "the blob is larger than {MAX_EXTENTS} extents can hold; give streams more memory, or split it"
            )));
        }
        let bytes = sealed.message.len();
        // The extent being filled has its share of the budget too.
        let budget = inner.parts.memory_per_stream.saturating_sub(bytes + BATCH);
        while self.in_flight_bytes + bytes > budget {
            let Some(flight) = self.in_flight.pop_front() else { break };
            self.land(flight).await?;
        }
        if self.extents.is_empty() {
            // However old: what is sent from now on is younger.
            self.horizon = inner.horizon(Duration::MAX).await?;
        }
        let started = inner.parts.runtime.now();
        let key = extent_key(&sealed.extent.name);
        self.extents.push(PlacedExtent { extent: sealed.extent, started });
        let (send, done) = oneshot::channel();
        let bucket = inner.bucket.clone();
        let put = async move {
            let _ = send.send(bucket.put_new(&key, sealed.message.into()).await);
        };
        // A task of its own: it goes on while the caller waits for more bytes.
        inner.parts.runtime.spawn(Box::pin(put));
        self.in_flight.push_back(InFlight { done, bytes });
        self.in_flight_bytes += bytes;
        Ok(())
    }

    async fn land(&mut self, flight: InFlight) -> Result<()> {
        let outcome = flight.done.await.map_err(|_| broken())?;
        self.in_flight_bytes -= flight.bytes;
        Ok(outcome?)
    }

    /// A long session copies its extents to new names before they are old enough for gc to look at them, and when a gc has
    /// begun that looks at younger ones.
    async fn renew_old_extents(&mut self) -> Result<()> {
        if self.extents.is_empty() {
            return Ok(());
        }
        let inner = Arc::clone(self.store.inner());
        let horizon = inner.horizon(inner.gate.revocation_bound() / 2).await?;
        let now = inner.parts.runtime.now();
        let limit = inner.parts.gc_grace / 4;
        let is_old = |placed: &PlacedExtent| age(&now, &placed.started) > limit;
        if horizon <= self.horizon && !self.extents.iter().any(is_old) {
            return Ok(());
        }
        while let Some(flight) = self.in_flight.pop_front() {
            self.land(flight).await?;
        }
        if horizon > self.horizon {
            if inner.outrun(&mut self.extents, horizon).await? == Outrun::Gone {
                return Err(collected());
            }
            self.horizon = horizon;
        }
        for placed in self.extents.iter_mut().filter(|placed| age(&now, &placed.started) > limit) {
            let old = extent_key(&placed.extent.name);
            inner.copy_extent(placed).await?;
            // No envelope names the old object yet, so nobody can miss it.
            let _ = inner.bucket.delete_data(&old).await;
        }
        Ok(())
    }
}

impl StoreInner {
    /// An expired KEK still opens what is there, and takes nothing new.
    pub(crate) fn refuse_expired_kek(&self) -> Result<()> {
        let now = self.parts.runtime.now().wall;
        match self.gate.kek().and_then(|kek| kek.expires) {
            Some(expires) if expires <= now => Err(Error::invalid(
                "the store's KEK has expired: rotate to a valid version (`bulla rotate STORE`)",
            )),
            _ => Ok(()),
        }
    }

    /// Removes data objects that no envelope names. Best effort: what stays is gc's.
    pub(crate) async fn drop_extents(&self, extents: &[PlacedExtent]) {
        for placed in extents {
            if let Err(error) = self.bucket.delete_data(&extent_key(&placed.extent.name)).await {
                tracing::debug!(%error, "an unused data object stays until gc");
            }
        }
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Internal, "this upload failed before; start a new one")
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("size", &self.size)
            .field("extents", &self.extents.len())
            .finish_non_exhaustive()
    }
}
