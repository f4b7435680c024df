//! Shredding: wraps that nobody needs any more are destroyed, so that what they held can't be had from the bucket again.
//!
//! ```text
//! retired store keys       counted once more, then left out of the next log record
//! old log records          overwritten by stubs, where they hold wraps that the newest does not
//! ```
//!
//! Both only after a grace, in which a mistake can be noticed and a copy of the bucket taken. It is as true as there are no
//! older copies: backups, object versions and replicas keep wraps.

use std::collections::BTreeSet;
use std::time::Duration;

use bulla_envelope::record::{LogRecord, StoreKeyState, UnverifiedRecord, log_key, object_hash, stub};
use bulla_envelope::{DecodeError, MAX_OBJECT_LEN};
use bytes::Bytes;

use crate::bucket::{Conditional, Object};
use crate::count::Count;
use crate::deks::store_key_kid;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Action, SweepCount};
use crate::store::{Store, StoreInner};
use crate::sweep::{Observer, SweepEvent, SweepOptions, SweepPhase, Work};
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 8;

/// Counts until what was left is wrapped again.
const COUNTS: usize = 4;

/// What was destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shredded {
    /// Store keys whose last wrap is gone from the log's newest record.
    pub store_keys: Vec<String>,
    /// Old log records that were overwritten.
    pub records: u64,
    /// Old log records that are not what the log's history says they were. They were left alone; `verify` names them too.
    pub altered: Vec<u64>,
}

impl Store {
    /// Destroys the wraps that nobody needs any more and that have not been needed for `grace`: retired store keys, after
    /// one more count, and what old log records hold of earlier keys. `gc` does this too.
    ///
    /// # Errors
    /// `Corrupt` where an envelope does not open: nothing is shredded until it is restored or deleted. `Conflict`, `Revoked`,
    /// `Unavailable`, `Throttled`: run it again.
    ///
    /// # Cancel safety
    /// A dropped call has shredded a part: run it again.
    pub async fn shred(
        &self,
        grace: Duration,
        options: SweepOptions,
        observe: impl Fn(SweepEvent) + Send + Sync,
    ) -> Result<Shredded> {
        self.inner().shred(grace, &options, &observe).await
    }
}

impl StoreInner {
    /// Shreds what has not been needed for `grace`, by this machine's clock and the writers' of the records.
    pub(crate) async fn shred(
        &self,
        grace: Duration,
        options: &SweepOptions,
        observe: Observer<'_>,
    ) -> Result<Shredded> {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let store_keys = self.shred_store_keys(grace, options, observe).await?;
        let mut shredded = Shredded { store_keys, ..Shredded::default() };
        self.shred_records(grace, &mut shredded).await?;
        Ok(shredded)
    }

    async fn shred_store_keys(
        &self,
        grace: u64,
        options: &SweepOptions,
        observe: Observer<'_>,
    ) -> Result<Vec<String>> {
        let keys = self.gate.refresh(self).await?;
        let due = due(&keys, self.before(grace));
        if due.is_empty() {
            return Ok(due);
        }
        let started = self.parts.runtime.now();
        let count = self.count_to_zero(&due, options, observe).await?;
        for kid in &due {
            let (seen, left, failed) = (count.envelopes, count.under(kid), count.failed);
            let counted = Some(SweepCount { seen, left, failed });
            self.parts.events.about(Action::SweepEnd, kid, self.gate.mark(), counted, started);
        }
        for attempt in 0..ATTEMPTS {
            let keys = self.gate.refresh(self).await?;
            let mut record = keys.next_record(self.parts.runtime.now().unix_ms());
            let gone = |kid: &String| due.contains(kid);
            record
                .store_keys
                .retain(|key| key.state != StoreKeyState::Retired || !gone(&store_key_kid(&key.id)));
            if record.store_keys.len() == keys.view.record.store_keys.len() {
                // Another node was first.
                return Ok(Vec::new());
            }
            if self.append(record).await?.is_some() {
                self.gate.refresh(self).await?;
                return Ok(due);
            }
            self.back_off(attempt).await;
        }
        Err(Error::new(ErrorKind::Conflict, "other nodes keep changing the log; run the command again"))
    }

