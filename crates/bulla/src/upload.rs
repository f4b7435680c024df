//! Putting a blob: bytes in, hash ∥ seal ∥ upload of extents, then the commit of [`crate::commit`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::MAX_INLINE_LEN;
use bytes::Bytes;

use crate::commit::Draft;
use crate::error::{Error, Result};
use crate::extents::ExtentWriter;
use crate::party::Party;
use crate::sealing::Sealing;
use crate::store::{Store, StoreInner};
use crate::unlock::Unlocked;

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

/// A blob being written. `write(…).await` is the backpressure: it returns when there is room in the stream's memory budget.
///
/// Nothing is visible before [`Upload::commit`]. A dropped upload leaves nothing but data objects that no envelope
/// names, which gc removes; [`Upload::abort`] removes them at once.
pub struct Upload {
    store: Store,
    options: PutOptions,
    writer: ExtentWriter,
    size: u64,
}

impl Upload {
    pub(crate) fn new(store: Store, keys: &Unlocked, options: PutOptions) -> Self {
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
        let writer = ExtentWriter::new(Arc::clone(store.inner()), sealing);
        Self { options, writer, size: 0, store }
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
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        if let Some(size) = self.options.size
            && self.size > size
        {
            return Err(Error::mismatch(format!("more bytes than the {size} announced")));
        }
        self.writer.write(bytes).await?;
        // No envelope names the objects that were copied, so nobody can miss them.
        self.writer.drop_replaced().await;
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
        let inline = if self.size <= MAX_INLINE_LEN as u64 && self.writer.is_empty() {
            Some(self.writer.hash_pending()?)
        } else {
            self.writer.write_rest().await?;
            self.writer.drop_replaced().await;
            None
        };
        let sealing = self.writer.take_sealing()?;
        let blob = sealing.blob();
        let (digest, dek) = sealing.finish();
        self.check_claims(&digest)?;
        let (extents, horizon) = (self.writer.take_extents(), self.writer.horizon());
        let (size, ttl) = (self.size, self.options.ttl);
        Ok(Draft { blob, digest, size, dek, dek_root: None, inline, extents, horizon, ttl })
    }

    /// Gives up and removes what was uploaded. Never fails: what can't be removed now is gc's.
    pub async fn abort(mut self) {
        self.writer.drop_replaced().await;
        self.writer.abandon().await;
    }

    fn check_claims(&self, digest: &Digest) -> Result<()> {
        if let Some(size) = self.options.size
            && size != self.size
        {
            return Err(Error::mismatch(format!("{} bytes came where {size} were announced", self.size)));
        }
        match &self.options.digest {
            Some(claimed) if claimed != digest => {
                Err(Error::mismatch(format!("the bytes have digest {digest}, not {claimed} as claimed")))
            }
            _ => Ok(()),
        }
    }
}

impl StoreInner {
    /// An expired KEK still opens what is there, and takes nothing new.
    pub(crate) fn refuse_expired_kek(&self) -> Result<()> {
        let now = self.parts.runtime.now().wall;
        let expires = |party| self.gate.kek(party).and_then(|kek| kek.expires);
        match Party::ALL.into_iter().find(|party| expires(*party).is_some_and(|expires| expires <= now)) {
            Some(Party::Second) => Err(Error::invalid(
                "the second party's KEK has expired: rotate to a valid version (`bulla rotate STORE --party second`)",
            )),
            Some(Party::First) => Err(Error::invalid(
                "the store's KEK has expired: rotate to a valid version (`bulla rotate STORE`)",
            )),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("size", &self.size)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}
