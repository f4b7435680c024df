//! The bucket's clock, by which the ages of meta objects count.
//!
//! It is read by writing an object, seldom, and goes on by this machine's clocks in between, whichever says more. The reading counts from
//! *before* the request was sent, so that an object is never taken for younger than it is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bulla::Store;
use bulla::kek::Now;

use crate::error::{RegistryError, Result};

/// The longest that a reading is used: no two clocks run at quite the same rate.
const LONGEST: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
pub(crate) struct BucketClock {
    seen: Mutex<Option<Reading>>,
    /// Held while it is read: one reading for all who wait.
    reading: tokio::sync::Mutex<()>,
    valid: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    bucket: SystemTime,
    /// On this machine, before the request.
    sent: Now,
}

impl BucketClock {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { seen: Mutex::default(), reading: tokio::sync::Mutex::default(), valid: LONGEST.min(grace / 8) }
    }

    /// No earlier than what the bucket's clock says.
    pub(crate) async fn now(&self, store: &Store) -> Result<SystemTime> {
        if let Some(now) = self.known(store) {
            return Ok(now);
        }
        let _reading = self.reading.lock().await;
        if let Some(now) = self.known(store) {
            return Ok(now);
        }
        let sent = store.runtime().now();
        let bucket = store.bucket_time().await?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reading { bucket, sent });
        let passed = store.runtime().now().since(&sent);
        bucket
            .checked_add(passed)
            .ok_or_else(|| RegistryError::busy("this machine's clock was set back; try again"))
    }

    fn known(&self, store: &Store) -> Option<SystemTime> {
        let reading = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        let passed = store.runtime().now().since(&reading.sent);
        (passed < self.valid).then(|| reading.bucket + passed)
    }
}
