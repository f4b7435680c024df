//! Deleting a blob: its envelope is removed conditionally; data objects are never touched, they are gc's.

use std::sync::Arc;
use std::time::SystemTime;

use bulla_envelope::digest::Digest;

use crate::bucket::Conditional;
use crate::commit::contended;
use crate::envelopes::{Found, OpenedBlob};
use crate::error::Result;
use crate::store::StoreInner;

const ATTEMPTS: usize = 16;

/// What a delete came to.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// There is nothing.
    NotThere,
    /// It was written later than what was to be deleted, and stays.
    Younger,
    /// It is gone, by this call or by another at the same time; `None`: nobody could read it.
    Removed(Option<Arc<OpenedBlob>>),
}

impl StoreInner {
    /// Removes the blob, or with `written_by` the blob whose envelope was last written by then. What was removed, if it could
    /// be read; `None` where there is nothing, or it was written later.
    pub(crate) async fn delete(&self, digest: &Digest, written_by: Option<SystemTime>) -> Result<Deleted> {
        let result = self.try_delete(digest, written_by).await;
        self.cache.remove(digest);
        result
    }

    async fn try_delete(&self, digest: &Digest, written_by: Option<SystemTime>) -> Result<Deleted> {
        // What the first attempt found: the answer to it may have been lost.
        let mut target: Option<Option<Arc<OpenedBlob>>> = None;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let (version, found) = match self.read_envelope(digest).await? {
                Found::Nothing | Found::Tombstone(_) => {
                    // Ours or another's: what was to be deleted is deleted.
                    return Ok(target.map_or(Deleted::NotThere, Deleted::Removed));
                }
                Found::Blob(found) => (found.version.clone(), Some(found)),
                Found::Damaged(_, error) if written_by.is_some() => return Err(error),
                // Nobody can read it; deleting it is how to make room for a good copy.
                Found::Damaged(version, _) => (version, None),
            };
            if let (Some(latest), Some(found)) = (written_by, &found)
                && found.modified > latest
            {
                return Ok(Deleted::Younger);
            }
            // A blob that was put after ours was deleted is not the one to delete.
            let put = |blob: &Option<Arc<OpenedBlob>>| blob.as_ref().map(|blob| blob.record.blob);
            match &target {
                Some(before) if put(before) != put(&found) => {
                    return Ok(target.map_or(Deleted::NotThere, Deleted::Removed));
                }
                Some(_) => {}
                None => target = Some(found),
            }
            let keys = self.gate.secrets(self).await?;
            match self.bucket.remove(&self.blob_key(&keys, digest), &version, self.nonce()).await {
                Conditional::Done(()) => return Ok(target.map_or(Deleted::NotThere, Deleted::Removed)),
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
