//! From the newest log record to usable keys: unwrap the root, check anchor, MAC and history, derive.
//!
//! The order is the point: before anchor, MAC and history are checked, a key id from the bucket is a hint filtered by
//! the configured providers, and nothing else in the record is used.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bulla_envelope::derive::Anchor;
use bulla_envelope::envelope::Wrap;
use bulla_envelope::ids::{RootId, StoreId, StoreKeyId};
use bulla_envelope::job::JOB_KIND;
use bulla_envelope::names::BLOB_KIND;
use bulla_envelope::record::{KekState, LogRecord, RootEntry, RootState, StoreKeyState};
use bulla_envelope::secret::{EnvelopeKey, MetaKey, NameKey, RecordKey, Root, Secret, StoreKey};
use bulla_kek::{
    Identity, KekError, KekErrorKind, KekProvider, KeyDescription, KeyId, Now, Providers, WrapAlgorithm,
};

use crate::error::{Error, Result};
use crate::log::{LogView, RawRecord, RecordMark};
use crate::party::{self, Party};

/// Everything that may be used while the lease is live, with the log view it came from. Wiped as a whole.
pub(crate) struct Unlocked {
    pub(crate) view: LogView,
    pub(crate) root_id: RootId,
    /// Shared with the views that follow it, so that there is one copy to wipe.
    pub(crate) root: Arc<Root>,
    /// The kids of the group that opened the root.
    pub(crate) opened_by: Vec<String>,
    pub(crate) record_key: RecordKey,
    pub(crate) envelope_key: EnvelopeKey,
    pub(crate) blob_names: NameKey,
    pub(crate) meta_key: MetaKey,
    pub(crate) job_names: NameKey,
    pub(crate) active_store_key: StoreKeyId,
    store_keys: BTreeMap<StoreKeyId, StoreKey>,
    /// What the providers said of the KEKs that opened the root, one for each party.
    pub(crate) described: Vec<Described>,
    /// Before the unwrap was sent: the lease counts from here.
    pub(crate) sent: Now,
}

/// Why the keys can't be had.
#[derive(Debug)]
pub(crate) enum Locked {
    /// The key provider's word on the KEK.
    Kek(KekError),
    /// Anything else: a damaged log, a wrong anchor.
    Other(Error),
}

impl From<Error> for Locked {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Locked> for Error {
    fn from(locked: Locked) -> Self {
        match locked {
            Locked::Kek(error) => error.into(),
            Locked::Other(error) => error,
        }
    }
}

/// What an opener knows of the store beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) anchor: Option<Anchor>,
    pub(crate) floor: Option<RecordMark>,
}

/// What is asked beside the unwrap.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Describe<'a> {
    /// The version in use.
    InUse,
    /// The newest version, if the key is configured without one. The version in use is asked about as well where it is
    /// another one and not among those `known`.
    Newest { known: &'a [Option<KeyDescription>] },
}

