//! A store's handle, and its plain operations; the protocols are in the modules beside it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla_envelope::derive::Anchor;
use bulla_envelope::digest::Digest;
use bulla_envelope::ids::StoreId;
use bulla_envelope::record::Mode;
use bulla_kek::Runtime;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use quick_cache::sync::Cache;

use crate::blob::{Blob, BlobInfo, info};
use crate::bucket::Bucket;
use crate::delete::Deleted;
use crate::engine::Parts;
use crate::envelopes::{OpenedBlob, not_found};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Gate, KeyReport, KeyState, KeyStateWatch};
use crate::horizon::HorizonCache;
use crate::list::BlobEntry;
use crate::log::RecordMark;
use crate::unlock::Unlocked;
use crate::upload::{PutOptions, PutResult, Upload};

pub(crate) struct StoreInner {
    pub(crate) parts: Arc<Parts>,
    pub(crate) bucket: Bucket,
    pub(crate) gate: Gate,
    pub(crate) cache: Cache<Digest, Arc<OpenedBlob>>,
    pub(crate) horizon: HorizonCache,
    pub(crate) store_id: StoreId,
    pub(crate) anchor: Anchor,
    /// What wraps DEKs: decided when the store is made, for good.
    pub(crate) mode: Mode,
}

/// An open store. Cheap to clone; all clones share one lease.
#[derive(Clone)]
pub struct Store {
    inner: Arc<StoreInner>,
}

impl Store {
    pub(crate) fn from_inner(inner: Arc<StoreInner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<StoreInner> {
        &self.inner
    }

    /// The store's random id.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.store_id
    }

