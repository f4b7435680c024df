//! What may be done in a bucket, each thing tried by itself.

use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt;

use super::{Bucket, BucketError, BucketErrorKind, Conditional, PROBE};

/// An object that an open reads first.
const FIRST_RECORD: &str = "store/00000001.cbor";

/// Far above what is looked at.
const MAX_LEN: usize = 1 << 20;

/// What came of trying each thing that a store does in its bucket.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rights {
    /// Listing.
    pub list: Result<(), BucketError>,
    /// Writing a new object.
    pub write: Result<(), BucketError>,
    /// Reading that object; or, where it can't be written, the store's first log record.
    pub read: Result<(), BucketError>,
    /// Removing it; `None` where there is none to remove.
    pub delete: Option<Result<(), BucketError>>,
    /// When it was written, by the bucket's clock.
    pub written: Option<SystemTime>,
}

impl Bucket {
    /// Tries what a store does in its bucket, with one small object below `jobs/` that is removed again. `nonce` is random.
    /// Whether conditions are kept is for [`probe`](Self::probe) to find out.
    ///
    /// # Cancel safety
    /// Yes, but the object may stay behind.
    pub async fn rights(&self, nonce: [u8; 16]) -> Rights {
        let list = self.list("store").try_next().await.map(drop);
        let key = format!("{PROBE}{:032x}", u128::from_be_bytes(nonce));
        let write = match self.put_create(&key, Bytes::from_static(b"may I?")).await {
            Conditional::Done(_) => Ok(()),
            Conditional::Unknown(error) => Err(error),
            // Nobody else draws the same name: an answer to a retry of our own.
            Conditional::Lost => Ok(()),
        };
        if write.is_err() {
            let read = self.get(FIRST_RECORD, MAX_LEN).await.map(drop);
            return Rights { list, write, read, delete: None, written: None };
        }
        let (read, written) = match self.get(&key, MAX_LEN).await {
            Ok(Some(object)) => (Ok(()), Some(object.last_modified)),
            Ok(None) => {
                let message = format!("{self} does not show an object that was just written");
                (Err(BucketError::new(BucketErrorKind::Unsupported, message)), None)
            }
            Err(error) => (Err(error), None),
        };
        let delete = Some(self.delete_data(&key).await);
        Rights { list, write, read, delete, written }
    }
}
