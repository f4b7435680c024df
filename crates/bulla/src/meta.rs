//! Meta objects: small sealed facts, found by their names. What a registry knows beside its blobs goes here: repositories,
//! tags, links, referrers.
//!
//! ```text
//! meta/<root id>/<kind>/<sealed name>/<sealed name>      one object per path; FORMAT.md §10
//! ```
//!
//! Every write is conditional, and decides by what is there afterwards: our own nonce = done, what we expected to replace =
//! again, anything else = somebody was faster. Nothing is cached, so what another node wrote shows at once. Freshness
//! against somebody who writes the bucket himself is not promised.

mod list;
mod object;

use std::fmt;
use std::time::SystemTime;

use bulla_envelope::meta::{MetaKind, MetaRecord, check_name};
use bytes::Bytes;

pub use self::list::MetaPage;
use self::object::Found;
use crate::bucket::{Conditional, UpdateVersion};
use crate::commit::contended;
use crate::error::{Error, Result};
use crate::store::Store;

const ATTEMPTS: usize = 16;

/// The meta objects of a store: see [`Store::meta`].
#[derive(Clone, Debug)]
pub struct Meta {
    store: Store,
}

/// A meta object as it was read.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetaEntry {
    /// The names that it is found by, as many as its kind says.
    pub path: Vec<String>,
    /// What it says.
    pub payload: Bytes,
    /// When it was written, by the bucket's clock.
    pub modified: SystemTime,
    /// For the next [`Meta::update`] or [`Meta::remove`].
    pub version: MetaVersion,
}

/// One state of a meta object. No two writes make the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaVersion {
    pub(super) stored: UpdateVersion,
    pub(super) nonce: [u8; 16],
}

/// What a conditional write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a condition held or did not")]
#[must_use = "the write may not have been done"]
pub enum MetaWrite<T = MetaVersion> {
    /// Written, durably.
    Done(T),
    /// This is there instead, or nothing is. Where answers were lost, it may have been written and replaced meanwhile: who
    /// adds to what is there looks whether it has.
    Changed(Option<MetaEntry>),
}

/// On what a write depends.
enum Condition {
    Absent,
    Unchanged(MetaVersion),
    Nothing,
}

impl Store {
    /// The store's meta objects.
    #[must_use]
    pub fn meta(&self) -> Meta {
        Meta { store: self.clone() }
    }
}

