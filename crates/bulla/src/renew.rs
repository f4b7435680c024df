//! Renewing a blob: its envelope is sealed and written again, so that it is young by the bucket's clock.
//!
//! Nothing that it says changes, its wraps included, so it costs no call to a key provider but the one of opening it in direct
//! mode. Its salt does, so that no two versions of an envelope are alike: who read an older one can neither remove nor replace
//! this one. And it says since when it is there (FORMAT-E14), so that puts of the same bytes still share its data.

use std::time::SystemTime;

use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::{BlobRecord, Envelope};
use bytes::Bytes;

use crate::bucket::{BucketErrorKind, Conditional};
use crate::commit::contended;
use crate::error::{Error, Result};
use crate::horizon::unix_ms;
use crate::store::StoreInner;
use crate::sweep::envelope::Read;

const ATTEMPTS: usize = 16;

impl StoreInner {
    /// Whether the blob is there; its envelope was written after `since` then.
    pub(crate) async fn renew(&self, digest: &Digest, since: SystemTime) -> Result<bool> {
        let key = self.blob_key(&*self.gate.secrets(self).await?, digest);
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let object = match self.read_envelope_at(&key).await? {
                Read::Gone => return Ok(false),
                Read::Failed(error) => return Err(error),
                Read::Object(object, _) => object,
            };
            // Also what an attempt has written whose answer was lost. Opening it would cost a call in direct mode.
            if object.last_modified > since {
                return Ok(true);
            }
            let (envelope, opened, keys) = self.open_surely(&object, digest).await??;
            let record = opened.record;
            if record.expires.is_some_and(|expires| expires <= self.parts.runtime.now().unix_ms()) {
                return Ok(false);
            }
            let there_since = match record.there_since {
                Some(since) => since,
                None => match self.bucket.placed(&key, object.last_modified).await {
                    Ok(placed) => unix_ms(placed),
                    Err(error) if error.kind() == BucketErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            let record = BlobRecord { there_since: Some(there_since), ..record };
            let mut salt = [0; 24];
            self.parts.runtime.random().fill(&mut salt);
            let (crypto, key_of_envelopes) = (self.parts.crypto, &keys.envelope_key);
            let (header, wraps) = (envelope.header, envelope.wraps);
            let renewed = Envelope::seal(crypto, key_of_envelopes, header, wraps, &opened.dek, &record, salt)
                .map_err(|error| {
                    Error::corrupt(format!("the envelope of {digest} can't be sealed")).with_source(error)
                })?;
            match self.bucket.put_update(&key, Bytes::from(renewed.encode()), &object.version).await {
                Conditional::Done(_) => return Ok(true),
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
