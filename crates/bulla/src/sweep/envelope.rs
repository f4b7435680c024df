//! One envelope of a sweep: read, unwrap, open, wrap again, replace on condition that it is still the one that was read.

use std::sync::Arc;

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::Envelope;
use bytes::Bytes;

use crate::bucket::{BucketErrorKind, Conditional, Object};
use crate::envelopes::{Opened, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreInner;
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 16;

/// What became of one envelope.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is none: deleted meanwhile.
    Gone,
    /// It was under the active key already; it was not opened.
    Current,
    /// It is under the active key now.
    Rewrapped,
    /// It does not open, and stays as it is.
    Failed(Error),
}

/// An object in an envelope's place.
pub(crate) enum Read {
    Gone,
    /// Larger than any envelope, or under no blob's name.
    Failed(Error),
    Object(Object, Digest),
}

impl StoreInner {
    /// Wraps the DEK of the envelope at `key` under the active key, if it is under another. Only `wraps` changes
    /// (FORMAT-E13).
    ///
    /// # Errors
    /// Whatever says nothing about the envelope: it can be tried again.
    pub(crate) async fn rewrap_envelope(&self, key: &str) -> Result<Outcome> {
        let mut failure = None;
        let mut sent = Bytes::new();
        for attempt in 0..ATTEMPTS {
            // Nothing is wrapped under a key that a younger log may have retired.
            let keys = self.young_view().await?;
            let (object, digest) = match self.read_envelope_at(key).await? {
                Read::Gone => return Ok(Outcome::Gone),
                Read::Failed(error) => return Ok(Outcome::Failed(error)),
                Read::Object(object, digest) => (object, digest),
            };
            // After a failed write, a lost answer, say: our own bytes there are success.
            if !sent.is_empty() && object.bytes == sent {
                return Ok(Outcome::Rewrapped);
            }
            if let Ok(envelope) = decode(&keys, &object.bytes, &digest)
                && envelope.wraps.iter().all(|wrap| keys.is_active(&wrap.kid))
            {
                return Ok(Outcome::Current);
            }
            let (envelope, opened, keys) = match self.open_surely(&object, &digest).await? {
                Ok(opened) => opened,
                Err(error) => return Ok(Outcome::Failed(error)),
            };
            let wraps = vec![self.wrap_dek(&keys, &opened.dek).await?];
            sent = Envelope { wraps, ..envelope }.encode().into();
            match self.bucket.put_update(key, sent.clone(), &object.version).await {
                // A process that was paused here may have used a key that was retired meanwhile.
                Conditional::Done(_) if self.is_young(&keys) => return Ok(Outcome::Rewrapped),
                Conditional::Done(_) => sent = Bytes::new(),
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
        }
        Err(failure.map_or_else(
            || Error::new(ErrorKind::Conflict, format!("others keep writing `{key}`; run the command again")),
            Error::from,
        ))
    }

    /// What stands at an envelope's key.
    pub(crate) async fn read_envelope_at(&self, key: &str) -> Result<Read> {
        let object = match self.bucket.get(key, MAX_OBJECT_LEN).await {
            Ok(Some(object)) if !object.is_tombstone() => object,
            Ok(_) => return Ok(Read::Gone),
            Err(error) if error.kind() == BucketErrorKind::TooLarge => {
                return Ok(Read::Failed(Error::corrupt("larger than an envelope can be").with_source(error)));
            }
            Err(error) => return Err(error.into()),
        };
        let keys = self.gate.secrets(self).await?;
        Ok(match keys.blob_names.digest_of_blob_key(&keys.root_id, key) {
            Ok(digest) => Read::Object(object, digest),
            Err(error) => Read::Failed(Error::corrupt("not a sealed name of this store").with_source(error)),
        })
    }

    /// Opens an envelope. The inner error is a definite integrity failure: the log was read after the object.
    pub(crate) async fn open_surely(
        &self,
        object: &Object,
        digest: &Digest,
    ) -> Result<Result<(Envelope, Opened, Arc<Unlocked>), Error>> {
        let mut keys = self.gate.secrets(self).await?;
        let mut fresh = false;
        loop {
            let opened = match decode(&keys, &object.bytes, digest) {
                Ok(envelope) => {
                    self.open_envelope(&keys, &envelope, digest).await?.map(|opened| (envelope, opened))
                }
                Err(failure) => Err(failure),
            };
            match opened {
                Ok((envelope, opened)) => return Ok(Ok((envelope, opened, keys))),
                Err(failure) if fresh => return Ok(Err(failure.into_error(digest))),
                Err(_) => {
                    keys = self.gate.refresh(self).await?;
                    fresh = true;
                }
            }
        }
    }

    /// The secrets, with a log view younger than R.
    pub(crate) async fn young_view(&self) -> Result<Arc<Unlocked>> {
        let keys = self.gate.secrets(self).await?;
        if self.is_young(&keys) { Ok(keys) } else { self.gate.refresh(self).await }
    }

    pub(crate) fn is_young(&self, keys: &Unlocked) -> bool {
        let now = self.parts.runtime.now();
        now.since(&keys.view.read_started) <= self.gate.revocation_bound()
    }
}
