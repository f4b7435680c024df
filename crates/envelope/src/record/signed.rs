//! Signing and verifying log objects, and their names in a bucket.

#![deny(clippy::indexing_slicing)]

use sha2::{Digest as _, Sha256};

use super::{LogRecord, MAX_RECORD_NUMBER};
use crate::cbor::{
    DecodeError, InvalidRecord, MAX_OBJECT_LEN, Reader, VERSION, Writer, require, require_canonical,
};
use crate::secret::RecordKey;

/// Bytes of one MAC.
const MAC_LEN: usize = 64;

/// A record with its MAC: the object to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    record: LogRecord,
    object: Vec<u8>,
}

impl LogRecord {
    /// Signs the record with the active root's record key: FORMAT-L2.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if it breaks a rule, has a pending root (see [`Self::sign_pending`]), or is larger than
    /// [`MAX_OBJECT_LEN`].
    pub fn sign(&self, key: &RecordKey) -> Result<SignedRecord, InvalidRecord> {
        require(!self.is_pending(), "a record with a pending root is signed under both roots")?;
        self.sign_with(&[key])
    }

    /// Signs a record that has a pending root with the record keys of the active (`old`) and the pending (`new`)
    /// root: FORMAT-L3.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if it breaks a rule, has no pending root, or is larger than [`MAX_OBJECT_LEN`].
    pub fn sign_pending(&self, old: &RecordKey, new: &RecordKey) -> Result<SignedRecord, InvalidRecord> {
        require(self.is_pending(), "only a record with a pending root is signed under both roots")?;
        self.sign_with(&[old, new])
    }

    fn sign_with(&self, keys: &[&RecordKey]) -> Result<SignedRecord, InvalidRecord> {
        self.check()?;
        let body = self.encode();
        let mac: Vec<u8> = keys.iter().flat_map(|key| key.mac(&body)).collect();
        let object = frame(&body, &mac);
        require(object.len() <= MAX_OBJECT_LEN, "a record is at most 1 MiB")?;
        Ok(SignedRecord { record: self.clone(), object })
    }
}

impl SignedRecord {
    /// Reads an object; the same as [`UnverifiedRecord::decode`].
    ///
    /// # Errors
    ///
    /// See there.
    pub fn decode(object: &[u8]) -> Result<UnverifiedRecord, DecodeError> {
        UnverifiedRecord::decode(object)
    }

    /// What was signed.
    #[must_use]
    pub fn record(&self) -> &LogRecord {
        &self.record
    }

    /// The bytes to write at [`log_key`] of its number.
    #[must_use]
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// [`object_hash`] of the bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        object_hash(&self.object)
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_object(self) -> Vec<u8> {
        self.object
    }
}

/// A well-formed record that nobody has authenticated: whoever can write the bucket can have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedRecord {
    record: LogRecord,
    body: Vec<u8>,
    mac: Vec<u8>,
    hash: [u8; 32],
}

impl UnverifiedRecord {
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything but the deterministic encoding of a record that obeys the rules of this
    /// version; [`DecodeError::Stub`] for a stub.
    pub fn decode(object: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(object)?;
        let len = input.versioned_array()?;
        if len == 1 {
            input.finish()?;
            require_canonical(object, &stub())?;
            return Err(DecodeError::Stub);
        }
        if len != 3 {
            return Err(DecodeError::Malformed("the record's array"));
        }
        let body = input.bytes("the body")?.to_vec();
        let mac = input.bytes("the MAC")?.to_vec();
        input.finish()?;
        require_canonical(object, &frame(&body, &mac))?;
        let record = LogRecord::decode(&body)?;
        let macs = if record.is_pending() { 2 } else { 1 };
        require(mac.len() == macs * MAC_LEN, "a record has one MAC, and two while a root is pending")?;
        Ok(Self { record, body, mac, hash: object_hash(object) })
    }

    /// What the record says, for finding out which KEK to ask for the root, filtered by local configuration.
    /// Nothing else in it may be used before [`Self::verify`].
    #[must_use]
    pub fn hint(&self) -> &LogRecord {
        &self.record
    }

    /// [`object_hash`] of the object.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The record, if `key` signed it. While a root is pending, either root's key will do.
    ///
    /// # Errors
    ///
    /// [`MacMismatch`] if the holder of this root did not write this record.
    pub fn verify(&self, key: &RecordKey) -> Result<LogRecord, MacMismatch> {
        // Not lazy: all are compared, so that the time does not say which one matched.
        let authentic = self.mac.chunks(MAC_LEN).fold(false, |any, mac| any | key.verify(&self.body, mac));
        if authentic { Ok(self.record.clone()) } else { Err(MacMismatch) }
    }

    /// The record, if it has a pending root and both roots signed it.
    ///
    /// # Errors
    ///
    /// [`MacMismatch`] if either did not, or no root is pending.
    pub fn verify_pending(&self, old: &RecordKey, new: &RecordKey) -> Result<LogRecord, MacMismatch> {
        let (by_old, by_new) = self.mac.split_at_checked(MAC_LEN).ok_or(MacMismatch)?;
        let authentic = old.verify(&self.body, by_old) & new.verify(&self.body, by_new);
        if authentic { Ok(self.record.clone()) } else { Err(MacMismatch) }
    }
}

/// The holder of this root did not write this record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("log record was not written under this root")]
pub struct MacMismatch;

/// What an old record may be overwritten with once newer ones exist: the array of the version alone.
///
/// Its number stays taken. The newest record is never a stub.
#[must_use]
pub fn stub() -> Vec<u8> {
    let mut out = Writer::new(2);
    out.array(1).uint(VERSION);
    out.finish()
}

/// The SHA-256 of a complete log object, by which later records and readers remember it.
#[must_use]
pub fn object_hash(object: &[u8]) -> [u8; 32] {
    Sha256::digest(object).into()
}

/// Where record `number` is, relative to the store: `store/00000001.cbor`.
#[must_use]
pub fn log_key(number: u64) -> String {
    format!("store/{number:08}.cbor")
}

/// The number of the record at `key`, or `None` if that is not exactly what [`log_key`] gives for a valid one.
#[must_use]
pub fn parse_log_key(key: &str) -> Option<u64> {
    let digits = key.strip_prefix("store/")?.strip_suffix(".cbor")?;
    let number = digits.parse().ok().filter(|number| (1..=MAX_RECORD_NUMBER).contains(number))?;
    (log_key(number) == key).then_some(number)
}

fn frame(body: &[u8], mac: &[u8]) -> Vec<u8> {
    let mut out = Writer::new(16 + body.len() + mac.len());
    out.array(3).uint(VERSION).bytes(body).bytes(mac);
    out.finish()
}
