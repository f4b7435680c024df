//! All sessions: for gc, which must know what they name, and for whoever lets them expire.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::Extent;
use bulla_envelope::ids::SessionId;
use bulla_envelope::names::extent_key;
use bulla_envelope::session::{UPLOAD_KIND, UPLOADS};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};

use super::saved::Saved;
use crate::bucket::Entry;
use crate::error::{Error, Result};
use crate::store::{Store, StoreInner};

/// Sessions read at once.
const READS: usize = 16;

/// An upload session in a listing.
#[non_exhaustive]
pub struct SessionEntry {
    /// Its name.
    pub id: SessionId,
    /// When it began, in milliseconds since 1970.
    pub created: u64,
    /// When it was last written, in milliseconds since 1970, by that node's clock.
    pub touched: u64,
    /// How many bytes were acknowledged.
    pub offset: u64,
    /// The digest that a commit has begun with.
    pub committing: Option<Digest>,
    saved: Saved,
}

impl SessionEntry {
    /// The data objects that it names.
    pub(crate) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.saved.record.extents.iter().map(|stored| &stored.extent)
    }

    /// The keys of the data objects that it names, which gc must not remove.
    pub fn data_keys(&self) -> impl Iterator<Item = String> {
        self.extents().map(|extent| extent_key(&extent.name))
    }
}

impl Store {
    /// Every upload session, read one request each, in no particular order. One that does not authenticate is an item that is
    /// an error, and the listing goes on after it.
    ///
    /// Who looks for unused data lists sessions *before* envelopes: a commit creates the envelope first and then removes
    /// the session, so in this order its data is seen in one or the other.
    #[must_use]
    pub fn sessions(&self) -> BoxStream<'static, Result<SessionEntry>> {
        StoreInner::sessions(Arc::clone(self.inner())).boxed()
    }

    /// Removes sessions that were last written before `before`, by the bucket's clock, and what earlier ones left behind.
    /// What they name is left to gc, as a commit may be under way. Returns how many sessions went.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled` as everywhere: some may be gone, and it can be called again.
    ///
    /// # Cancel safety
    /// A dropped call has removed some of them.
    pub async fn expire_sessions(&self, before: SystemTime) -> Result<u64> {
        self.inner().expire_sessions(before).await
    }
}

impl StoreInner {
    fn sessions(self: Arc<Self>) -> impl Stream<Item = Result<SessionEntry>> + Send + 'static {
        self.session_keys()
            .map(move |key| {
                let inner = Arc::clone(&self);
                async move {
                    match key {
                        Ok(key) => inner.session_entry(&key).await.transpose(),
                        Err(error) => Some(Err(error)),
                    }
                }
            })
            .buffer_unordered(READS)
            .filter_map(std::future::ready)
    }

    /// The keys of all sessions, and of what else is among them.
    pub(crate) fn session_keys(&self) -> impl Stream<Item = Result<String>> + Send + use<> {
        let entries = self.bucket.list(UPLOADS).map_err(Error::from);
        entries.try_filter_map(|entry| std::future::ready(Ok((!entry.is_tombstone()).then_some(entry.key))))
    }

    /// The session at `key`, or `None` if it went meanwhile.
    pub(crate) async fn session_entry(&self, key: &str) -> Result<Option<SessionEntry>> {
        let Some(saved) = self.read_session_at(key).await? else { return Ok(None) };
        Ok(Some(SessionEntry {
            id: saved.id,
            created: saved.record.created,
            touched: saved.record.touched,
            offset: saved.record.offset(),
            committing: saved.record.committing.clone(),
            saved,
        }))
    }

    pub(crate) async fn expire_sessions(&self, before: SystemTime) -> Result<u64> {
        self.gate.secrets(self).await?;
        let entries = self.bucket.list(UPLOADS).map_err(Error::from);
        let old = entries.try_filter(|entry| std::future::ready(entry.last_modified < before));
        old.map_ok(|entry| self.expire_session(entry, before))
            .try_buffer_unordered(READS)
            .try_fold(0, |count, expired| std::future::ready(Ok(count + u64::from(expired))))
            .await
    }

    /// Nothing but the name is looked at, so a session that is damaged expires too.
    async fn expire_session(&self, entry: Entry, before: SystemTime) -> Result<bool> {
        let keys = self.gate.secrets(self).await?;
        if keys.root.name_key(UPLOAD_KIND).session_of_upload_key(&entry.key).is_err() {
            return Ok(false);
        }
        if entry.is_tombstone() {
            // It has long ended all writes that were conditional on the session, and its name is never used again.
            self.bucket.delete_data(&entry.key).await?;
            return Ok(false);
        }
        // Some stores leave parts of the version out of listings.
        match self.bucket.get(&entry.key, MAX_OBJECT_LEN).await? {
            Some(object) if !object.is_tombstone() && object.last_modified < before => {
                let removed = self.bucket.remove(&entry.key, &object.version, self.nonce()).await;
                // Whatever else the answer is: the next time will see.
                Ok(removed.is_done())
            }
            _ => Ok(false),
        }
    }
}

impl fmt::Debug for SessionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionEntry")
            .field("id", &self.id)
            .field("touched", &self.touched)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