impl Meta {
    /// Reads the object at `path`, or `None` if there is none: one request.
    ///
    /// # Errors
    /// `Invalid` where the path is not one of the kind; `Corrupt` where the object does not authenticate
    /// ([`set`](Self::set) replaces it); `Revoked`, `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get(&self, kind: MetaKind, path: &[&str]) -> Result<Option<MetaEntry>> {
        check(kind, path)?;
        match self.read(kind, path).await? {
            Found::Entry(entry) => Ok(Some(entry)),
            Found::Nothing | Found::Tombstone(_) => Ok(None),
            Found::Damaged(_, error) => Err(error),
        }
    }

    /// Makes the object at `path`, if there is none: one request. [`MetaWrite::Changed`] has what is there.
    ///
    /// # Errors
    /// `Invalid` where the path is not one of the kind, or the payload is larger than 64 KiB; `Conflict` where others keep
    /// writing and removing it; `Corrupt` where what is there does not authenticate ([`set`](Self::set) replaces it);
    /// `Revoked`, `Unavailable`, `Throttled` as everywhere: the object may or may not be there then.
    ///
    /// # Cancel safety
    /// A dropped write may or may not be applied, even later.
    pub async fn create(
        &self,
        kind: MetaKind,
        path: &[&str],
        payload: impl Into<Bytes> + Send,
    ) -> Result<MetaWrite> {
        self.write(kind, path, payload.into(), Condition::Absent).await
    }

    /// Replaces the object at `path`, if it is still the one of `version`: one request. [`MetaWrite::Changed`] has what is
    /// there instead.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Cancel safety
    /// As [`create`](Self::create).
    pub async fn update(
        &self,
        kind: MetaKind,
        path: &[&str],
        payload: impl Into<Bytes> + Send,
        version: &MetaVersion,
    ) -> Result<MetaWrite> {
        self.write(kind, path, payload.into(), Condition::Unchanged(version.clone())).await
    }

    /// Makes or replaces the object at `path`, whatever is there, damaged objects included: two requests. Of several
    /// writers one is the last.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Cancel safety
    /// As [`create`](Self::create).
    pub async fn set(
        &self,
        kind: MetaKind,
        path: &[&str],
        payload: impl Into<Bytes> + Send,
    ) -> Result<MetaVersion> {
        match self.write(kind, path, payload.into(), Condition::Nothing).await? {
            MetaWrite::Done(version) => Ok(version),
            MetaWrite::Changed(_) => unreachable!("a write without a condition goes on until it is done"),
        }
    }

    /// Removes the object at `path`, if it is still the one of `version`. `Done` also if it is gone already.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Cancel safety
    /// A dropped removal may or may not be applied, even later.
    pub async fn remove(
        &self,
        kind: MetaKind,
        path: &[&str],
        version: &MetaVersion,
    ) -> Result<MetaWrite<()>> {
        check(kind, path)?;
        let inner = self.store.inner();
        let mut stored = version.stored.clone();
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            let key = inner.meta_key(&*inner.gate.secrets(inner).await?, kind, path);
            match inner.bucket.remove(&key, &stored, inner.nonce()).await {
                Conditional::Done(()) => {
                    inner.gate.secrets(inner).await?;
                    return Ok(MetaWrite::Done(()));
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    inner.back_off(attempt).await;
                }
            }
            match self.read(kind, path).await? {
                // Ours or another's: what was to be removed is.
                Found::Nothing | Found::Tombstone(_) => return Ok(MetaWrite::Done(())),
                Found::Entry(entry) if entry.version.nonce == version.nonce => stored = entry.version.stored,
                Found::Entry(entry) => return Ok(MetaWrite::Changed(Some(entry))),
                Found::Damaged(_, error) => return Err(error),
            }
        }
        Err(contended(failure, &describe(kind, path)))
    }

    async fn write(
        &self,
        kind: MetaKind,
        path: &[&str],
        payload: Bytes,
        condition: Condition,
    ) -> Result<MetaWrite> {
        check(kind, path)?;
        let inner = self.store.inner();
        // The same bytes whatever happens: sent twice, they can be applied once only, and are known by their nonce.
        let nonce = inner.nonce();
        let path_names = path.iter().map(|name| (*name).to_owned()).collect();
        let record = MetaRecord { path: path_names, nonce, payload: payload.into() };
        let (key, object) = inner.seal_meta(&*inner.gate.secrets(inner).await?, kind, path, &record)?;
        let mut replace = match &condition {
            Condition::Absent => None,
            Condition::Unchanged(version) => Some(version.stored.clone()),
            Condition::Nothing => self.read(kind, path).await?.version(),
        };
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            inner.gate.secrets(inner).await?;
            let outcome = match &replace {
                None => inner.bucket.put_create(&key, object.clone()).await,
                Some(version) => inner.bucket.put_update(&key, object.clone(), version).await,
            };
            match outcome {
                Conditional::Done(stored) => {
                    // Nothing is acknowledged without a live lease.
                    inner.gate.secrets(inner).await?;
                    return Ok(MetaWrite::Done(MetaVersion { stored, nonce }));
                }
                Conditional::Lost => {}
                Conditional::Unknown(error) => {
                    failure = Some(error);
                    inner.back_off(attempt).await;
                }
            }
            // After any failed conditional write: what is there now?
            let found = self.read(kind, path).await?;
            if let Found::Entry(entry) = &found
                && entry.version.nonce == nonce
            {
                return Ok(MetaWrite::Done(entry.version.clone()));
            }
            replace = match (&condition, found) {
                (Condition::Nothing, found) => found.version(),
                (_, Found::Damaged(_, error)) => return Err(error),
                (Condition::Absent, found @ (Found::Nothing | Found::Tombstone(_))) => found.version(),
                (Condition::Unchanged(version), Found::Entry(entry))
                    if entry.version.nonce == version.nonce =>
                {
                    Some(entry.version.stored)
                }
                (_, Found::Entry(entry)) => return Ok(MetaWrite::Changed(Some(entry))),
                (Condition::Unchanged(_), _) => return Ok(MetaWrite::Changed(None)),
            };
        }
        Err(contended(failure, &describe(kind, path)))
    }
}

impl<T> MetaWrite<T> {
    /// Whether it was written.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

fn check(kind: MetaKind, path: &[&str]) -> Result<()> {
    if path.len() != kind.depth() {
        return Err(Error::invalid(format!(
            "the path of a {} has {} names, not {}",
            kind.name(),
            kind.depth(),
            path.len()
        )));
    }
    check_names(path)
}

fn check_names(path: &[&str]) -> Result<()> {
    path.iter().try_for_each(|name| check_name(name)).map_err(|rule| Error::invalid(rule.rule()))
}

fn describe(kind: MetaKind, path: &[&str]) -> String {
    format!("the {} {}", kind.name(), path.join(" "))
}

/// Names and payload are the customer's: their lengths are shown.
impl fmt::Debug for MetaEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaEntry")
            .field("names", &self.path.len())
            .field("payload_len", &self.payload.len())
            .field("modified", &self.modified)
            .finish_non_exhaustive()
    }
}