pub(crate) async fn unlock(
    providers: &Providers,
    raw: &RawRecord,
    expected: Expected,
    read_started: Now,
    sent: Now,
    describe: Describe<'_>,
) -> Result<Unlocked, Locked> {
    let hint = raw.unverified.hint();
    let parties: Vec<Configured> =
        (0..party::count(hint)).map(|number| Configured::of(hint, number)).collect::<Result<_>>()?;
    if parties.len() > party::MAX_PARTIES {
        return Err(Locked::Other(Error::invalid(
            "the store has more than two parties, which this version of Bulla can't serve; use a newer one",
        )));
    }
    let mut failures = Vec::new();
    for (root_id, group) in candidate_groups(hint) {
        let (root, described) = match open_group(providers, &parties, group, describe).await {
            Ok(opened) => opened,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        let opened_by = group.iter().map(|wrap| wrap.kid.clone()).collect();
        return verify(
            raw,
            expected,
            read_started,
            Opened { root_id, root: Arc::new(root), opened_by, described, sent },
        )
        .map_err(Locked::Other);
    }
    Err(verdict(failures))
}

/// Active and pending roots only (a retiring one hangs on the active one); groups of active KEKs before those of
/// retiring ones, so that an old KEK that is already disabled costs nothing.
fn candidate_groups(hint: &LogRecord) -> Vec<(RootId, &Vec<Wrap>)> {
    let retiring = |wrap: &Wrap| {
        hint.keks
            .iter()
            .any(|kek| kek.kid == wrap.kid && kek.alg == wrap.alg && kek.state == KekState::Retiring)
    };
    let mut groups: Vec<_> = hint
        .roots
        .iter()
        .filter(|root| root.state == RootState::Active)
        .flat_map(|root: &RootEntry| root.groups.iter().map(|group| (root.id, group)))
        .collect();
    groups.sort_by_key(|(_, group)| group.iter().any(retiring));
    groups
}

/// What the log says of a party before it is authenticated.
struct Configured {
    identity: Identity,
    /// `None` where it can't be parsed; then nothing is followed.
    key: Option<KeyId>,
}

impl Configured {
    fn of(hint: &LogRecord, number: usize) -> Result<Self> {
        Ok(Self { identity: party::identity(hint, number)?, key: party::key_id(hint, number).ok() })
    }
}

/// Any group opens, every member of a group is needed. All are asked at once: the lease counts from before that, and a
/// denial by any of them ends it whatever the others say.
async fn open_group(
    providers: &Providers,
    parties: &[Configured],
    group: &[Wrap],
    describe: Describe<'_>,
) -> Result<(Root, Vec<Described>), KekError> {
    if group.len() > parties.len() {
        return Err(KekError::invalid("a group has more members than the log has parties"));
    }
    let members = group.iter().zip(parties).enumerate().map(|(number, (wrap, party))| async move {
        let opened = open_member(providers, party, wrap, describe.of(number)).await;
        match opened {
            // Two parties' errors look alike but for the key.
            Err(error) if group.len() > 1 => {
                let message =
                    format!("the key {} of the {} party: {error}", wrap.kid, Party::ALL[number.min(1)]);
                Err(error.with_message(message))
            }
            opened => opened,
        }
    });
    let answers = futures::future::try_join_all(members.map(unless_denied)).await?;
    let (shares, described): (Vec<Secret<32>>, Vec<Described>) =
        answers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let root =
        Root::join(&shares).ok_or_else(|| KekError::invalid("a group without members opens nothing"))?;
    Ok((root, described))
}

async fn open_member(
    providers: &Providers,
    party: &Configured,
    wrap: &Wrap,
    describe: DescribeOne<'_>,
) -> Result<(Secret<32>, Described), KekError> {
    let key: KeyId = wrap.kid.parse().map_err(invalid)?;
    let algorithm: WrapAlgorithm = wrap.alg.parse().map_err(invalid)?;
    let provider = providers.provider_for(&key)?;
    let is_followed = party.key.as_ref() == Some(&key.without_version());
    let describe = if is_followed { describe } else { DescribeOne::InUse };
    // Whichever says no, and whatever becomes of the other: no is no.
    let (share, answer) = futures::try_join!(
        unless_denied(provider.unwrap_key(&key, &party.identity, algorithm, &wrap.value)),
        unless_denied(describe_key(&*provider, &key, &party.identity, describe)),
    )?;
    // Only the unwrap counts for the lease: that there was no answer to the other says nothing.
    Ok((share?, answer.unwrap_or_default()))
}

/// [`Describe`], of one party's KEK.
#[derive(Clone, Copy)]
enum DescribeOne<'a> {
    InUse,
    Newest { known: Option<&'a KeyDescription> },
}

impl<'a> Describe<'a> {
    fn of(self, party: usize) -> DescribeOne<'a> {
        match self {
            Self::InUse => DescribeOne::InUse,
            Self::Newest { known } => {
                DescribeOne::Newest { known: known.get(party).and_then(Option::as_ref) }
            }
        }
    }
}

