//! Who holds a key without which the store does not open: one party, or two.
//!
//! The root's wraps come in groups; member *i* of a group is wrapped by the *i*-th party's KEK (FORMAT-K3, FORMAT-L13). All
//! that differs between the parties is here, so that the rest treats one party as the usual case.

use std::fmt;

use bulla_envelope::record::LogRecord;
use bulla_kek::{Identity, KeyId};

use crate::error::{Error, Result};

/// The most parties that this version can serve; the format carries more.
pub(crate) const MAX_PARTIES: usize = 2;

/// One of the parties that hold a store's root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums, reason = "a store has one party, or two")]
pub enum Party {
    /// The only one, or the one that the store was first put under.
    #[default]
    First,
    /// The other one, whose KEK is needed as well.
    Second,
}

impl Party {
    pub(crate) const ALL: [Self; MAX_PARTIES] = [Self::First, Self::Second];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}

/// A party's KEK, and as whom the nodes use it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a party is this")]
pub struct PartyKey {
    /// The KEK. Without a version the newest is followed.
    pub key: KeyId,
    /// As whom the nodes use it.
    pub identity: Identity,
}

/// What a record says of a party, unparsed: identity and key id, as configured.
pub(crate) fn texts(record: &LogRecord, party: usize) -> Option<(&str, &str)> {
    match party.checked_sub(1) {
        None => Some((&record.identity, &record.key_id)),
        Some(other) => record.other_parties.get(other).map(|other| (&*other.identity, &*other.key_id)),
    }
}

/// How many parties a record has.
pub(crate) fn count(record: &LogRecord) -> usize {
    1 + record.other_parties.len()
}

/// The identity of a party.
pub(crate) fn identity(record: &LogRecord, party: usize) -> Result<Identity> {
    let (identity, _) = texts(record, party).ok_or_else(|| no_party(party))?;
    identity.parse().map_err(|error| Error::corrupt("the log's identity can't be parsed").with_source(error))
}

/// The KEK of a party, as configured.
pub(crate) fn key_id(record: &LogRecord, party: usize) -> Result<KeyId> {
    let (_, key_id) = texts(record, party).ok_or_else(|| no_party(party))?;
    key_id.parse().map_err(|error| Error::corrupt("the log's key id can't be parsed").with_source(error))
}

fn no_party(party: usize) -> Error {
    match party {
        1 => Error::invalid(
            "the store has one party; bring a second one in first (`bulla rotate STORE --and-kek KEY_ID`)",
        ),
        _ => Error::corrupt("the log names fewer parties than wraps of its root"),
    }
}
