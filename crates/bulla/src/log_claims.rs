//! What a bucket's log says of itself, for those who look for what is wrong with a store that may not open.

use std::time::Duration;

use bulla_envelope::record::KekState;
use bulla_kek::KeyId;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::log::{self, RecordMark};
use crate::unlock::check_floor;

/// What the newest log record claims. Nothing of it is authenticated: it is for telling people whom an open would ask, and
/// decides nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogClaims {
    /// The record.
    pub mark: RecordMark,
    /// As whom the KEKs are used.
    pub identity: String,
    /// The KEK versions that open the store, with whether new wraps are made under them.
    pub keks: Vec<(KeyId, bool)>,
    /// R.
    pub revocation_bound: Duration,
}

impl LogClaims {
    /// Reads the newest record, and compares its history with what was seen before. Asks no key provider.
    ///
    /// # Errors
    /// `NotFound` where there is no store; `Corrupt` where records are missing, can't be decoded, or do not go on from
    /// `floor`; what the bucket says.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read(bucket: &Bucket, floor: Option<RecordMark>) -> Result<Self> {
        let newest = log::read_newest(bucket, None).await?;
        let claims = newest.unverified.hint();
        if claims.number != newest.mark.number {
            return Err(Error::corrupt(format!(
                "log record {} stands in the place of {}",
                claims.number, newest.mark.number
            )));
        }
        if let Some(floor) = floor {
            check_floor(claims, newest.mark, floor)?;
        }
        Ok(Self {
            mark: newest.mark,
            identity: claims.identity.clone(),
            keks: claims
                .keks
                .iter()
                .filter_map(|kek| Some((kek.kid.parse().ok()?, kek.state == KekState::Active)))
                .collect(),
            revocation_bound: Duration::from_millis(claims.revocation_bound_ms),
        })
    }
}
