//! What a bucket's log says of itself, for those who look for what is wrong with a store that may not open.

use std::time::Duration;

use bulla_envelope::record::KekState;
use bulla_kek::KeyId;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::log::{self, RecordMark};
use crate::party::{self, Party};
use crate::rotate;
use crate::unlock::check_floor;

/// What the newest log record claims. Nothing of it is authenticated: it is for telling people whom an open would ask, and
/// decides nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogClaims {
    /// The record.
    pub mark: RecordMark,
    /// The KEK versions that open the store.
    pub keks: Vec<ClaimedKek>,
    /// R.
    pub revocation_bound: Duration,
}

/// A KEK version as a log record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimedKek {
    /// The KEK version.
    pub key: KeyId,
    /// As whom it is used.
    pub identity: String,
    /// Whether new wraps are made under it.
    pub is_active: bool,
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
            keks: claims
                .keks
                .iter()
                .filter_map(|kek| {
                    let key: KeyId = kek.kid.parse().ok()?;
                    let second = rotate::holders(claims, Party::Second.index()).contains(&key);
                    let party = if second { Party::Second } else { Party::First };
                    let identity = party::texts(claims, party.index())?.0.to_owned();
                    Some(ClaimedKek { key, identity, is_active: kek.state == KekState::Active })
                })
                .collect(),
            revocation_bound: Duration::from_millis(claims.revocation_bound_ms),
        })
    }
}
