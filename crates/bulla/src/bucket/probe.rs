//! Does the store keep the promises that Bulla's protocols stand on?

use bytes::Bytes;
use futures::future::join;

use super::{Bucket, BucketError, BucketErrorKind, Conditional, UpdateVersion};

/// What a probe's objects are called, before their random part.
pub(crate) const PROBE: &str = "jobs/probe-";

/// A probe's objects hold a few bytes.
const MAX_LEN: usize = 64;

/// How often the whole probe is done again while conflicts hide what the store does.
const ATTEMPTS: usize = 5;

/// What one round of the probe found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The store keeps its promises.
    Kept,
    /// Nothing: conflicts were in the way.
    Open,
}

impl Bucket {
    /// Checks that the store creates only where nothing is and updates only what was read, races included, with a
    /// few small objects below `jobs/` that it removes again. `nonce` is random, so that probes don't meet.
    ///
    /// # Errors
    /// [`BucketErrorKind::Unsupported`] if the store ignores conditions or refuses them; otherwise what kept the
    /// probe from finding out.
    ///
    /// # Cancel safety
    /// Yes, but the objects may stay behind.
    pub async fn probe(&self, nonce: [u8; 16]) -> Result<(), BucketError> {
        for attempt in 0..ATTEMPTS {
            let key = format!("{PROBE}{:032x}-{attempt}", u128::from_be_bytes(nonce));
            let result = self.probe_at(&key).await;
            let removed = self.delete_data(&key).await;
            if result? == Verdict::Kept {
                return removed;
            }
        }
        let message = format!("{self} answers every conditional write with a conflict; try again later");
        Err(BucketError::new(BucketErrorKind::Unavailable, message))
    }

    async fn probe_at(&self, key: &str) -> Result<Verdict, BucketError> {
        let created =
            join(self.put_create(key, text("create a")), self.put_create(key, text("create b"))).await;
        let Some(first) = self.winner(key, "put-if-absent", ["create a", "create b"], created).await? else {
            return Ok(Verdict::Open);
        };

        let updated = join(
            self.put_update(key, text("update a"), &first),
            self.put_update(key, text("update b"), &first),
        )
        .await;
        let Some(second) = self.winner(key, "conditional update", ["update a", "update b"], updated).await?
        else {
            return Ok(Verdict::Open);
        };

        // No race: a store that compares at all refuses the old version and takes the new one.
        let stale = self.put_update(key, text("stale"), &first).await;
        if stale.is_done() {
            return Err(self.refused("conditional update"));
        }
        let current = self.put_update(key, text("current"), &second).await;
        let winner = self.winner(key, "conditional update", ["stale", "current"], (stale, current)).await?;
        Ok(if winner.is_some() { Verdict::Kept } else { Verdict::Open })
    }

    /// Of two conditional writes that excluded each other, one must have been applied, and not both. `None` if neither
    /// was and both were refused: on S3 a conflict with another request, or a retry of one's own, says so too.
    async fn winner(
        &self,
        key: &str,
        feature: &str,
        written: [&str; 2],
        outcomes: (Conditional, Conditional),
    ) -> Result<Option<UpdateVersion>, BucketError> {
        for outcome in [&outcomes.0, &outcomes.1] {
            if let Conditional::Unknown(error) = outcome
                && error.kind() == BucketErrorKind::Unsupported
            {
                return Err(self.refused(feature));
            }
        }
        let both_lost = matches!(outcomes, (Conditional::Lost, Conditional::Lost));
        let expected = match outcomes {
            (Conditional::Done(_), Conditional::Done(_)) => return Err(self.refused(feature)),
            (Conditional::Unknown(error), _) | (_, Conditional::Unknown(error)) => return Err(error),
            (Conditional::Done(_), _) => &written[..1],
            (_, Conditional::Done(_)) => &written[1..],
            // Both "lost": one of them to its own retry, whose first answer did not arrive.
            (Conditional::Lost, Conditional::Lost) => &written[..],
        };
        match self.get(key, MAX_LEN).await? {
            Some(object) if expected.iter().any(|text| object.bytes == text.as_bytes()) => {
                Ok(Some(object.version))
            }
            _ if both_lost => Ok(None),
            _ => Err(self.refused(feature)),
        }
    }

    fn refused(&self, feature: &str) -> BucketError {
        BucketError::new(
            BucketErrorKind::Unsupported,
            format!(
                "{self} does not do {feature}, without which two writers destroy each other's data; use a store \
                 that has conditional writes (Amazon S3, Azure Blob Storage, Google Cloud Storage, a current MinIO \
                 or R2, a folder), or turn them on for this one"
            ),
        )
    }
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
