//! The gc horizon: how writers learn which data is being collected, and outrun it.
//!
//! A gc looks for envelopes first and removes data later, so an envelope that appears in between may name what is about to
//! go. The horizon keeps the two apart: a moment of the *bucket's* clock, in one small job object, that only ever rises.
//!
//! ```text
//! gc       horizon := T ─► wait R ─► list and open envelopes ─► remove data that is older than T and was not named
//! writer   envelope there ─► horizon, read less than R ago ─► all extents younger than it? ─► acknowledge
//!                                                              └ copy the older ones to new names, name those instead
//! ```
//!
//! Whoever acknowledges an envelope that the gc did not see does so after the wait, so the horizon that it has read is T or
//! higher. There is no end to announce and no clock of a node in it: a gc that sleeps for a day and then goes on removes
//! nothing else than what was older than T when it looked; and what is put after T is never in its way.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::cobblestone::sealed_len;
use bulla_envelope::envelope::{EnvelopeHeader, Extent};
use bulla_envelope::ids::ExtentName;
use bulla_envelope::job::{self, Job};
use bulla_envelope::names::extent_key;
use bulla_kek::Now;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::bucket::{BucketErrorKind, Conditional, UpdateVersion};
use crate::error::{Error, ErrorKind, Result};
use crate::extents::PlacedExtent;
use crate::store::StoreInner;

/// The job that the horizon is.
const NAME: &str = "gc";

const ATTEMPTS: usize = 16;

/// How many data objects are looked for at once.
const HEADS: usize = 16;

/// Milliseconds since 1970 by the bucket's clock; 0 before the first gc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Horizon(pub(crate) u64);

/// What this process knows of the horizon.
#[derive(Debug, Default)]
pub(crate) struct HorizonCache {
    seen: Mutex<Option<Seen>>,
    /// Held while it is read: single-flight.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    horizon: Horizon,
    /// Before the read was sent.
    read_started: Now,
}

/// What became of extents that the horizon may have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outrun {
    /// All of them are there and younger.
    Unmoved,
    /// Some had to be copied to new names.
    Moved,
    /// Data is missing: it was collected.
    Gone,
}

impl HorizonCache {
    fn seen(&self) -> Option<Seen> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, horizon: Horizon, read_started: Now) -> Horizon {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // It never falls, whatever the bucket says.
        let horizon = seen.map_or(horizon, |seen| seen.horizon.max(horizon));
        *seen = Some(Seen { horizon, read_started });
        horizon
    }
}

impl Horizon {
    /// Whether an object of this time is being collected unless an envelope names it.
    pub(crate) fn is_after(self, modified: SystemTime) -> bool {
        unix_ms(modified) < self.0
    }
}

impl StoreInner {
    /// The horizon as it was read at most `max_age` ago.
    ///
    /// # Errors
    /// `Corrupt` where its object is damaged; as everywhere where bucket or key can't be used.
    pub(crate) async fn horizon(&self, max_age: Duration) -> Result<Horizon> {
        let asked = self.parts.runtime.now();
        if let Some(seen) = self.horizon.seen()
            && asked.since(&seen.read_started) < max_age
        {
            return Ok(seen.horizon);
        }
        let _reading = self.horizon.reading.lock().await;
        // Somebody else's read, while this one waited, serves as well.
        if let Some(seen) = self.horizon.seen()
            && seen.read_started.boot > asked.boot
        {
            return Ok(seen.horizon);
        }
        let read_started = self.parts.runtime.now();
        let found = self.read_horizon().await?;
        Ok(self.horizon.note(found.map_or(Horizon::default(), |(horizon, _)| horizon), read_started))
    }

    async fn read_horizon(&self) -> Result<Option<(Horizon, UpdateVersion)>> {
        let keys = self.gate.secrets(self).await?;
        let key = keys.job_names.job_key(NAME);
        let object = match self.bucket.get(&key, MAX_OBJECT_LEN).await? {
            Some(object) if !object.is_tombstone() => object,
            _ => return Ok(None),
        };
        let keys = self.gate.secrets(self).await?;
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let damaged = || {
            Error::corrupt(format!(
                "`{key}`, which says what gc removes, is damaged; remove it while no gc runs, and do it again"
            ))
        };
        match Job::open(self.parts.crypto, &keys.meta_key, header, NAME, &object.bytes) {
            Ok(Job::Horizon(horizon)) => Ok(Some((Horizon(horizon.before), object.version))),
            Ok(_) => Err(damaged()),
            Err(error) => Err(damaged().with_source(error)),
        }
    }