    /// The fingerprint of the store's root secret: pin it wherever the store is opened.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        self.inner.anchor
    }

    /// The clock, tasks and randomness of the engine that opened it.
    #[must_use]
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.inner.parts.runtime
    }

    /// What the bucket's clock says now: the time of an object that is written for it and removed. Three requests.
    ///
    /// # Errors
    /// `Unavailable`, `Throttled` as everywhere; `Invalid` where the bucket refuses the writing.
    ///
    /// # Cancel safety
    /// A dropped call may leave an object of a few bytes, which gc removes.
    pub async fn bucket_time(&self) -> Result<SystemTime> {
        self.inner.bucket_time().await
    }

    /// The newest log record this process has seen; give it to the next open as its floor.
    #[must_use]
    pub fn mark(&self) -> RecordMark {
        self.inner.gate.mark()
    }

    /// Whether the key can be used right now, and if not, why. Asks nobody: *live* says that the lease is, and *expired*
    /// that it ran out unused; the next use renews it.
    #[must_use]
    pub fn key_state(&self) -> KeyState {
        self.inner.gate.key_state(&self.inner)
    }

    /// The state of the key, since when, what failed last, and when the provider is asked next. Asks nobody.
    #[must_use]
    pub fn key_report(&self) -> KeyReport {
        self.inner.gate.report(&self.inner)
    }

    /// Follows the state of the key. Asks nobody; the store's own renewals bring the changes.
    ///
    /// ```no_run
    /// # async fn alarm(store: bulla::Store) {
    /// let mut watch = store.watch_key_state();
    /// while let Some(state) = watch.changed().await {
    ///     println!("the key is {state:?} now");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn watch_key_state(&self) -> KeyStateWatch {
        self.inner.gate.watch()
    }

    /// Starts writing a blob.
    ///
    /// # Errors
    /// `Revoked` or `Unavailable` where the key can't be used; `Invalid` where the KEK has expired.
    pub async fn upload(&self, options: PutOptions) -> Result<Upload> {
        let keys = self.inner.gate.secrets(&self.inner).await?;
        self.inner.refuse_expired_kek()?;
        Ok(Upload::new(self.clone(), &keys, options))
    }

    /// Whether something could be written now, as far as the key goes: no request while the lease is live.
    ///
    /// # Errors
    /// As [`Store::upload`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn check_writable(&self) -> Result<()> {
        self.inner.gate.secrets(&self.inner).await?;
        self.inner.refuse_expired_kek()
    }

    /// Puts a blob from a stream. On any error nothing is visible, and what was uploaded is removed.
    ///
    /// # Errors
    /// As [`Upload::write`] and [`Upload::commit`]; `Invalid` where the stream itself fails.
    ///
    /// # Cancel safety
    /// A dropped put may or may not have made the blob visible; it is never half visible.
    pub async fn put<E>(
        &self,
        mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
        options: PutOptions,
    ) -> Result<PutResult>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut upload = self.upload(options).await?;
        loop {
            let step = match stream.try_next().await {
                Ok(Some(bytes)) => upload.write(bytes).await,
                Ok(None) => return upload.commit().await,
                Err(error) => Err(Error::invalid("the bytes to put can't be read").with_source(error)),
            };
            if let Err(error) = step {
                upload.abort().await;
                return Err(error);
            }
        }
    }

    /// Puts a blob that is in memory.
    ///
    /// # Errors
    /// As [`Store::put`].
    ///
    /// # Cancel safety
    /// As [`Store::put`].
    pub async fn put_bytes(&self, bytes: impl Into<Bytes> + Send, options: PutOptions) -> Result<PutResult> {
        let one = futures::stream::iter([Ok::<_, std::convert::Infallible>(bytes.into())]);
        self.put(one, options).await
    }

    /// A blob to read from.
    ///
    /// # Errors
    /// `NotFound`; `Revoked` or `Unavailable` where the key can't be used; `Corrupt` where the envelope does not
    /// authenticate.
    pub async fn get(&self, digest: &Digest) -> Result<Blob> {
        let opened = self.inner.find(digest).await?;
        Ok(Blob::new(self.clone(), opened))
    }

    /// What is known of a blob, read from the bucket now.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn stat(&self, digest: &Digest) -> Result<BlobInfo> {
        let opened = self.inner.find_fresh(digest).await?;
        self.inner.unexpired(digest, opened).map(|opened| info(&opened))
    }

    /// Whether the blob is there, read from the bucket now.
    ///
    /// # Errors
    /// As [`Store::get`], but for `NotFound`.
    pub async fn contains(&self, digest: &Digest) -> Result<bool> {
        match self.stat(digest).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a blob. Its data stays until gc; other nodes may read it for at most the revocation bound.
    ///
    /// # Errors
    /// `NotFound` where it is not there; `Revoked`, `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// A dropped delete may or may not have removed the blob.
    pub async fn delete(&self, digest: &Digest) -> Result<()> {
        match self.inner.delete(digest, None).await? {
            Deleted::NotThere => Err(not_found(digest)),
            Deleted::Younger | Deleted::Removed(_) => Ok(()),
        }
    }

    /// Makes sure that the blob's envelope was last written after `since`, by the bucket's clock: one that is older is sealed
    /// and written again, with all that it says; a younger one is not even opened. Whether the blob is there.
    ///
    /// With [`delete_older`](Self::delete_older), this is how who uses blobs keeps out of the way of who removes those that
    /// nobody uses: a renewed blob is not removed by who looked before, and a removed one is not renewed.
    ///
    /// # Errors
    /// As [`Store::get`], but for `NotFound`; `Corrupt` only where it had to be written.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have written it.
    pub async fn renew(&self, digest: &Digest, since: SystemTime) -> Result<bool> {
        self.inner.renew(digest, since).await
    }

    /// Removes a blob whose envelope was last written at `than` or before, by the bucket's clock ([`BlobInfo::modified`]): one
    /// that was put again, renewed or re-wrapped since stays. What was removed, by this call or by another at the same time;
    /// `None` where it is not there, or younger.
    ///
    /// # Errors
    /// `Corrupt` where it can't be read: it stays, and [`delete`](Self::delete) removes it. `Revoked`, `Unavailable`, `Throttled`
    /// as everywhere.
    ///
    /// # Cancel safety
    /// A dropped delete may or may not have removed the blob.
    pub async fn delete_older(&self, digest: &Digest, than: SystemTime) -> Result<Option<BlobInfo>> {
        Ok(match self.inner.delete(digest, Some(than)).await? {
            Deleted::Removed(blob) => blob.map(|blob| info(&blob)),
            Deleted::NotThere | Deleted::Younger => None,
        })
    }

    /// Every blob's name, in no particular order; envelopes are not read, so expired blobs are listed too.
    #[must_use]
    pub fn list(&self) -> BoxStream<'static, Result<BlobEntry>> {
        StoreInner::list(Arc::clone(&self.inner)).boxed()
    }

    /// Writes what the audit log does not have yet, ends the lease and wipes the secrets. Running streams end with an error only if the key can't be had again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn close(&self) {
        // What the audit log does not have by now it will not get; nothing can be done about it here.
        let _ = self.inner.flush_audit().await;
        self.inner.gate.close();
        self.inner.cache.clear();
    }
}

impl StoreInner {
    /// Where the envelope of `digest` is.
    pub(crate) fn blob_key(&self, keys: &Unlocked, digest: &Digest) -> String {
        keys.blob_names.blob_key(&keys.root_id, digest)
    }

    /// Random bytes that make an object unlike any other.
    pub(crate) fn nonce(&self) -> [u8; 16] {
        let mut nonce = [0; 16];
        self.parts.runtime.random().fill(&mut nonce);
        nonce
    }

    /// Waits before another attempt, longer each time, with jitter.
    pub(crate) async fn back_off(&self, attempt: usize) {
        let ceiling = Duration::from_millis(20 << attempt.min(6));
        let mut byte = [0];
        self.parts.runtime.random().fill(&mut byte);
        let wait = ceiling.mul_f64(0.5 + f64::from(byte[0]) / 512.0);
        self.parts.runtime.sleep(wait).await;
    }
}

impl fmt::Debug for StoreInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("id", &self.store_id)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}
