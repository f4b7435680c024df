//! An export: all entries up to a checkpoint, for somebody who has neither the bucket nor any key.
//!
//! ```text
//! bulla-audit-export-v1
//! base64(entry)            one line each, in the order of the log
//! …
//! (an empty line)
//! the checkpoint, a signed note
//! ```
//!
//! It is text, so that any language verifies it in a few lines: decode, hash, compare, check one signature.

use super::base64::{self, BASE64};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::entry::Entry;
use super::note::{PublicKey, SigningKey};
use super::tree::{root_of, roots_of};
use crate::DecodeError;

const TITLE: &str = "bulla-audit-export-v1";

/// What an export says, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    leaves: Vec<Vec<u8>>,
    note: String,
}

/// An export that a key has vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The checkpoint that it ends with.
    pub checkpoint: Checkpoint,
    /// How many of the entries were there at the earlier checkpoint, if one was given.
    pub earlier: Option<u64>,
    /// Every entry of the log up to the checkpoint, in order.
    pub entries: Vec<Entry>,
}

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Not an export.
    #[error("not an export of an audit log: line {line} can't be read")]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// The checkpoint at its end is not of the key.
    #[error("the export's checkpoint can't be believed")]
    Checkpoint(#[source] CheckpointError),
    /// It holds more or fewer entries than were signed.
    #[error("the export has {found} entries, its checkpoint {signed}: entries were removed or added")]
    Count {
        /// In the export.
        found: u64,
        /// In the checkpoint.
        signed: u64,
    },
    /// It holds other entries than were signed.
    #[error(
        "the export's entries are not those that were signed: at least one was altered, replaced or moved"
    )]
    Altered,
    /// The log no longer has what it had at the earlier checkpoint.
    #[error(
        "the log of the export does not begin with the log of the earlier checkpoint: its history was changed"
    )]
    Rewritten,
    /// It ends before the earlier checkpoint.
    #[error(
        "the export ends at entry {found}, before the earlier checkpoint, {earlier}: it was truncated or is older"
    )]
    Older {
        /// In the export.
        found: u64,
        /// In the earlier checkpoint.
        earlier: u64,
    },
    /// An entry was signed that is none: its writer is broken, or newer.
    #[error("entry {index} can't be read")]
    Entry {
        /// Its index, from 0.
        index: usize,
        /// Why.
        source: DecodeError,
    },
}

impl Export {
    /// Everything in a log, with a fresh checkpoint of it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if a leaf is no entry.
    pub fn new(
        leaves: Vec<Vec<u8>>,
        log: super::StoreLogMark,
        key: &SigningKey,
    ) -> Result<(Self, Checkpoint), DecodeError> {
        for leaf in &leaves {
            Entry::decode(leaf)?;
        }
        let checkpoint = Checkpoint {
            origin: key.public_key().name().to_owned(),
            size: u64::try_from(leaves.len()).unwrap_or(u64::MAX),
            root: root_of(leaves.iter().map(Vec::as_slice)),
            log,
        };
        let note = checkpoint.sign(key);
        Ok((Self { leaves, note }, checkpoint))
    }

    /// Its entries' bytes.
    pub(super) fn leaves(&self) -> &[Vec<u8>] {
        &self.leaves
    }

    /// The export's checkpoint, a signed note.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The export as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n");
        for leaf in &self.leaves {
            BASE64.encode_append(leaf, &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Reads an export's text.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Malformed`].
    pub fn decode(text: &str) -> Result<Self, VerifyError> {
        let (entries, note) =
            text.split_once("\n\n").ok_or(VerifyError::Malformed { line: text.lines().count().max(1) })?;
        let mut lines = entries.split('\n').zip(1..);
        if lines.next().is_none_or(|(title, _)| title != TITLE) {
            return Err(VerifyError::Malformed { line: 1 });
        }
        let leaf = |(text, line): (&str, usize)| base64::decode(text).ok_or(VerifyError::Malformed { line });
        Ok(Self { leaves: lines.map(leaf).collect::<Result<_, _>>()?, note: note.to_owned() })
    }

    /// Checks that the export is complete and unaltered: it has exactly the entries of its checkpoint, `key` signed that,
    /// and, if an `earlier` checkpoint is given, its log begins with the log of that one. FORMAT-T6.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]: what is wrong. Nothing of the export may be believed then.
    pub fn verify(&self, key: &PublicKey, earlier: Option<&Checkpoint>) -> Result<Verified, VerifyError> {
        let checkpoint = Checkpoint::open(&self.note, key).map_err(VerifyError::Checkpoint)?;
        let found = u64::try_from(self.leaves.len()).unwrap_or(u64::MAX);
        if let Some(earlier) = earlier
            && checkpoint.size < earlier.size
        {
            return Err(VerifyError::Older { found: checkpoint.size, earlier: earlier.size });
        }
        if found != checkpoint.size {
            return Err(VerifyError::Count { found, signed: checkpoint.size });
        }
        let prefix = earlier.map_or(u64::MAX, |earlier| earlier.size);
        let (root, at_earlier) = roots_of(self.leaves.iter().map(Vec::as_slice), prefix);
        if root != checkpoint.root {
            return Err(VerifyError::Altered);
        }
        if let Some(earlier) = earlier
            && (at_earlier != Some(earlier.root) || checkpoint.log.number < earlier.log.number)
        {
            return Err(VerifyError::Rewritten);
        }
        let entry = |(index, leaf): (usize, &Vec<u8>)| {
            Entry::decode(leaf).map_err(|source| VerifyError::Entry { index, source })
        };
        let entries = self.leaves.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
        Ok(Verified { checkpoint, earlier: earlier.map(|earlier| earlier.size), entries })
    }
}
