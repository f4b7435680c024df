//! Listing blobs: names are sealed reversibly, so no envelope is read.

use std::sync::Arc;
use std::time::SystemTime;

use bulla_envelope::digest::Digest;
use bulla_envelope::names::blobs_prefix;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};
use crate::store::StoreInner;

/// A blob in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobEntry {
    /// The blob's name.
    pub digest: Digest,
    /// When its envelope was last written, by the bucket's clock: when it was put or its key re-wrapped.
    pub modified: SystemTime,
}

impl StoreInner {
    pub(crate) fn list(self: Arc<Self>) -> impl Stream<Item = Result<BlobEntry>> + Send + 'static {
        let start = async move {
            let keys = self.gate.secrets(&self).await?;
            let entries = self.bucket.list(&blobs_prefix(&keys.root_id)).map_err(Error::from);
            Ok::<_, Error>(entries.try_filter_map(move |entry| {
                let inner = Arc::clone(&self);
                async move {
                    if entry.is_tombstone() {
                        return Ok(None);
                    }
                    // Names are secrets under the lease as well.
                    let keys = inner.gate.secrets(&inner).await?;
                    let digest =
                        keys.blob_names.digest_of_blob_key(&keys.root_id, &entry.key).map_err(|error| {
                            Error::corrupt(format!("`{}` is not a sealed name of this store", entry.key))
                                .with_source(error)
                        })?;
                    Ok(Some(BlobEntry { digest, modified: entry.last_modified }))
                }
            }))
        };
        stream::once(start).try_flatten().boxed()
    }
}