    /// Counts, and wraps again what a writer that died left under a retired key.
    async fn count_to_zero(
        &self,
        kids: &[String],
        options: &SweepOptions,
        observe: Observer<'_>,
    ) -> Result<Count> {
        for _ in 0..COUNTS {
            let count = Work::new(self, SweepPhase::Count, options, false, observe).count().await?;
            count.require_whole()?;
            if kids.iter().all(|kid| count.is_safe_to_retire(kid)) {
                return Ok(count);
            }
            tracing::warn!(?count, "envelopes are left under retired keys; wrapping them again");
            Work::new(self, SweepPhase::Rewrap, options, false, observe).sweep_alone().await?;
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "envelopes keep appearing under a retired key; run the command again",
        ))
    }

    /// Overwrites records below the newest, from there downwards.
    async fn shred_records(&self, grace: u64, shredded: &mut Shredded) -> Result<()> {
        let started = self.parts.runtime.now();
        let keys = self.gate.refresh(self).await?;
        let newest = &keys.view.record;
        let (mut gone, mut stays) = (BTreeSet::new(), kids(newest));
        let (needed, before) = (wraps(newest), self.before(grace));
        // When the record after the one that is looked at was written: since then it has not been the newest.
        let mut superseded = newest.written;
        for number in (1..newest.number).rev() {
            let hash = usize::try_from(number - 1).ok().and_then(|index| newest.history.get(index));
            let object = self.patiently(|| self.old_record(number)).await?;
            if object.bytes.is_empty() {
                continue;
            }
            let record = match UnverifiedRecord::decode(&object.bytes) {
                // Authentic by the history of the newest.
                Ok(record) if hash == Some(&object_hash(&object.bytes)) => record.hint().clone(),
                // It was shredded after its grace, and what is below it was replaced before that.
                Err(DecodeError::Stub) => {
                    superseded = 0;
                    continue;
                }
                _ => {
                    tracing::warn!(number, "an old log record is not what the log's history says");
                    shredded.altered.push(number);
                    continue;
                }
            };
            if superseded <= before && !wraps(&record).is_subset(&needed) {
                shredded.records += u64::from(self.shred_record(number, object).await?);
                gone.append(&mut kids(&record));
            } else {
                stays.append(&mut kids(&record));
            }
            superseded = record.written;
        }
        // What an altered record holds, nobody can say.
        if shredded.altered.is_empty() {
            for kid in gone.difference(&stays) {
                self.parts.events.about(Action::Shred, kid, self.gate.mark(), None, started);
            }
        }
        self.settle_audit().await
    }

    async fn old_record(&self, number: u64) -> Result<Object> {
        let object = self.bucket.get(&log_key(number), MAX_OBJECT_LEN).await?;
        object.ok_or_else(|| Error::corrupt(format!("the log has a gap: record {number} is not there")))
    }

    /// Puts a stub in the record's place (FORMAT-L4). `false`: another node did.
    async fn shred_record(&self, number: u64, object: Object) -> Result<bool> {
        let key = log_key(number);
        let (original, mut version) = (object.bytes, object.version);
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            // A revoked node changes nothing.
            self.gate.secrets(self).await?;
            match self.bucket.put_update(&key, Bytes::from(stub()), &version).await {
                Conditional::Done(_) => return Ok(true),
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    self.back_off(attempt).await;
                }
            }
            // All stubs are alike: whose it is does not matter.
            let now = self.patiently(|| self.old_record(number)).await?;
            if now.bytes != original {
                return Ok(now.bytes == stub());
            }
            version = now.version;
        }
        Err(failure.map_or_else(
            || {
                Error::new(
                    ErrorKind::Conflict,
                    "others keep writing an old log record; run the command again",
                )
            },
            Error::from,
        ))
    }

    /// The moment `grace` ago.
    fn before(&self, grace: u64) -> u64 {
        self.parts.runtime.now().unix_ms().saturating_sub(grace)
    }
}

/// The kids of store keys that have been retired since before `before`.
fn due(keys: &Unlocked, before: u64) -> Vec<String> {
    let retired = keys.view.record.store_keys.iter().filter(|key| key.state == StoreKeyState::Retired);
    retired.filter(|key| key.since <= before).map(|key| store_key_kid(&key.id)).collect()
}

/// The keys that wraps in a record are under, or of: KEK versions and store keys.
fn kids(record: &LogRecord) -> BTreeSet<String> {
    let keks = record.roots.iter().flat_map(|root| root.groups.iter().flatten()).map(|wrap| wrap.kid.clone());
    keks.chain(record.store_keys.iter().map(|key| store_key_kid(&key.id))).collect()
}

/// Everything that is wrapped in a record.
fn wraps(record: &LogRecord) -> BTreeSet<&[u8]> {
    let roots = record.roots.iter().flat_map(|root| {
        let groups = root.groups.iter().flatten().map(|wrap| wrap.value.as_slice());
        groups.chain(root.parent.as_ref().map(<[u8; 40]>::as_slice))
    });
    roots.chain(record.store_keys.iter().map(|key| key.value.as_slice())).collect()
}
