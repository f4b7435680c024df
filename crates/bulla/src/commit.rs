//! The commit of a put: the envelope is created if absent, and whatever answer comes back, the bucket decides.
//!
//! ```text
//!            ┌──────────────── retry ────────────────┐
//!            ▼                                       │
//! not too old, lease live ─► create/replace ─► definite yes ─► still young? log still fresh? ─► acknowledge
//!                                  │
//!                                  └► anything else ─► read again: ours ─► as yes
//!                                                                  nothing, tombstone, unusable ─► retry
//!                                                                  another's, usable ─► acknowledge theirs, drop ours
//! ```

use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::cobblestone::sealed_len;
use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::{BlobRecord, Envelope, EnvelopeHeader};
use bulla_envelope::ids::{BlobId, RootId};
use bulla_envelope::names::extent_key;
use bulla_envelope::secret::Dek;
use bulla_kek::Now;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::bucket::{BucketError, Conditional, UpdateVersion};
use crate::envelopes::{Found, OpenedBlob, age};
use crate::error::{Error, ErrorKind, Result};
use crate::extents::PlacedExtent;
use crate::store::StoreInner;
use crate::unlock::Unlocked;
use crate::upload::PutResult;

const ATTEMPTS: usize = 16;

/// How many data objects are looked for at once.
const HEADS: usize = 16;

/// Everything a commit needs, with all data uploaded.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) blob: BlobId,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) dek: Dek,
    /// The root in use when the DEK was made; `None`: the one in use now.
    pub(crate) dek_root: Option<RootId>,
    pub(crate) inline: Option<Vec<u8>>,
    pub(crate) extents: Vec<PlacedExtent>,
    pub(crate) ttl: Option<Duration>,
}

/// Whether a create was sent whose fate is not known: then its data must stay, for it may still become visible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    AllDefinite,
    SomeLost,
}

impl StoreInner {
    pub(crate) async fn commit(&self, draft: Draft) -> Result<PutResult> {
        let (result, answers) = self.commit_draft(&draft).await;
        let ours = matches!(&result, Ok(result) if result.created);
        if !ours && answers == Answers::AllDefinite {
            self.drop_extents(&draft.extents).await;
        }
        result
    }

    /// As [`commit`](Self::commit), for data that others name too: it stays, whatever comes.
    pub(crate) async fn commit_shared(&self, draft: &Draft) -> Result<PutResult> {
        self.commit_draft(draft).await.0
    }

    async fn commit_draft(&self, draft: &Draft) -> (Result<PutResult>, Answers) {
        let mut answers = Answers::AllDefinite;
        let result = self.try_commit(draft, &mut answers).await;
        self.cache.remove(&draft.digest);
        (result, answers)
    }

