//! Checkpoints: <https://c2sp.org/tlog-checkpoint>, the log's head as the operator signed it.
//!
//! ```text
//! bulla-audit/STORE-ID                   the origin, which is also the key's name
//! 1234                                   entries
//! base64(root of the tree)
//! bulla-log 7 base64(SHA-256)            the store's newest log record at that time
//! ```

use super::base64::{self, BASE64};
use super::note::{NoteError, PublicKey, SigningKey};
use crate::ids::StoreId;

const LOG: &str = "bulla-log ";

/// The head of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of the key that signs it.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: [u8; 32],
    /// The newest record of the store's own log when the checkpoint was made.
    pub log: StoreLogMark,
}

/// A record of the store's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLogMark {
    /// The record's number, from 1.
    pub number: u64,
    /// SHA-256 of the complete object.
    pub hash: [u8; 32],
}

/// A text that is no checkpoint of this key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not a note that this key signed.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Signed, but no checkpoint of an audit log.
    #[error("the note is no checkpoint of an audit log")]
    Malformed,
    /// A checkpoint of another log than the one that the key is for.
    #[error("the checkpoint is of another log than its key")]
    Origin,
}

impl Checkpoint {
    /// The origin of a store's audit log, and the name of the key that signs its checkpoints: `bulla-audit/` and the
    /// store's id.
    #[must_use]
    pub fn origin_of(store: &StoreId) -> String {
        format!("bulla-audit/{store}")
    }

    /// The signed note. The key's name is taken for the origin. FORMAT-T5.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> String {
        key.sign(&self.text())
    }

    /// Reads a signed note. Signatures by other keys, a witness's say, are ignored.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn open(note: &str, key: &PublicKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(key.open(note)?).ok_or(CheckpointError::Malformed)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin);
        }
        Ok(checkpoint)
    }

    fn text(&self) -> String {
        let (root, hash) = (BASE64.encode(&self.root), BASE64.encode(&self.log.hash));
        format!("{}\n{}\n{root}\n{LOG}{} {hash}\n", self.origin, self.size, self.log.number)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let origin = lines.next()?.to_owned();
        let size = lines.next()?.parse().ok().filter(|size| *size > 0)?;
        let root = hash(lines.next()?)?;
        let (number, record) = lines.next()?.strip_prefix(LOG)?.split_once(' ')?;
        let log =
            StoreLogMark { number: number.parse().ok().filter(|number| *number > 0)?, hash: hash(record)? };
        let checkpoint = Self { origin, size, root, log };
        // One spelling for each: no sign, no leading zeros, nothing after the last line.
        (checkpoint.text() == text).then_some(checkpoint)
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    base64::decode(text)?.try_into().ok()
}
