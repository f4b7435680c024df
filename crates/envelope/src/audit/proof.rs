//! A proof of one entry: <https://c2sp.org/tlog-proof>, for somebody who is to see that entry and no other.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra base64(entry)
//! index 4                                its place in the log, from 0
//! base64(hash)                           from the leaf's sibling up, RFC 6962 §2.1.1
//! …
//! (an empty line)
//! the checkpoint, a signed note
//! ```

use super::base64::{self, BASE64};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::entry::Entry;
use super::export::Export;
use super::note::PublicKey;
use super::tree;
use crate::DecodeError;

const TITLE: &str = "c2sp.org/tlog-proof@v1";
const EXTRA: &str = "extra ";
const INDEX: &str = "index ";

/// What a proof says, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    leaf: Vec<u8>,
    index: u64,
    path: Vec<[u8; 32]>,
    note: String,
}

/// An entry that a key has vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proven {
    /// The checkpoint of a log that has it.
    pub checkpoint: Checkpoint,
    /// Its place in the log, from 0.
    pub index: u64,
    /// The entry.
    pub entry: Entry,
}

/// What is wrong with a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Not a proof of an entry.
    #[error("not a proof of an audit log's entry: line {line} can't be read")]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// The checkpoint at its end is not of the key.
    #[error("the proof's checkpoint can't be believed")]
    Checkpoint(#[source] CheckpointError),
    /// The checkpoint's log does not have this entry at this place.
    #[error(
        "the log that was signed does not have this entry at this place: entry, index or proof was altered"
    )]
    Absent,
    /// The entry was signed and is none: its writer is broken, or newer.
    #[error("the entry can't be read")]
    Entry(#[source] DecodeError),
}

impl Proof {
    /// The proof of one entry of an export, under the export's checkpoint; `None` where it has no such entry. Verify the
    /// export first: of one that was altered nothing can be proven.
    #[must_use]
    pub fn of(export: &Export, index: u64) -> Option<Self> {
        let at = usize::try_from(index).ok()?;
        let leaf = export.leaves().get(at)?.clone();
        let path = tree::path_of(export.leaves().iter().map(Vec::as_slice), at);
        Some(Self { leaf, index, path, note: export.note().to_owned() })
    }

    /// The proof as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n{EXTRA}{}\n{INDEX}{}\n", BASE64.encode(&self.leaf), self.index);
        for hash in &self.path {
            BASE64.encode_append(hash, &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Whether a text is meant to be a proof, and not an export.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.split('\n').next() == Some(TITLE)
    }

    /// Reads a proof's text. Others' proofs, without the entry in their `extra` line, are none of a log of ours.
    ///
    /// # Errors
    ///
    /// [`ProofError::Malformed`].
    pub fn decode(text: &str) -> Result<Self, ProofError> {
        let malformed = |line| ProofError::Malformed { line };
        let (proof, note) = text.split_once("\n\n").ok_or(malformed(text.lines().count().max(1)))?;
        let mut lines = proof.split('\n');
        let mut next =
            |line, start| lines.next().and_then(|text| text.strip_prefix(start)).ok_or(malformed(line));
        if !next(1, TITLE)?.is_empty() {
            return Err(malformed(1));
        }
        let leaf = base64::decode(next(2, EXTRA)?).ok_or(malformed(2))?;
        let digits = next(3, INDEX)?;
        // One spelling: no sign, no leading zeros.
        let index =
            digits.parse::<u64>().ok().filter(|index| index.to_string() == digits).ok_or(malformed(3))?;
        let hash = |(text, line): (&str, usize)| {
            let bytes = base64::decode(text).ok_or(malformed(line))?;
            <[u8; 32]>::try_from(bytes).map_err(|_| malformed(line))
        };
        let path = lines.zip(4..).map(hash).collect::<Result<_, _>>()?;
        Ok(Self { leaf, index, path, note: note.to_owned() })
    }

    /// Checks that `key` signed a log that has this entry at this place. FORMAT-T7.
    ///
    /// # Errors
    ///
    /// [`ProofError`]: what is wrong. Nothing of the proof may be believed then.
    pub fn verify(&self, key: &PublicKey) -> Result<Proven, ProofError> {
        let checkpoint = Checkpoint::open(&self.note, key).map_err(ProofError::Checkpoint)?;
        if !tree::has(&checkpoint.root, checkpoint.size, &self.leaf, self.index, &self.path) {
            return Err(ProofError::Absent);
        }
        let entry = Entry::decode(&self.leaf).map_err(ProofError::Entry)?;
        Ok(Proven { checkpoint, index: self.index, entry })
    }
}