/// What a provider said of a KEK: of the version in use, and if it was asked, of the newest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Described {
    /// `None` where the provider could not be asked.
    pub(crate) in_use: Option<KeyDescription>,
    /// `None` where that was not asked, or not answered.
    pub(crate) newest: Option<Result<KeyDescription, KekError>>,
}

impl Described {
    fn in_use_only(&self) -> Self {
        Self { in_use: self.in_use.clone(), newest: None }
    }
}

/// Asks once; twice only where the newest version is not the one in use and that one is not known, or is denied. What is
/// said of the newest version never decides over the lease.
async fn describe_key(
    provider: &dyn KekProvider,
    key: &KeyId,
    identity: &Identity,
    describe: DescribeOne<'_>,
) -> Result<Described, KekError> {
    let DescribeOne::Newest { known } = describe else {
        return Ok(Described { in_use: Some(provider.describe(key, identity).await?), newest: None });
    };
    let newest = match provider.describe(&key.without_version(), identity).await {
        Err(error) if !is_denied(&error) => return Err(error),
        newest => newest,
    };
    let in_use = match (&newest, known) {
        (Ok(newest), _) if newest.key == *key => newest.clone(),
        (Ok(_), Some(known)) if known.key == *key => known.clone(),
        _ => provider.describe(key, identity).await?,
    };
    Ok(Described { in_use: Some(in_use), newest: Some(newest) })
}

/// Lets a denial end the wait for anything beside it.
async fn unless_denied<T>(
    answer: impl Future<Output = Result<T, KekError>>,
) -> Result<Result<T, KekError>, KekError> {
    match answer.await {
        Err(error) if is_denied(&error) => Err(error),
        answer => Ok(answer),
    }
}

fn is_denied(error: &KekError) -> bool {
    matches!(error.kind(), KekErrorKind::Denied(_))
}

fn invalid(error: impl std::error::Error) -> KekError {
    KekError::invalid(error.to_string())
}

/// "Denied" only where every group is denied: one that could not be asked may still open.
fn verdict(failures: Vec<KekError>) -> Locked {
    let is_transient =
        |error: &KekError| matches!(error.kind(), KekErrorKind::Unavailable | KekErrorKind::Throttled);
    let mut failures = failures;
    let at =
        failures.iter().position(is_transient).or_else(|| failures.iter().position(is_denied)).unwrap_or(0);
    if failures.is_empty() {
        return Locked::Other(Error::corrupt("the newest log record has no wrapped root"));
    }
    let error = failures.swap_remove(at);
    match error.kind() {
        // A wrap that the key does not open is damage of the log, never a verdict on the key.
        KekErrorKind::Invalid => Locked::Other(Error::from(error)),
        _ => Locked::Kek(error),
    }
}

/// A root, and how it came.
struct Opened {
    root_id: RootId,
    root: Arc<Root>,
    opened_by: Vec<String>,
    described: Vec<Described>,
    sent: Now,
}

