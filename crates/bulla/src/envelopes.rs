//! Reading envelopes: from object to open record, and for how long a decoded one may be used again.

use std::sync::Arc;
use std::time::SystemTime;

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::{BlobRecord, Envelope};
use bulla_envelope::secret::Dek;
use bulla_kek::Now;

use crate::bucket::{Object, UpdateVersion};
use crate::deks::Unwrapped;
use crate::error::{Error, Result};
use crate::store::StoreInner;
use crate::unlock::Unlocked;

/// An envelope that opened under the digest it was asked by.
#[derive(Debug)]
pub(crate) struct OpenedBlob {
    pub(crate) record: BlobRecord,
    pub(crate) dek: Dek,
    /// The kid of the wrap that opened it.
    pub(crate) wrapped_by: String,
    pub(crate) version: UpdateVersion,
    /// When the envelope was written, by the bucket's clock.
    pub(crate) modified: SystemTime,
    /// Before the envelope was read.
    pub(crate) read_started: Now,
}

/// What stands at a digest's place in the bucket.
#[derive(Debug)]
pub(crate) enum Found {
    /// No object.
    Nothing,
    /// A tombstone: deleted.
    Tombstone(UpdateVersion),
    /// An envelope that opens.
    Blob(Arc<OpenedBlob>),
    /// An object that does not open, with a fresh log: a definite integrity failure.
    Damaged(UpdateVersion, Error),
}

/// Why an envelope does not open.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// No wrap is of a key that the log names: perhaps a newer log does.
    UnknownKey,
    /// Altered, forged or misplaced.
    Damaged(Error),
}

impl StoreInner {
    /// Reads and opens the envelope of `digest`, past any cache.
    pub(crate) async fn read_envelope(&self, digest: &Digest) -> Result<Found> {
        let key = self.blob_key(&*self.gate.secrets(self).await?, digest);
        let read_started = self.parts.runtime.now();
        let Some(object) = self.bucket.get(&key, MAX_OBJECT_LEN).await? else { return Ok(Found::Nothing) };
        if object.is_tombstone() {
            return Ok(Found::Tombstone(object.version));
        }
        // The lease may have ended while the object was on its way: keys are asked for when they are used.
        let keys = self.gate.secrets(self).await?;
        let failure = match self.open_object(&keys, &object, digest, read_started).await? {
            Ok(blob) => return Ok(Found::Blob(Arc::new(blob))),
            Err(failure) => failure,
        };
        tracing::debug!(%digest, ?failure, "an envelope does not open; reading the log again");
        // "Can't open" needs a log read after the object was: another node may have brought in a new key.
        let keys = self.gate.refresh(self).await?;
        match self.open_object(&keys, &object, digest, read_started).await? {
            Ok(blob) => Ok(Found::Blob(Arc::new(blob))),
            Err(failure) => Ok(Found::Damaged(object.version, failure.into_error(digest))),
        }
    }

    /// The open envelope of a blob that is there and has not expired; decoded envelopes are used again for at most the
    /// revocation bound, so a delete on another node shows within it.
    pub(crate) async fn find(&self, digest: &Digest) -> Result<Arc<OpenedBlob>> {
        // The cache is wiped with the keys; asking for them first also makes the use known to the lease.
        self.gate.secrets(self).await?;
        if let Some(blob) = self.cache.get(digest)
            && self.parts.runtime.now().since(&blob.read_started) >= self.gate.revocation_bound()
        {
            self.cache.remove(digest);
        }
        // Readers of one blob share one read.
        let blob = self.cache.get_or_insert_async(digest, self.find_fresh(digest)).await?;
        while !self.gate.is_live(self) {
            // It may have come after the wipe; and what it says is released under a live lease only.
            self.cache.remove(digest);
            self.gate.secrets(self).await?;
        }
        self.unexpired(digest, blob)
    }

