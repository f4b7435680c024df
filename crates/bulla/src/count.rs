//! The count after a sweep: what decides whether a key may go.
//!
//! Every DEK is unwrapped and every envelope opened, because a wrap says of itself only which key it is under. Nothing that
//! a job object says counts here. What can't be opened, or can't be read by this version, keeps old keys in place.

use std::collections::BTreeMap;

use bulla_envelope::digest::Digest;
use futures::{StreamExt, TryStreamExt, stream};

use crate::bucket::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreInner;
use crate::sweep::envelope::Read;
use crate::sweep::{PREFIXES, SweepEvent, WIDTH, Work};

/// So many objects are named in a count and in its error; the rest are in the events.
const NAMED: usize = 20;

/// How many envelopes there are, and under which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Envelopes that are there, whether they open or not.
    pub envelopes: u64,
    /// Upload sessions that are there, whether they open or not.
    pub sessions: u64,
    /// Envelopes and sessions that open, by each key of the log that their DEK is wrapped under.
    pub under: BTreeMap<String, u64>,
    /// Envelopes and sessions that don't open.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<String>,
}

/// What an envelope came to.
enum Counted {
    Gone,
    Under(Vec<String>),
    Failed(String, Error),
}

impl Count {
    /// Envelopes and sessions whose DEK is wrapped under `kid`, as far as could be seen.
    #[must_use]
    pub fn under(&self, kid: &str) -> u64 {
        self.under.get(kid).copied().unwrap_or_default()
    }

    /// Whether `kid` may go: everything could be looked at, and nothing is under it.
    #[must_use]
    pub fn is_safe_to_retire(&self, kid: &str) -> bool {
        self.failed == 0 && self.under(kid) == 0
    }

    /// An error where something could not be looked at.
    pub(crate) fn require_whole(&self) -> Result<()> {
        if let Some(first) = self.failures.first() {
            let more = if self.failed > 1 { format!(" and {} more", self.failed - 1) } else { String::new() };
            return Err(Error::corrupt(format!(
                "`{first}`{more} can't be opened, so no key is retired: restore what is damaged or delete it \
                 (`bulla rm STORE DIGEST`; an upload session goes with `bulla gc` after seven days), then run the command \
                 again"
            )));
        }
        Ok(())
    }

    /// Notes it, if there is anything to count.
    fn note(&mut self, counted: Counted) -> bool {
        match counted {
            Counted::Gone => return false,
            Counted::Under(kids) => {
                for kid in kids {
                    *self.under.entry(kid).or_default() += 1;
                }
            }
            Counted::Failed(key, _) => {
                self.failed += 1;
                if self.failures.len() < NAMED {
                    self.failures.push(key);
                }
            }
        }
        true
    }

    fn add(&mut self, other: Self) {
        self.envelopes += other.envelopes;
        self.sessions += other.sessions;
        for (kid, count) in other.under {
            *self.under.entry(kid).or_default() += count;
        }
        self.failed += other.failed;
        let room = NAMED - self.failures.len().min(NAMED);
        self.failures.extend(other.failures.into_iter().take(room));
    }
}

impl Work<'_> {
    /// Opens and counts everything.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled`: nothing was counted.
    pub(crate) async fn count(&self) -> Result<Count> {
        let prefixes = (0..PREFIXES).filter_map(|prefix| u8::try_from(prefix).ok());
        let counts = stream::iter(prefixes).map(|prefix| self.count_prefix(prefix));
        let mut counts = counts.buffer_unordered(WIDTH);
        let mut total = Count::default();
        while let Some(count) = counts.try_next().await? {
            total.add(count);
            self.note_prefix();
        }
        total.add(self.count_sessions().await?);
        (self.observe)(SweepEvent::Counted(total.clone()));
        Ok(total)
    }

    async fn count_prefix(&self, prefix: u8) -> Result<Count> {
        let keys = self.envelope_keys(prefix).await?;
        let counted = stream::iter(keys).map(|key| async move {
            self.pace.turn(&*self.store.parts.runtime).await;
            let counted = self.store.patiently(|| self.store.count_envelope(&key)).await?;
            self.note_envelope(matches!(counted, Counted::Failed(..)));
            if let Counted::Failed(key, error) = &counted {
                tracing::warn!(%key, %error, "an envelope can't be opened");
                (self.observe)(SweepEvent::Failed { key: key.clone(), error: error.to_string() });
            }
            Ok::<_, Error>(counted)
        });
        let mut counted = counted.buffer_unordered(self.per_prefix());
        let mut total = Count::default();
        while let Some(counted) = counted.try_next().await? {
            total.envelopes += u64::from(total.note(counted));
        }
        Ok(total)
    }

    async fn count_sessions(&self) -> Result<Count> {
        let counted = stream::iter(self.session_keys().await?).map(|key| async move {
            self.pace.turn(&*self.store.parts.runtime).await;
            let counted = self.store.patiently(|| self.store.count_session(&key)).await?;
            if let Counted::Failed(key, error) = &counted {
                tracing::warn!(%key, %error, "an upload session can't be opened");
                (self.observe)(SweepEvent::Failed { key: key.clone(), error: error.to_string() });
            }
            Ok::<_, Error>(counted)
        });
        let mut counted = counted.buffer_unordered(self.per_prefix());
        let mut total = Count::default();
        while let Some(counted) = counted.try_next().await? {
            total.sessions += u64::from(total.note(counted));
        }
        Ok(total)
    }
}

impl StoreInner {
    async fn count_envelope(&self, key: &str) -> Result<Counted> {
        match self.read_envelope_at(key).await? {
            Read::Gone => Ok(Counted::Gone),
            Read::Failed(error) => Ok(Counted::Failed(key.to_owned(), error)),
            Read::Object(object, digest) => self.count_object(key, &object, &digest).await,
        }
    }

    async fn count_object(&self, key: &str, object: &Object, digest: &Digest) -> Result<Counted> {
        let (envelope, _, keys) = match self.open_surely(object, digest).await? {
            Ok(opened) => opened,
            Err(error) => return Ok(Counted::Failed(key.to_owned(), error)),
        };
        // Of the other wraps only those matter whose key somebody could still use.
        let kids = envelope.wraps.into_iter().filter(|wrap| keys.names(wrap)).map(|wrap| wrap.kid);
        Ok(Counted::Under(kids.collect()))
    }

    async fn count_session(&self, key: &str) -> Result<Counted> {
        match self.session_kids(key).await {
            Ok(Some(kids)) => Ok(Counted::Under(kids)),
            Ok(None) => Ok(Counted::Gone),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Counted::Failed(key.to_owned(), error)),
            Err(error) => Err(error),
        }
    }
}
