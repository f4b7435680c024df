//! The commit of a put: the envelope is created if absent, and whatever answer comes back, the bucket decides.
//!
//! ```text
//!            ┌──────────────── retry ────────────────┐
//!            ▼                                       │
//! not too old, lease live ─► create/replace ─► definite yes ─► log still fresh? gc outrun? ─► acknowledge
//!                                  │
//!                                  └► anything else ─► read again: ours ─► as yes
//!                                                                  nothing, tombstone, unusable ─► retry
//!                                                                  another's, usable ─► acknowledge theirs, drop ours
//! ```

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::{BlobRecord, Envelope, EnvelopeHeader};
use bulla_envelope::ids::{BlobId, RootId};
use bulla_envelope::secret::Dek;
use bytes::Bytes;

use crate::bucket::{BucketError, BucketErrorKind, Conditional, UpdateVersion};
use crate::envelopes::{Found, OpenedBlob};
use crate::error::{Error, ErrorKind, Result};
use crate::extents::PlacedExtent;
use crate::horizon::{Horizon, Outrun, Wanted};
use crate::store::StoreInner;
use crate::unlock::Unlocked;
use crate::upload::PutResult;

const ATTEMPTS: usize = 16;

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
    /// No extent is older than this horizon.
    pub(crate) horizon: Horizon,
    pub(crate) ttl: Option<Duration>,
}

/// Whether a create was sent whose fate is not known: then its data must stay, for it may still become visible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    AllDefinite,
    SomeLost,
}

impl StoreInner {
    pub(crate) async fn commit(&self, mut draft: Draft) -> Result<PutResult> {
        let (result, answers) = self.commit_draft(&mut draft).await;
        let ours = matches!(&result, Ok(result) if result.created);
        if !ours && answers == Answers::AllDefinite {
            self.drop_extents(&draft.extents).await;
        }
        result
    }

    /// As [`commit`](Self::commit), for data that others name too: it stays, whatever comes.
    pub(crate) async fn commit_shared(&self, mut draft: Draft) -> Result<PutResult> {
        self.commit_draft(&mut draft).await.0
    }

    async fn commit_draft(&self, draft: &mut Draft) -> (Result<PutResult>, Answers) {
        let mut answers = Answers::AllDefinite;
        let result = self.try_commit(draft, &mut answers).await;
        self.cache.remove(&draft.digest);
        (result, answers)
    }

