//! A batch: some entries, sealed as one object, with the hash of the object before it.
//!
//! ```text
//! object = [1, header: bstr, sealed: bstr]
//! sealed = Cobblestone-256.Seal(audit key, label("bulla/v1/audit") ‖ header ‖ number as 8 bytes,
//!                               [number, first, previous|null, [entry: bstr, …]])
//! ```

#![deny(clippy::indexing_slicing)]

use sha2::{Digest as _, Sha256};

use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require, require_canonical};
use crate::crypto::CryptoProvider;
use crate::envelope::EnvelopeHeader;
use crate::object::SealedObject;
use crate::secret::AuditKey;
use crate::{cobblestone, context};

use super::Entry;

/// Where batches are.
pub const AUDIT_PREFIX: &str = "audit";
/// The most entries of a batch.
pub const MAX_BATCH: usize = 256;
/// Eight decimal digits.
pub(super) const MAX_NUMBER: u64 = 99_999_999;

/// Entries that were appended together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// From 1.
    pub number: u64,
    /// How many entries there are in the batches before it: the index of its first entry.
    pub first: u64,
    /// SHA-256 of the complete object before it; `None` for number 1.
    pub previous: Option<[u8; 32]>,
    /// The entries' bytes: leaves of the tree.
    pub entries: Vec<Vec<u8>>,
}

/// `audit/NNNNNNNN.cbor`: where a batch is. FORMAT-T1.
#[must_use]
pub fn audit_key(number: u64) -> String {
    format!("{AUDIT_PREFIX}/{number:08}.cbor")
}

/// The number of the batch at `key`; `None` for what does not belong in the audit log.
#[must_use]
pub fn parse_audit_key(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(AUDIT_PREFIX)?.strip_prefix('/')?.strip_suffix(".cbor")?;
    let number = digits.parse().ok().filter(|number| (1..=MAX_NUMBER).contains(number))?;
    (audit_key(number) == key).then_some(number)
}

impl Batch {
    /// SHA-256 of a complete object, as the next batch names it.
    #[must_use]
    pub fn hash_of(object: &[u8]) -> [u8; 32] {
        Sha256::digest(object).into()
    }

    /// Seals the batch: FORMAT-T1. `salt` must be fresh random bytes on every call.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if the batch breaks a rule of the format.
    pub fn seal(
        &self,
        crypto: &'static CryptoProvider,
        key: &AuditKey,
        header: EnvelopeHeader,
        salt: [u8; 24],
    ) -> Result<Vec<u8>, InvalidRecord> {
        self.check()?;
        for entry in &self.entries {
            require(Entry::decode(entry).is_ok(), "a batch holds entries")?;
        }
        let context = context::audit_context(&header.encode(), self.number);
        let sealed = cobblestone::seal(crypto, key.expose(), &context, salt, &self.write());
        let object = SealedObject { header, sealed }.encode();
        require(object.len() <= crate::MAX_OBJECT_LEN, "an object is at most 1 MiB")?;
        Ok(object)
    }

    /// Opens an object *as the batch `number` of the store and root in `header`*.
    ///
    /// # Errors
    ///
    /// [`OpenBatchError`]: the object is damaged, foreign, or of another place.
    pub fn open(
        crypto: &'static CryptoProvider,
        key: &AuditKey,
        header: EnvelopeHeader,
        number: u64,
        object: &[u8],
    ) -> Result<Self, OpenBatchError> {
        let object = SealedObject::decode(object)?;
        if object.header != header {
            return Err(OpenBatchError::NotAuthentic);
        }
        let context = context::audit_context(&header.encode(), number);
        let plaintext = cobblestone::open(crypto, key.expose(), &context, &object.sealed)
            .map_err(|_| OpenBatchError::NotAuthentic)?;
        let batch = Self::read(&plaintext)?;
        require(batch.number == number, "a batch has its own number inside").map_err(DecodeError::from)?;
        Ok(batch)
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Writer::new(64 + self.entries.iter().map(|entry| entry.len() + 5).sum::<usize>());
        out.array(4).uint(self.number).uint(self.first);
        match &self.previous {
            Some(hash) => out.bytes(hash),
            None => out.null(),
        };
        out.array(self.entries.len());
        for entry in &self.entries {
            out.bytes(entry);
        }
        out.finish()
    }

    fn read(plaintext: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(plaintext)?;
        input.exact_array(4, "the batch")?;
        let batch = Self {
            number: input.uint("the number")?,
            first: input.uint("the first entry's index")?,
            previous: input.nullable(|input| input.fixed("the hash of the batch before"))?,
            entries: input
                .list(1, MAX_BATCH, "the entries", |input| Ok(input.bytes("an entry")?.to_vec()))?,
        };
        input.finish()?;
        batch.check()?;
        for entry in &batch.entries {
            Entry::decode(entry)?;
        }
        require_canonical(plaintext, &batch.write())?;
        Ok(batch)
    }

    fn check(&self) -> Result<(), InvalidRecord> {
        require((1..=MAX_NUMBER).contains(&self.number), "a batch's number is 1 to 99999999")?;
        require(
            self.previous.is_none() == (self.number == 1) && (self.number > 1 || self.first == 0),
            "only the first batch has none before it",
        )?;
        require(
            (1..=MAX_BATCH).contains(&self.entries.len()) && self.first.checked_add(MAX_NUMBER).is_some(),
            "a batch has 1 to 256 entries",
        )
    }
}

/// Why an object is not the batch that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenBatchError {
    /// Not an object of this format, or it holds no batch: its writer is broken, or it was damaged.
    #[error("batch holds nothing of this format")]
    Decode(#[from] DecodeError),
    /// It does not open under this key, store, root and number; which of them is wrong can't be told.
    #[error("batch does not open under its number")]
    NotAuthentic,
}
