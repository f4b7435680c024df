//! Deleting a blob: its envelope is removed conditionally; data objects are never touched, they are gc's.

use std::time::SystemTime;

use bulla_envelope::digest::Digest;
use bulla_envelope::ids::BlobId;

use crate::bucket::Conditional;
use crate::commit::contended;
use crate::envelopes::{Found, not_found};
use crate::error::Result;
use crate::horizon::unix_ms;
use crate::store::StoreInner;

const ATTEMPTS: usize = 16;

impl StoreInner {
    /// Whether it was there; with `only`, whether it was there as that put made it.
    pub(crate) async fn delete(&self, digest: &Digest, only: Option<(&BlobId, SystemTime)>) -> Result<bool> {
        let result = self.try_delete(digest, only).await;
        self.cache.remove(digest);
        result
    }

    async fn try_delete(&self, digest: &Digest, only: Option<(&BlobId, SystemTime)>) -> Result<bool> {
        let mut target = None;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let (version, blob, modified) = match self.read_envelope(digest).await? {
                Found::Nothing | Found::Tombstone(_) if attempt == 0 && only.is_some() => return Ok(false),
                Found::Nothing | Found::Tombstone(_) if attempt == 0 => return Err(not_found(digest)),
                // Ours or another's: what was to be deleted is deleted.
                Found::Nothing | Found::Tombstone(_) => return Ok(true),
                Found::Blob(found) => (found.version.clone(), Some(found.record.blob), Some(found.modified)),
                // Nobody can read it; deleting it is how to make room for a good copy.
                Found::Damaged(version, _) => (version, None, None),
            };
            // With a put that was committed again the ids are the same, and the times are not.
            let is_it = |(put, at): (&BlobId, SystemTime)| {
                blob == Some(*put) && modified.map(unix_ms) == Some(unix_ms(at))
            };
            if let Some(only) = only
                && !is_it(only)
            {
                return Ok(false);
            }
            // A blob that was put after ours was deleted is not the one to delete.
            match (attempt, &target) {
                (0, _) => target = blob,
                (_, before) if *before != blob => return Ok(true),
                _ => {}
            }
            let keys = self.gate.secrets(self).await?;
            match self.bucket.remove(&self.blob_key(&keys, digest), &version, self.nonce()).await {
                Conditional::Done(()) => return Ok(true),
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
        }
        Err(contended(failure, digest))
    }
}