    /// The open envelope of a blob that is there, expired or not, past the cache.
    pub(crate) async fn find_fresh(&self, digest: &Digest) -> Result<Arc<OpenedBlob>> {
        match self.read_envelope(digest).await? {
            Found::Blob(blob) => Ok(blob),
            Found::Nothing | Found::Tombstone(_) => Err(not_found(digest)),
            Found::Damaged(_, error) => Err(error),
        }
    }

    pub(crate) fn unexpired(&self, digest: &Digest, blob: Arc<OpenedBlob>) -> Result<Arc<OpenedBlob>> {
        match blob.record.expires {
            Some(expires) if expires <= self.parts.runtime.now().unix_ms() => Err(not_found(digest)),
            _ => Ok(blob),
        }
    }

    async fn open_object(
        &self,
        keys: &Arc<Unlocked>,
        object: &Object,
        digest: &Digest,
        read_started: Now,
    ) -> Result<Result<OpenedBlob, NotOpened>> {
        let opened = match decode(keys, &object.bytes, digest) {
            Ok(envelope) => self.open_envelope(keys, &envelope, digest).await?,
            Err(failure) => Err(failure),
        };
        let (version, modified) = (object.version.clone(), object.last_modified);
        Ok(opened.map(|Opened { record, dek, wrapped_by }| OpenedBlob {
            record,
            dek,
            wrapped_by,
            version,
            modified,
            read_started,
        }))
    }

    /// Opens an envelope as the one of `digest`, by whichever of its wraps is good.
    ///
    /// # Errors
    /// In direct mode those of the key provider: they say nothing about the envelope.
    pub(crate) async fn open_envelope(
        &self,
        keys: &Arc<Unlocked>,
        envelope: &Envelope,
        digest: &Digest,
    ) -> Result<Result<Opened, NotOpened>> {
        let mut keys = Arc::clone(keys);
        let mut unknown = true;
        for wrap in &envelope.wraps {
            let dek = match self.unwrap_dek(&keys, wrap).await? {
                Unwrapped::UnknownKey => continue,
                // A bad wrap is damage of this object, never a verdict on the key: the others are tried.
                Unwrapped::Damaged => {
                    unknown = false;
                    continue;
                }
                Unwrapped::Dek(dek) => dek,
            };
            unknown = false;
            if wrap.store_key().is_none() {
                // The provider was asked meanwhile, and the lease may have ended.
                keys = self.gate.secrets(self).await?;
            }
            if let Ok(record) = envelope.open(self.parts.crypto, &keys.envelope_key, &dek, digest) {
                return Ok(Ok(Opened { record, dek, wrapped_by: wrap.kid.clone() }));
            }
        }
        Ok(Err(if unknown { NotOpened::UnknownKey } else { damaged(digest, "does not authenticate") }))
    }
}

/// What an envelope holds, and the kid of the wrap that opened it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) record: BlobRecord,
    pub(crate) dek: Dek,
    pub(crate) wrapped_by: String,
}

/// Decodes an object as an envelope of this store and root. It is not authentic before it opens.
pub(crate) fn decode(keys: &Unlocked, object: &[u8], digest: &Digest) -> Result<Envelope, NotOpened> {
    let envelope = Envelope::decode(object).map_err(|error| {
        NotOpened::Damaged(
            Error::corrupt(format!("the envelope of {digest} can't be decoded")).with_source(error),
        )
    })?;
    if envelope.header.store != keys.store() || envelope.header.root != keys.root_id {
        return Err(damaged(digest, "belongs to another store or root"));
    }
    Ok(envelope)
}

fn damaged(digest: &Digest, what: &str) -> NotOpened {
    NotOpened::Damaged(Error::corrupt(format!("the envelope of {digest} {what}")))
}

impl NotOpened {
    pub(crate) fn into_error(self, digest: &Digest) -> Error {
        match self {
            Self::Damaged(error) => error,
            Self::UnknownKey => {
                Error::corrupt(format!("the envelope of {digest} is wrapped by no key that the log names"))
            }
        }
    }
}

pub(crate) fn not_found(digest: &Digest) -> Error {
    Error::new(crate::ErrorKind::NotFound, format!("there is no blob {digest} in this store"))
}
