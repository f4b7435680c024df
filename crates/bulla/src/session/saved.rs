//! The session object: read, written by compare-and-swap, removed.
//!
//! After any failed conditional write it is read again: our own revision there = done; the revision we started from =
//! again, with the wraps that are there now, as another node may have wrapped the DEK anew; anything else = another node
//! went on.

use std::sync::Arc;

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::{EnvelopeHeader, Wrap};
use bulla_envelope::ids::SessionId;
use bulla_envelope::secret::Dek;
use bulla_envelope::session::{SessionRecord, UPLOAD_KIND};
use bytes::Bytes;

use super::{gone, moved};
use crate::bucket::{Conditional, UpdateVersion};
use crate::commit::contended;
use crate::deks::Unwrapped;
use crate::error::{Error, Result};
use crate::store::StoreInner;
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 16;

/// A session as it is in the bucket, as far as is known.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) id: SessionId,
    pub(crate) record: SessionRecord,
    pub(crate) version: UpdateVersion,
    /// Whether a write was sent that may have been applied, or may yet be, without this handle knowing: what it names may be
    /// in use then, by who went on after it.
    pub(super) in_doubt: bool,
}

impl StoreInner {
    pub(crate) fn session_key(&self, keys: &Unlocked, id: &SessionId) -> String {
        keys.root.name_key(UPLOAD_KIND).upload_key(id)
    }

    /// The session `id`, or `None` if there is none.
    pub(crate) async fn read_session(&self, id: &SessionId) -> Result<Option<Saved>> {
        let key = self.session_key(&*self.gate.secrets(self).await?, id);
        let Some(object) = self.bucket.get(&key, MAX_OBJECT_LEN).await? else { return Ok(None) };
        if object.is_tombstone() {
            return Ok(None);
        }
        // The lease may have ended while the object was on its way: keys are asked for when they are used.
        let keys = self.gate.secrets(self).await?;
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let key = keys.root.upload_key();
        let opened = SessionRecord::open(self.parts.crypto, &key, header, id, &object.bytes);
        let record = opened.map_err(|error| {
            Error::corrupt(format!("upload {id} does not authenticate; cancel it")).with_source(error)
        })?;
        // And once more before anything of it is released.
        self.gate.secrets(self).await?;
        Ok(Some(Saved { id: *id, record, version: object.version, in_doubt: false }))
    }

    /// Unwraps a session's DEK. The wraps authenticated with the session.
    pub(crate) async fn session_dek(&self, wraps: &[Wrap]) -> Result<Dek> {
        let keys = self.keys_that_know(wraps).await?;
        for wrap in wraps {
            if let Unwrapped::Dek(dek) = self.unwrap_dek(&keys, wrap).await? {
                return Ok(dek);
            }
        }
        Err(Error::corrupt("the upload's key is wrapped by no key that the log names; begin the upload anew"))
    }

    /// The secrets, with a fresh view of the log if the present one has the key of none of `wraps`: another node may have
    /// brought in a new one, which must not be replaced by an old one.
    async fn keys_that_know(&self, wraps: &[Wrap]) -> Result<Arc<Unlocked>> {
        let keys = self.gate.secrets(self).await?;
        if wraps.iter().any(|wrap| keys.names(wrap)) {
            return Ok(keys);
        }
        self.gate.refresh(self).await
    }