fn verify(raw: &RawRecord, expected: Expected, read_started: Now, opened: Opened) -> Result<Unlocked> {
    let Opened { root_id, root, opened_by, described, sent } = opened;
    if let Some(anchor) = expected.anchor
        && !anchor.ct_eq(&root.anchor())
    {
        return Err(Error::corrupt(
            "the store's anchor is not the pinned one: this is another store or a forgery made with the public key; \
             check the store's address, and compare the anchor that `bulla init` printed",
        ));
    }
    let record_key = root.record_key();
    let record = raw
        .unverified
        .verify(&record_key)
        .map_err(|error| Error::corrupt("the newest log record does not authenticate").with_source(error))?;
    if record.number != raw.mark.number {
        return Err(Error::corrupt(format!(
            "log record {} stands in the place of {}",
            record.number, raw.mark.number
        )));
    }
    if let Some(floor) = expected.floor {
        check_floor(&record, raw.mark, floor)?;
    }
    refuse_later_formats(&record)?;
    let wrapping_key = root.store_key_wrapping_key();
    let mut store_keys = BTreeMap::new();
    let mut active = None;
    // A retired one too: while the log holds it, what was left under it by a writer that died is readable.
    for entry in &record.store_keys {
        let secret = wrapping_key.unwrap_key(&entry.value).map_err(|error| {
            Error::corrupt(format!("store key {} does not unwrap", entry.id)).with_source(error)
        })?;
        store_keys.insert(entry.id, StoreKey::from(secret));
        if entry.state == StoreKeyState::Active {
            active = Some(entry.id);
        }
    }
    let active_store_key = active.ok_or_else(|| Error::corrupt("the log names no active store key"))?;
    Ok(Unlocked {
        root_id,
        envelope_key: root.envelope_key(),
        blob_names: root.name_key(BLOB_KIND),
        meta_key: root.meta_key(),
        job_names: root.name_key(JOB_KIND),
        record_key,
        root,
        opened_by,
        active_store_key,
        store_keys,
        described,
        sent,
        view: LogView { mark: raw.mark, record, read_started },
    })
}

/// What the format carries and this version can't serve yet is refused by name, before a blob would seem damaged.
fn refuse_later_formats(record: &LogRecord) -> Result<()> {
    if record.roots.len() > 1 {
        return Err(Error::invalid(
            "the store is being rerooted, which this version of Bulla can't read; use a newer one",
        ));
    }
    Ok(())
}

/// No going back, no fork: what a node has seen stays in the history of what it sees later.
pub(crate) fn check_floor(record: &LogRecord, mark: RecordMark, floor: RecordMark) -> Result<()> {
    let found = if floor.number == mark.number {
        Some(mark.hash)
    } else {
        let index = usize::try_from(floor.number - 1).ok();
        index.and_then(|index| record.history.get(index)).copied()
    };
    if found == Some(floor.hash) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the log does not contain record {} as it was seen before: the bucket was rolled back or forked; \
         restore its newest state",
        floor.number
    )))
}

impl Unlocked {
    /// The same root's view of a newer record. Asks no provider and renews nothing.
    pub(crate) fn follow(&self, raw: &RawRecord, expected: Expected, read_started: Now) -> Result<Self> {
        let opened = Opened {
            root_id: self.root_id,
            root: Arc::clone(&self.root),
            opened_by: self.opened_by.clone(),
            described: self.described.iter().map(Described::in_use_only).collect(),
            sent: self.sent,
        };
        let followed = verify(raw, expected, read_started, opened)?;
        let still_active = |root: &RootEntry| root.id == self.root_id && root.state == RootState::Active;
        if followed.view.record.roots.iter().any(still_active) {
            return Ok(followed);
        }
        Err(Error::new(crate::ErrorKind::Conflict, "the store has a new root"))
    }

    /// The KEK versions that opened the root.
    pub(crate) fn kids(&self) -> Vec<KeyId> {
        self.opened_by.iter().filter_map(|kid| kid.parse().ok()).collect()
    }

    pub(crate) fn store(&self) -> StoreId {
        self.view.record.store
    }

    /// The record after this one, with nothing changed yet.
    pub(crate) fn next_record(&self, now: u64) -> LogRecord {
        let mut record = self.view.record.clone();
        record.number += 1;
        record.history.push(self.view.mark.hash);
        record.written = now;
        record
    }

    pub(crate) fn store_key(&self, id: &StoreKeyId) -> Option<&StoreKey> {
        self.store_keys.get(id)
    }

    pub(crate) fn active_store_key(&self) -> &StoreKey {
        &self.store_keys[&self.active_store_key]
    }
}

impl fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unlocked")
            .field("store", &self.store())
            .field("log", &self.view.mark)
            .finish_non_exhaustive()
    }
}
