//! Sessions in a rewrap: their DEKs are wrapped again and counted like those of envelopes.

use bulla_envelope::session::{SessionRecord, UPLOAD_KIND};

use super::saved::Saved;
use crate::bucket::Conditional;
use crate::commit::contended;
use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreInner;
use crate::sweep::envelope::Outcome;

const ATTEMPTS: usize = 16;

impl StoreInner {
    /// Wraps the DEK of the session at `key` under the active key, if it is under another. Nothing but the wraps changes, the
    /// revision included: who goes on with the upload goes on (FORMAT-U4).
    ///
    /// # Errors
    /// Whatever says nothing about the session: it can be tried again.
    pub(crate) async fn rewrap_session(&self, key: &str) -> Result<Outcome> {
        let mut failure = None;
        let mut outcome = Outcome::Current;
        for attempt in 0..ATTEMPTS {
            // Nothing is wrapped under a key that a younger log may have retired.
            let keys = self.young_view().await?;
            let saved = match self.read_session_at(key).await {
                Ok(Some(saved)) => saved,
                Ok(None) => return Ok(Outcome::Gone),
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Outcome::Failed(error)),
                Err(error) => return Err(error),
            };
            // After a failed write this is the look at what is there.
            if saved.record.wraps.iter().all(|wrap| keys.is_active(&wrap.kid)) {
                return Ok(outcome);
            }
            let dek = match self.session_dek(&saved.record.wraps).await {
                Ok(dek) => dek,
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Outcome::Failed(error)),
                Err(error) => return Err(error),
            };
            let next = SessionRecord { wraps: vec![self.wrap_dek(&keys, &dek).await?], ..saved.record };
            let object = self.seal_session(&keys, &saved.id, &next)?;
            outcome = Outcome::Rewrapped;
            match self.bucket.put_update(key, object, &saved.version).await {
                // A process that was paused here may have used a key that was retired meanwhile.
                Conditional::Done(_) if self.is_young(&keys) => return Ok(outcome),
                Conditional::Done(_) | Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
        }
        Err(contended(failure, &format!("`{key}`")))
    }

    /// The keys of the log that the DEK of the session at `key` is wrapped under; `None` if there is no session.
    ///
    /// # Errors
    /// `Corrupt` where it does not open, or its DEK does not unwrap.
    pub(crate) async fn session_kids(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(saved) = self.read_session_at(key).await? else { return Ok(None) };
        self.session_dek(&saved.record.wraps).await?;
        let keys = self.gate.secrets(self).await?;
        // Of the other wraps only those matter whose key somebody could still use.
        let kids = saved.record.wraps.into_iter().filter(|wrap| keys.names(wrap)).map(|wrap| wrap.kid);
        Ok(Some(kids.collect()))
    }

    /// The session at `key`, or `None` if there is none.
    pub(super) async fn read_session_at(&self, key: &str) -> Result<Option<Saved>> {
        let keys = self.gate.secrets(self).await?;
        let id = keys.root.name_key(UPLOAD_KIND).session_of_upload_key(key).map_err(|error| {
            Error::corrupt(format!("`{key}` is not a sealed name of this store")).with_source(error)
        })?;
        self.read_session(&id).await
    }
}