    /// Writes a new session, whose DEK `keys` wrapped; or reads the one of that name, if there is one.
    pub(super) async fn create_session(
        &self,
        id: SessionId,
        record: SessionRecord,
        dek: &Dek,
        keys: &Arc<Unlocked>,
    ) -> Result<Saved> {
        let key = self.session_key(keys, &id);
        let object = self.seal_session(keys, &id, &record)?;
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            match self.bucket.put_create(&key, object.clone()).await {
                Conditional::Done(version) => {
                    let saved = Saved { id, record, version, in_doubt: false };
                    return self.rewrap_session_if_late(saved, dek, keys).await;
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            match self.read_session(&id).await? {
                Some(saved) if saved.record.revision == record.revision => {
                    return self.rewrap_session_if_late(saved, dek, keys).await;
                }
                // Another request of the same upload began it.
                Some(saved) => return Ok(saved),
                None if self.bucket.head(&key).await?.is_some_and(|entry| entry.is_tombstone()) => {
                    return Err(gone(&id));
                }
                None => {}
            }
        }
        Err(contended(failure, &format!("upload {id}")))
    }

    /// A paused process may have wrapped with a key that was retired meanwhile. Only a create has to look: any other write
    /// of a session is conditional on what a sweep leaves behind.
    async fn rewrap_session_if_late(
        &self,
        mut saved: Saved,
        dek: &Dek,
        keys: &Arc<Unlocked>,
    ) -> Result<Saved> {
        if self.is_in_time(keys) {
            return Ok(saved);
        }
        let newer = self.gate.refresh(self).await?;
        if saved.record.wraps.iter().any(|wrap| newer.is_active(&wrap.kid)) {
            return Ok(saved);
        }
        let next = saved.record.clone();
        self.save_session(&mut saved, next, dek).await?;
        Ok(saved)
    }

    /// Replaces the session, if it is still as `saved` says, but for its wraps. The DEK is wrapped by the active key, the
    /// revision drawn anew, the time that of now.
    pub(super) async fn save_session(
        &self,
        saved: &mut Saved,
        mut next: SessionRecord,
        dek: &Dek,
    ) -> Result<()> {
        next.revision = self.nonce();
        next.touched = self.parts.runtime.now().unix_ms();
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let keys = self.keys_that_know(&saved.record.wraps).await?;
            next.wraps.clone_from(&saved.record.wraps);
            if !next.wraps.iter().any(|wrap| keys.is_active(&wrap.kid)) {
                next.wraps = vec![self.wrap_dek(&keys, dek).await?];
            }
            let key = self.session_key(&keys, &saved.id);
            let object = self.seal_session(&keys, &saved.id, &next)?;
            saved.in_doubt = true;
            match self.bucket.put_update(&key, object, &saved.version).await {
                Conditional::Done(version) => {
                    saved.record = next;
                    saved.version = version;
                    // Nothing is acknowledged without a live lease; but from here on the session names its data.
                    self.gate.secrets(self).await?;
                    saved.in_doubt = false;
                    return Ok(());
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            let found = self.read_session(&saved.id).await?.ok_or_else(|| gone(&saved.id))?;
            if found.record.revision == next.revision {
                *saved = found;
                return Ok(());
            }
            if found.record.revision != saved.record.revision {
                return Err(moved());
            }
            *saved = Saved { in_doubt: true, ..found };
        }
        Err(contended(failure, &format!("upload {}", saved.id)))
    }

    /// Removes a session whose blob is there. What can't be removed now is committed again, or expires.
    pub(super) async fn remove_committed(&self, saved: &mut Saved, digest: &Digest) {
        for attempt in 0..ATTEMPTS {
            let removed = async {
                let keys = self.gate.secrets(self).await?;
                let key = self.session_key(&keys, &saved.id);
                if self.bucket.remove(&key, &saved.version, self.nonce()).await.is_done() {
                    return Ok(true);
                }
                // Copied extents or another wrap: still the session of this blob.
                Ok::<_, Error>(match self.read_session(&saved.id).await? {
                    Some(found) if found.record.committing.as_ref() == Some(digest) => {
                        *saved = found;
                        false
                    }
                    _ => true,
                })
            };
            match removed.await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "a committed upload session stays for now"),
            }
            self.back_off(attempt).await;
        }
    }

    /// Removes a session, whatever its state, and what it named, if nobody else can name it.
    pub(super) async fn cancel_session(&self, mut saved: Saved) -> Result<()> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let key = self.session_key(&*self.gate.secrets(self).await?, &saved.id);
            match self.bucket.remove(&key, &saved.version, self.nonce()).await {
                Conditional::Done(()) => {
                    // It was not being committed, and now never will be.
                    if saved.record.committing.is_none() {
                        let names: Vec<_> =
                            saved.record.extents.iter().map(|stored| stored.extent.name).collect();
                        self.drop_objects(&names).await;
                    }
                    return Ok(());
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            // Gone by whose hand? By a commit's, its data is named by an envelope: it stays.
            let Some(found) = self.read_session(&saved.id).await? else { return Ok(()) };
            saved = found;
        }
        Err(contended(failure, &format!("upload {}", saved.id)))
    }

    pub(super) fn seal_session(
        &self,
        keys: &Unlocked,
        id: &SessionId,
        record: &SessionRecord,
    ) -> Result<Bytes> {
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let key = keys.root.upload_key();
        let object = record
            .seal(self.parts.crypto, &key, header, id, salt)
            .map_err(|error| Error::invalid("the upload can't be described").with_source(error))?;
        Ok(Bytes::from(object))
    }
}