    async fn try_commit(&self, draft: &mut Draft, answers: &mut Answers) -> Result<PutResult> {
        let mut replace: Option<UpdateVersion> = None;
        // Somebody else's envelope of that version, if it can be read.
        let mut replaced = None;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            self.refuse_too_old(draft)?;
            // Half of what is allowed before acknowledging, so that it is seldom read twice.
            if self.outrun_gc(draft, self.gate.revocation_bound() / 2).await? == Outrun::Gone {
                return Err(collected());
            }
            self.refuse_expired_kek()?;
            let keys = self.gate.secrets(self).await?;
            let (key, object) =
                (self.blob_key(&keys, &draft.digest), self.seal_envelope(&keys, draft).await?);
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
                    return self.finish(draft, keys, version, replaced, answers).await;
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
            (replace, replaced) = match found {
                Found::Blob(found) if is_ours => {
                    return self.finish_found(draft, &found, replaced, answers).await;
                }
                Found::Blob(found) if self.usable(&found, draft).await? => {
                    let (digest, size) = (digest.clone(), found.record.size);
                    return Ok(PutResult { digest, size, created: false });
                }
                Found::Nothing => (None, None),
                Found::Blob(found) => (Some(found.version.clone()), Some(found)),
                Found::Tombstone(version) => (Some(version), None),
                Found::Damaged(version, error) => {
                    tracing::warn!(%digest, %error, "replacing a damaged envelope");
                    (Some(version), None)
                }
            };
        }
        Err(contended(failure, &draft.digest))
    }

    /// Our envelope is there, naming the draft's extents, wrapped under the active key of `keys`, perhaps in the place of
    /// somebody else's.
    async fn finish(
        &self,
        draft: &mut Draft,
        keys: Arc<Unlocked>,
        version: UpdateVersion,
        replaced: Option<Arc<OpenedBlob>>,
        answers: &mut Answers,
    ) -> Result<PutResult> {
        // From here on the envelope is visible: its data must stay whatever happens, unless it is withdrawn.
        let before = std::mem::replace(answers, Answers::SomeLost);
        let done = PutResult { digest: draft.digest.clone(), size: draft.size, created: true };
        let mut written = (keys, version);
        loop {
            let Some(version) = self.rewrap_if_late(draft, written).await? else { return Ok(done) };
            match self.outrun_gc(draft, self.gate.revocation_bound()).await? {
                Outrun::Unmoved => return Ok(done),
                Outrun::Moved => {
                    let keys = self.gate.secrets(self).await?;
                    let Some(version) = self.replace_own(draft, &keys, version).await? else {
                        return Ok(done);
                    };
                    written = (keys, version);
                }
                Outrun::Gone => {
                    if self.withdraw(draft, &version, replaced.as_deref()).await? {
                        *answers = before;
                    }
                    return Err(collected());
                }
            }
        }
    }

    /// Our envelope was created by an attempt whose answer was lost; by whichever key that attempt used, and perhaps before
    /// extents were copied to new names.
    async fn finish_found(
        &self,
        draft: &mut Draft,
        found: &OpenedBlob,
        replaced: Option<Arc<OpenedBlob>>,
        answers: &mut Answers,
    ) -> Result<PutResult> {
        *answers = Answers::SomeLost;
        let keys = self.gate.secrets(self).await?;
        let mut version = found.version.clone();
        if !is_current(found, draft, &keys) {
            match self.replace_own(draft, &keys, version).await? {
                Some(now) => version = now,
                None => {
                    return Ok(PutResult { digest: draft.digest.clone(), size: draft.size, created: true });
                }
            }
        }
        self.finish(draft, keys, version, replaced, answers).await
    }

    /// Takes our envelope back, whose data is gone: nobody can read it, so nobody relies on it. What it replaced, somebody
    /// may rely on: that is put back. Whether it certainly is away.
    async fn withdraw(
        &self,
        draft: &Draft,
        version: &UpdateVersion,
        replaced: Option<&OpenedBlob>,
    ) -> Result<bool> {
        let keys = self.gate.secrets(self).await?;
        let key = self.blob_key(&keys, &draft.digest);
        if let Some(before) = replaced {
            let extents: Vec<Wanted> = before.record.extents.iter().map(Wanted::from).collect();
            if self.times_of(&extents).await?.is_some() {
                // It was away for a moment.
                let record = BlobRecord { there_since: None, ..before.record.clone() };
                let object = self.seal_record(&keys, &record, &before.dek).await?;
                return Ok(self.bucket.put_update(&key, object, version).await.is_done());
            }
        }
        Ok(matches!(self.bucket.remove(&key, version, self.nonce()).await, Conditional::Done(())))
    }

    /// Makes sure that no gc removes the draft's data behind its envelope's back: [`crate::horizon`] has the argument.
    ///
    /// A gc that leaves data alone for as long as writers count on raises the horizon without waiting for them; who took
    /// longer than half of that reads it anew.
    async fn outrun_gc(&self, draft: &mut Draft, max_age: Duration) -> Result<Outrun> {
        if draft.extents.is_empty() {
            return Ok(Outrun::Unmoved);
        }
        let too_old = self.are_too_old(&draft.extents);
        let horizon = self.horizon(if too_old { Duration::ZERO } else { max_age }).await?;
        if horizon <= draft.horizon && !too_old {
            return Ok(Outrun::Unmoved);
        }
        let outcome = self.outrun(&mut draft.extents, horizon).await?;
        draft.horizon = draft.horizon.max(horizon);
        Ok(outcome)
    }

    /// A paused process may have wrapped with a key that was retired meanwhile. If lease or log view grew older than R
    /// between the start of reading the log and now, the log is read again and the envelope re-wrapped where needed.
    ///
    /// The envelope's version now; `None` as [`replace_own`](Self::replace_own).
    async fn rewrap_if_late(
        &self,
        draft: &Draft,
        (mut keys, mut version): (Arc<Unlocked>, UpdateVersion),
    ) -> Result<Option<UpdateVersion>> {
        loop {
            if self.is_in_time(&keys) {
                return Ok(Some(version));
            }
            let newer = self.gate.refresh(self).await?;
            if newer.active_kid() == keys.active_kid() {
                return Ok(Some(version));
            }
            let Some(rewrapped) = self.replace_own(draft, &newer, version).await? else { return Ok(None) };
            // The process may have been paused in this write as well.
            (keys, version) = (newer, rewrapped);
        }
    }

    /// Whether a write that `keys` went into may be acknowledged without another look at the log.
    pub(crate) fn is_in_time(&self, keys: &Unlocked) -> bool {
        let now = self.parts.runtime.now();
        let bound = self.gate.revocation_bound();
        let in_time = now.since(&keys.view.read_started) <= bound && now.since(&keys.sent) <= bound;
        in_time && self.gate.is_live(self)
    }

    /// Replaces our own envelope by one that is wrapped under the active store key and names the extents where they are now.
    /// `None` where it was deleted or replaced after it was there: theirs is the newer word.
    async fn replace_own(
        &self,
        draft: &Draft,
        keys: &Arc<Unlocked>,
        version: UpdateVersion,
    ) -> Result<Option<UpdateVersion>> {
        let key = self.blob_key(keys, &draft.digest);
        let mut version = version;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let object = self.seal_envelope(keys, draft).await?;
            match self.bucket.put_update(&key, object, &version).await {
                Conditional::Done(version) => return Ok(Some(version)),
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            match self.read_envelope(&draft.digest).await? {
                Found::Blob(found) if is_current(&found, draft, keys) => {
                    return Ok(Some(found.version.clone()));
                }
                Found::Blob(found) if found.record.blob == draft.blob => version = found.version.clone(),
                // Perhaps ours, under a key that is no longer in the log: nobody can read it, so it is replaced.
                Found::Damaged(found, _) => version = found,
                Found::Nothing | Found::Tombstone(_) | Found::Blob(_) => return Ok(None),
            }
        }
        Err(contended(failure, &draft.digest))
    }

    /// Whether somebody else's envelope serves as well as ours: its data is all there and stays, it expires no earlier, and
    /// its key is active.
    async fn usable(&self, found: &OpenedBlob, draft: &Draft) -> Result<bool> {
        let keys = self.gate.secrets(self).await?;
        let expiry = self.expiry(draft);
        let long_enough = match (found.record.expires, expiry) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(theirs), Some(ours)) => theirs >= ours,
        };
        Ok(long_enough && keys.is_active(&found.wrapped_by) && self.stays(found).await?)
    }

    /// Whether the data of somebody else's envelope is all there, at exactly its length, and no gc may have missed it.
    ///
    /// A gc removes what was more than R older than the moment at which it looked for envelopes, or else raised the horizon
    /// above it before it looked. So it has seen an envelope that was there less than R after its data.
    async fn stays(&self, found: &OpenedBlob) -> Result<bool> {
        let extents: Vec<Wanted> = found.record.extents.iter().map(Wanted::from).collect();
        let Some(times) = self.times_of(&extents).await? else { return Ok(false) };
        let Some(oldest) = times.into_iter().min() else { return Ok(true) };
        let quick = self.gate.revocation_bound().min(self.parts.gc_grace / 2);
        let key = self.blob_key(&*self.gate.secrets(self).await?, &found.record.digest);
        let visible = match found.record.there_since {
            Some(since) => UNIX_EPOCH + Duration::from_millis(since),
            None => match self.bucket.placed(&key, found.modified).await {
                Ok(visible) => visible,
                Err(error) if error.kind() == BucketErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error.into()),
            },
        };
        let took = visible.duration_since(oldest).unwrap_or_default();
        Ok(took <= quick || !self.horizon(Duration::ZERO).await?.is_after(oldest))
    }

    async fn seal_envelope(&self, keys: &Unlocked, draft: &Draft) -> Result<Bytes> {
        let record = BlobRecord {
            digest: draft.digest.clone(),
            size: draft.size,
            blob: draft.blob,
            extents: draft.extents.iter().map(|placed| placed.extent.clone()).collect(),
            inline: draft.inline.clone(),
            created: self.parts.runtime.now().unix_ms(),
            dek_root: draft.dek_root.unwrap_or(keys.root_id),
            expires: self.expiry(draft),
            there_since: None,
        };
        self.seal_record(keys, &record, &draft.dek).await
    }

    async fn seal_record(&self, keys: &Unlocked, record: &BlobRecord, dek: &Dek) -> Result<Bytes> {
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let wraps = vec![self.wrap_dek(keys, dek).await?];
        let (crypto, key) = (self.parts.crypto, &keys.envelope_key);
        let envelope = Envelope::seal(crypto, key, header, wraps, dek, record, salt).map_err(|error| {
            Error::invalid("the blob can't be described by one envelope").with_source(error)
        })?;
        Ok(Bytes::from(envelope.encode()))
    }

    fn expiry(&self, draft: &Draft) -> Option<u64> {
        let ttl = draft.ttl?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Some(self.parts.runtime.now().unix_ms().saturating_add(ttl))
    }

    fn refuse_too_old(&self, draft: &Draft) -> Result<()> {
        if self.are_too_old(&draft.extents) { Err(too_old()) } else { Ok(()) }
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

pub(crate) fn collected() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "TooOld: data of this upload was removed before the upload was complete (by a gc with a short grace, or by hand); \
         put the blob again",
    )
}

/// Whether what was found is our envelope as it would be written now.
fn is_current(found: &OpenedBlob, draft: &Draft, keys: &Unlocked) -> bool {
    let ours = draft.extents.iter().map(|placed| &placed.extent);
    found.record.blob == draft.blob
        && keys.is_active(&found.wrapped_by)
        && found.record.extents.iter().eq(ours)
}