    async fn try_commit(&self, draft: &Draft, answers: &mut Answers) -> Result<PutResult> {
        let mut replace: Option<UpdateVersion> = None;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            self.refuse_too_old(draft)?;
            self.refuse_expired_kek()?;
            let keys = self.gate.secrets(self).await?;
            let (key, object) = (self.blob_key(&keys, &draft.digest), self.seal_envelope(&keys, draft)?);
            let outcome = match &replace {
                None => self.bucket.put_create(&key, object).await,
                Some(version) => self.bucket.put_update(&key, object, version).await,
            };
            let before = *answers;
            // "Lost" may be the answer to our own retry: it is definite once a read shows what is there instead.
            *answers = Answers::SomeLost;
            let refused = matches!(outcome, Conditional::Lost);
            match outcome {
                Conditional::Done(version) => {
                    *answers = before;
                    return self.finish(draft, &keys, version, answers).await;
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            // After any failed conditional write: what is there now? A lost answer comes back as "exists already".
            let digest = &draft.digest;
            let found = self.read_envelope(digest).await?;
            let is_ours = matches!(&found, Found::Blob(found) if found.record.blob == draft.blob);
            if refused && !is_ours {
                *answers = before;
            }
            replace = match found {
                Found::Blob(found) if is_ours => {
                    let keys = self.gate.secrets(self).await?;
                    let version = found.version.clone();
                    return self.finish_found(draft, &keys, &found, version, answers).await;
                }
                Found::Blob(found) if self.usable(&found, draft).await? => {
                    let (digest, size) = (digest.clone(), found.record.size);
                    return Ok(PutResult { digest, size, created: false });
                }
                Found::Nothing => None,
                Found::Blob(found) => Some(found.version.clone()),
                Found::Tombstone(version) => Some(version),
                Found::Damaged(version, error) => {
                    tracing::warn!(%digest, %error, "replacing a damaged envelope");
                    Some(version)
                }
            };
        }
        Err(contended(failure, &draft.digest))
    }

    /// Our envelope was created just now.
    async fn finish(
        &self,
        draft: &Draft,
        keys: &Arc<Unlocked>,
        version: UpdateVersion,
        answers: &mut Answers,
    ) -> Result<PutResult> {
        // From here on the envelope is visible: its data must stay whatever happens, unless it is withdrawn.
        let before = std::mem::replace(answers, Answers::SomeLost);
        let version = self.rewrap_if_late(draft, keys, version).await?;
        if self.is_too_old(draft)
            && !self.all_there(&draft.extents.iter().map(Into::into).collect::<Vec<_>>()).await?
        {
            let key = self.blob_key(keys, &draft.digest);
            if let Conditional::Done(_) = self.bucket.remove(&key, &version, self.nonce()).await {
                *answers = before;
            }
            return Err(too_old());
        }
        Ok(PutResult { digest: draft.digest.clone(), size: draft.size, created: true })
    }

    /// Our envelope was created by an attempt whose answer was lost; by whichever key that attempt used.
    async fn finish_found(
        &self,
        draft: &Draft,
        keys: &Arc<Unlocked>,
        found: &OpenedBlob,
        version: UpdateVersion,
        answers: &mut Answers,
    ) -> Result<PutResult> {
        if keys.is_active(&found.wrapped_by) {
            return self.finish(draft, keys, version, answers).await;
        }
        *answers = Answers::SomeLost;
        let version = self.rewrap(draft, keys, version).await?;
        self.finish(draft, keys, version, answers).await
    }

    /// A paused process may have wrapped with a key that was retired meanwhile. If lease or log view grew older than R
    /// between the start of reading the log and now, the log is read again and the envelope re-wrapped where needed.
    async fn rewrap_if_late(
        &self,
        draft: &Draft,
        keys: &Arc<Unlocked>,
        mut version: UpdateVersion,
    ) -> Result<UpdateVersion> {
        let mut keys = Arc::clone(keys);
        loop {
            if self.is_in_time(&keys) {
                return Ok(version);
            }
            let newer = self.gate.refresh(self).await?;
            if newer.active_store_key == keys.active_store_key {
                return Ok(version);
            }
            version = self.rewrap(draft, &newer, version).await?;
            // The process may have been paused in this write as well.
            keys = newer;
        }
    }

    /// Whether a write that `keys` went into may be acknowledged without another look at the log.
    pub(crate) fn is_in_time(&self, keys: &Unlocked) -> bool {
        let now = self.parts.runtime.now();
        let bound = self.gate.revocation_bound();
        let in_time = age(&now, &keys.view.read_started) <= bound && age(&now, &keys.sent) <= bound;
        in_time && self.gate.is_live(self)
    }

    /// Replaces our own envelope by one wrapped under the active store key.
    async fn rewrap(
        &self,
        draft: &Draft,
        keys: &Arc<Unlocked>,
        version: UpdateVersion,
    ) -> Result<UpdateVersion> {
        let key = self.blob_key(keys, &draft.digest);
        let mut version = version;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            match self.bucket.put_update(&key, self.seal_envelope(keys, draft)?, &version).await {
                Conditional::Done(version) => return Ok(version),
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            match self.read_envelope(&draft.digest).await? {
                Found::Blob(found)
                    if found.record.blob == draft.blob && keys.is_active(&found.wrapped_by) =>
                {
                    return Ok(found.version.clone());
                }
                Found::Blob(found) if found.record.blob == draft.blob => version = found.version.clone(),
                // Somebody deleted or replaced it after it was there: theirs is the newer word.
                Found::Nothing => return Ok(version),
                Found::Tombstone(version) | Found::Damaged(version, _) => return Ok(version),
                Found::Blob(found) => return Ok(found.version.clone()),
            }
        }
        Err(contended(failure, &draft.digest))
    }

    /// Whether somebody else's envelope serves as well as ours: its data is all there, it expires no earlier, and its
    /// key is active.
    async fn usable(&self, found: &OpenedBlob, draft: &Draft) -> Result<bool> {
        let keys = self.gate.secrets(self).await?;
        let expiry = self.expiry(draft);
        let long_enough = match (found.record.expires, expiry) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(theirs), Some(ours)) => theirs >= ours,
        };
        let extents: Vec<Wanted> = found.record.extents.iter().map(Wanted::from).collect();
        Ok(long_enough && keys.is_active(&found.wrapped_by) && self.all_there(&extents).await?)
    }

    /// Whether every extent is there at exactly its length.
    async fn all_there(&self, extents: &[Wanted]) -> Result<bool> {
        let checks = stream::iter(extents.to_vec()).map(|wanted| async move {
            match self.bucket.head(&wanted.key).await {
                Ok(Some(entry)) => Ok(Some(entry.size) == wanted.len),
                Ok(None) => Ok(false),
                Err(error) => Err(Error::from(error)),
            }
        });
        checks.buffer_unordered(HEADS).try_fold(true, |all, there| async move { Ok(all && there) }).await
    }

    fn seal_envelope(&self, keys: &Unlocked, draft: &Draft) -> Result<Bytes> {
        let record = BlobRecord {
            digest: draft.digest.clone(),
            size: draft.size,
            blob: draft.blob,
            extents: draft.extents.iter().map(|placed| placed.extent.clone()).collect(),
            inline: draft.inline.clone(),
            created: self.parts.runtime.now().unix_ms(),
            dek_root: draft.dek_root.unwrap_or(keys.root_id),
            expires: self.expiry(draft),
        };
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let wraps = vec![keys.wrap_dek(&draft.dek)];
        let envelope =
            Envelope::seal(self.parts.crypto, &keys.envelope_key, header, wraps, &draft.dek, &record, salt)
                .map_err(|error| {
                Error::invalid("the blob can't be described by one envelope").with_source(error)
            })?;
        Ok(Bytes::from(envelope.encode()))
    }

    fn expiry(&self, draft: &Draft) -> Option<u64> {
        let ttl = draft.ttl?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Some(self.parts.runtime.now().unix_ms().saturating_add(ttl))
    }

    fn is_too_old(&self, draft: &Draft) -> bool {
        let now = self.parts.runtime.now();
        let oldest: Option<&Now> =
            draft.extents.iter().map(|placed| &placed.started).min_by_key(|started| started.boot);
        oldest.is_some_and(|oldest| age(&now, oldest) > self.parts.gc_grace / 2)
    }

    fn refuse_too_old(&self, draft: &Draft) -> Result<()> {
        if self.is_too_old(draft) { Err(too_old()) } else { Ok(()) }
    }
}

/// Every attempt at a conditional write failed: the last failure, or else others were faster each time.
pub(crate) fn contended(failure: Option<BucketError>, what: &dyn std::fmt::Display) -> Error {
    failure.map_or_else(
        || Error::new(ErrorKind::Conflict, format!("others keep writing {what}; try again")),
        Error::from,
    )
}

fn too_old() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "TooOld: the upload took longer than half of the gc grace, so its data may be collected; put the blob again",
    )
}

/// A data object that must be there.
#[derive(Clone, Debug)]
struct Wanted {
    key: String,
    /// The object's exact length; `None` for an extent that can't be.
    len: Option<u64>,
}

impl From<&bulla_envelope::envelope::Extent> for Wanted {
    fn from(extent: &bulla_envelope::envelope::Extent) -> Self {
        Self { key: extent_key(&extent.name), len: sealed_len(extent.len) }
    }
}

impl From<&PlacedExtent> for Wanted {
    fn from(placed: &PlacedExtent) -> Self {
        Self::from(&placed.extent)
    }
}
