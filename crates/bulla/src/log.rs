//! Reading and appending the log, `store/NNNNNNNN.cbor` (FORMAT.md, Log): objects and their order only. Nothing read here
//! is trusted before [`crate::unlock`] has checked anchor, MAC and history.

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::record::{LogRecord, UnverifiedRecord, log_key, object_hash, parse_log_key};
use bulla_kek::{KeyId, Now};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::bucket::{Bucket, Conditional};
use crate::error::{Error, ErrorKind, Result};

/// The folder of the log.
pub(crate) const LOG_PREFIX: &str = "store";

/// A log record's position and content: what a node remembers so that a store can't be rolled back behind its back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMark {
    /// The record's number, from 1.
    pub number: u64,
    /// SHA-256 of the complete object.
    pub hash: [u8; 32],
}

/// The newest record's object, as the bucket gives it.
#[derive(Clone, Debug)]
pub(crate) struct RawRecord {
    pub(crate) mark: RecordMark,
    pub(crate) unverified: UnverifiedRecord,
}

impl RawRecord {
    /// The KEK versions that it names, unverified: for telling whom was asked.
    pub(crate) fn kids(&self) -> Vec<KeyId> {
        self.unverified.hint().keks.iter().filter_map(|kek| kek.kid.parse().ok()).collect()
    }
}

/// An authenticated record, and since when it is known to be the newest.
#[derive(Clone, Debug)]
pub(crate) struct LogView {
    pub(crate) mark: RecordMark,
    pub(crate) record: LogRecord,
    /// Taken before the read that found no newer record was sent.
    pub(crate) read_started: Now,
}

/// The newest record. Starts at `known` where there is one, else at what a listing shows.
///
/// Reads are contiguous: a record that is there and can't be decoded is an error, never skipped.
pub(crate) async fn read_newest(bucket: &Bucket, known: Option<RecordMark>) -> Result<RawRecord> {
    let mut newest = match known {
        Some(known) => {
            let object = read_object(bucket, known.number).await?.ok_or_else(|| vanished(known.number))?;
            // Records below the newest may be overwritten by stubs; their hashes live on in `history`.
            (known.number, object)
        }
        None => {
            let number = last_listed(bucket).await?;
            let object = read_object(bucket, number).await?.ok_or_else(|| vanished(number))?;
            (number, object)
        }
    };
    while let Some(object) = read_object(bucket, newest.0 + 1).await? {
        newest = (newest.0 + 1, object);
    }
    decode(newest.0, &newest.1)
}

/// The record after `mark`, and all that follow it: the newest of them, or `None` where `mark` still is the newest.
pub(crate) async fn read_after(bucket: &Bucket, mark: RecordMark) -> Result<Option<RawRecord>> {
    let mut newest = None;
    let mut number = mark.number + 1;
    while let Some(object) = read_object(bucket, number).await? {
        newest = Some((number, object));
        number += 1;
    }
    newest.map(|(number, object)| decode(number, &object)).transpose()
}

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Append {
    /// The record is in the log.
    Done(RecordMark),
    /// Another node wrote this number first: read the log and decide anew.
    Lost,
}

/// Appends a signed record by put-if-absent. After any failed write the number is read again: our own bytes there are
/// success, nothing there is a retry.
pub(crate) async fn append(bucket: &Bucket, number: u64, object: Vec<u8>) -> Result<Append> {
    const ATTEMPTS: usize = 5;
    let object = Bytes::from(object);
    let mark = RecordMark { number, hash: object_hash(&object) };
    let key = log_key(number);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match bucket.put_create(&key, object.clone()).await {
            Conditional::Done(_) => return Ok(Append::Done(mark)),
            Conditional::Lost => {}
            Conditional::Unknown(error) => last = Some(error),
        }
        match read_object(bucket, number).await {
            Ok(Some(found)) if found == object => return Ok(Append::Done(mark)),
            Ok(Some(_)) => return Ok(Append::Lost),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Err(match last {
        Some(error) => error.into(),
        None => Error::new(ErrorKind::Conflict, "the log did not take the record; try again"),
    })
}

/// Whether a log begins here.
pub(crate) async fn exists(bucket: &Bucket) -> Result<bool> {
    Ok(read_object(bucket, 1).await?.is_some() || bucket.list(LOG_PREFIX).try_next().await?.is_some())
}

async fn read_object(bucket: &Bucket, number: u64) -> Result<Option<Bytes>> {
    Ok(bucket.get(&log_key(number), MAX_OBJECT_LEN).await?.map(|object| object.bytes))
}

async fn last_listed(bucket: &Bucket) -> Result<u64> {
    let mut numbers = Vec::new();
    let mut listing = bucket.list(LOG_PREFIX);
    while let Some(entry) = listing.try_next().await? {
        let number = parse_log_key(&entry.key)
            .ok_or_else(|| Error::corrupt(format!("`{}` does not belong in the log", entry.key)))?;
        numbers.push(number);
    }
    numbers.sort_unstable();
    let Some(&last) = numbers.last() else {
        return Err(Error::new(ErrorKind::NotFound, "there is no store here; make one with `bulla init`"));
    };
    // Numbers never vanish, so a gap is damage or somebody hiding a record.
    if !numbers.iter().copied().eq(1..=last) {
        return Err(Error::corrupt(format!("the log has a gap below record {last}")));
    }
    Ok(last)
}

fn decode(number: u64, object: &Bytes) -> Result<RawRecord> {
    if object.is_empty() {
        return Err(Error::corrupt(format!("the newest log record, {number}, is an empty stub")));
    }
    let unverified = UnverifiedRecord::decode(object).map_err(|error| {
        Error::corrupt(format!("log record {number} can't be decoded")).with_source(error)
    })?;
    Ok(RawRecord { mark: RecordMark { number, hash: object_hash(object) }, unverified })
}

fn vanished(number: u64) -> Error {
    Error::corrupt(format!(
        "log record {number} is gone, though it was seen before: the bucket was rolled back or is not the same store"
    ))
}