    /// Makes the horizon at least `to`. When this returns, every read of it that begins later shows so.
    pub(crate) async fn raise_horizon(&self, to: Horizon) -> Result<()> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let read_started = self.parts.runtime.now();
            // After a failed write this is the look at what is there now: ours, or a higher one, will do.
            let version = match self.read_horizon().await? {
                Some((found, _)) if found >= to => {
                    self.horizon.note(found, read_started);
                    return Ok(());
                }
                Some((_, version)) => Some(version),
                None => self.tombstone_of_horizon().await?,
            };
            let (key, object) = self.seal_horizon(to).await?;
            let outcome = match &version {
                None => self.bucket.put_create(&key, object).await,
                Some(version) => self.bucket.put_update(&key, object, version).await,
            };
            if let Conditional::Unknown(error) = outcome {
                failure = Some(error);
                self.back_off(attempt).await;
            }
        }
        Err(failure.map_or_else(
            || Error::new(ErrorKind::Conflict, "others keep writing the gc horizon; run gc again"),
            Error::from,
        ))
    }

    /// Somebody may have emptied the object instead of removing it.
    async fn tombstone_of_horizon(&self) -> Result<Option<UpdateVersion>> {
        let keys = self.gate.secrets(self).await?;
        let found = self.bucket.head(&keys.job_names.job_key(NAME)).await?;
        Ok(found.filter(crate::bucket::Entry::is_tombstone).map(|entry| entry.version))
    }

    async fn seal_horizon(&self, to: Horizon) -> Result<(String, Bytes)> {
        let keys = self.gate.secrets(self).await?;
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let job = Job::Horizon(job::Horizon { before: to.0 });
        let object = job.seal(self.parts.crypto, &keys.meta_key, header, NAME, salt).map_err(|error| {
            Error::invalid("the bucket's clock is beyond the calendar").with_source(error)
        })?;
        Ok((keys.job_names.job_key(NAME), object.into()))
    }

    /// Looks at every extent, and copies those that the horizon has passed to new names. What they were copied from is
    /// left to gc: an envelope that is still on its way may name it.
    pub(crate) async fn outrun(&self, extents: &mut [PlacedExtent], horizon: Horizon) -> Result<Outrun> {
        let wanted: Vec<Wanted> = extents.iter().map(|placed| Wanted::from(&placed.extent)).collect();
        let Some(times) = self.times_of(&wanted).await? else { return Ok(Outrun::Gone) };
        let mut outcome = Outrun::Unmoved;
        for (placed, modified) in extents.iter_mut().zip(times) {
            if horizon.is_after(modified) {
                match self.copy_extent(placed).await {
                    Ok(()) => outcome = Outrun::Moved,
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outrun::Gone),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(outcome)
    }

    /// Copies an extent to a new name. Its context does not name its object, so the copy opens.
    pub(crate) async fn copy_extent(&self, placed: &mut PlacedExtent) -> Result<()> {
        let started = self.parts.runtime.now();
        let name = ExtentName::random(self.parts.runtime.random());
        match self.bucket.copy(&extent_key(&placed.extent.name), &extent_key(&name)).await {
            Ok(()) => {}
            Err(error) if error.kind() == BucketErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, "data to copy is gone").with_source(error));
            }
            Err(error) => return Err(error.into()),
        }
        placed.extent.name = name;
        placed.started = started;
        Ok(())
    }

    /// When each of these objects was written, in their order, if all are there at exactly their length.
    pub(crate) async fn times_of(&self, wanted: &[Wanted]) -> Result<Option<Vec<SystemTime>>> {
        let heads = stream::iter(wanted.to_vec()).map(|wanted| async move {
            let entry = self.bucket.head(&wanted.key).await?;
            Ok::<_, Error>(
                entry.filter(|entry| Some(entry.size) == wanted.len).map(|entry| entry.last_modified),
            )
        });
        heads.buffered(HEADS).try_collect::<Vec<_>>().await.map(|times| times.into_iter().collect())
    }
}

/// A data object that must be there.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    key: String,
    /// The object's exact length; `None` for an extent that can't be.
    len: Option<u64>,
}

impl From<&Extent> for Wanted {
    fn from(extent: &Extent) -> Self {
        Self { key: extent_key(&extent.name), len: sealed_len(extent.len) }
    }
}

/// Milliseconds since 1970, rounded down: stores round their times as well, and what is earlier stays no later.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
