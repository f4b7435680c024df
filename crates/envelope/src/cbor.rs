//! The small part of CBOR (RFC 8949) that records use, read strictly and written deterministically.
//!
//! Only unsigned integers, definite byte and text strings, definite arrays and maps, and `null` exist here;
//! FORMAT.md §1. [`Reader`] is total: any bytes give a value or a [`DecodeError`]. It refuses a length before
//! it allocates for it. It does *not* check that integers are in their shortest form: every decoder encodes
//! what it decoded again and requires the same bytes ([`require_canonical`]), which covers that and map order.
//!
//! This module knows nothing about records.

#![deny(clippy::indexing_slicing)]

use minicbor::{Decoder, Encoder, data::Type};

/// The largest object that is decoded, in bytes: 1 MiB (FORMAT.md §11). Larger ones are refused unread.
pub const MAX_OBJECT_LEN: usize = 1 << 20;

/// Why bytes are not a record of this format.
///
/// Decoding comes before authentication: nothing here says anything about who wrote the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The object is larger than [`MAX_OBJECT_LEN`]; it was not looked at.
    #[error("object of {len} bytes is larger than {MAX_OBJECT_LEN}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// The object says that it is of another version of the format: another program can read it.
    #[error("object is of format version {0}; this program knows version {VERSION}")]
    UnknownVersion(u64),
    /// The envelope says that it is sealed with a suite that this version does not know.
    // Escaped: the name comes from bytes nobody has authenticated.
    #[error("object is sealed with the unknown suite {0:?}")]
    UnknownSuite(String),
    /// The log record was overwritten by a stub: it was there, and a newer record holds the state.
    #[error("log record was replaced by a stub")]
    Stub,
    /// Not the CBOR that belongs here: truncated, of another type or length, or with bytes after the end.
    #[error("object is malformed at {0}")]
    Malformed(&'static str),
    /// The right values, but not in their one deterministic encoding.
    #[error("object is not in its deterministic encoding")]
    NotCanonical,
    /// Well-formed, but it breaks a rule of the format.
    #[error("object breaks a rule of the format")]
    Invalid(#[from] InvalidRecord),
}

/// A record breaks a rule of FORMAT.md, so it is neither written nor read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidRecord {
    rule: &'static str,
}

impl InvalidRecord {
    /// The rule that is broken, as a sentence.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

/// `Ok` if `holds`, else the broken `rule`.
pub(crate) fn require(holds: bool, rule: &'static str) -> Result<(), InvalidRecord> {
    if holds { Ok(()) } else { Err(InvalidRecord { rule }) }
}

/// The version every object of this format begins with.
pub(crate) const VERSION: u64 = 1;

/// The last step of every decoder: what was decoded, encoded again, is what came in.
pub(crate) fn require_canonical(input: &[u8], encoded_again: &[u8]) -> Result<(), DecodeError> {
    if input == encoded_again { Ok(()) } else { Err(DecodeError::NotCanonical) }
}

/// Writes the deterministic encoding; map keys come in ascending order from the caller.
pub(crate) struct Writer(Encoder<Vec<u8>>);

/// Why writing cannot fail.
const INFALLIBLE: &str = "writing to a Vec cannot fail";

impl Writer {
    /// A writer with room for `capacity` bytes, so that what is secret is not copied by growing.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Encoder::new(Vec::with_capacity(capacity)))
    }

    pub(crate) fn array(&mut self, len: usize) -> &mut Self {
        self.0.array(widen(len)).expect(INFALLIBLE);
        self
    }

    pub(crate) fn map(&mut self, len: usize) -> &mut Self {
        self.0.map(widen(len)).expect(INFALLIBLE);
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        self.0.u64(value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.bytes(value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.0.str(value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.0.null().expect(INFALLIBLE);
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }
}

fn widen(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}

/// Reads what [`Writer`] writes. `what` names the field in errors.
pub(crate) struct Reader<'b>(Decoder<'b>);

impl<'b> Reader<'b> {
    /// Begins with `object`, which is refused if it is too large.
    pub(crate) fn new(object: &'b [u8]) -> Result<Self, DecodeError> {
        if object.len() > MAX_OBJECT_LEN {
            return Err(DecodeError::TooLarge { len: object.len() });
        }
        Ok(Self(Decoder::new(object)))
    }

    /// The frame of every object: an array whose first element is the version. Returns the array's length.
    ///
    /// The version is looked at before anything else, so that an object of another version is called that
    /// and not malformed.
    pub(crate) fn versioned_array(&mut self) -> Result<u64, DecodeError> {
        let len = self.array("the object's array")?;
        match self.uint("the version")? {
            VERSION => Ok(len),
            other => Err(DecodeError::UnknownVersion(other)),
        }
    }

    pub(crate) fn array(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.0.array().ok().flatten().ok_or(DecodeError::Malformed(what))
    }

    pub(crate) fn exact_array(&mut self, len: u64, what: &'static str) -> Result<(), DecodeError> {
        if self.array(what)? == len { Ok(()) } else { Err(DecodeError::Malformed(what)) }
    }

    pub(crate) fn map(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.0.map().ok().flatten().ok_or(DecodeError::Malformed(what))
    }

    pub(crate) fn uint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.0.u64().map_err(|_| DecodeError::Malformed(what))
    }

    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<&'b [u8], DecodeError> {
        self.0.bytes().map_err(|_| DecodeError::Malformed(what))
    }

    pub(crate) fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        self.bytes(what)?.try_into().map_err(|_| DecodeError::Malformed(what))
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'b str, DecodeError> {
        self.0.str().map_err(|_| DecodeError::Malformed(what))
    }

    /// `None` for `null`, else what `read` reads.
    pub(crate) fn nullable<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if matches!(self.0.datatype(), Ok(Type::Null)) {
            self.0.null().map_err(|_| DecodeError::Malformed("null"))?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// An array of elements that take at least `min_len` bytes each, at most `max` of them.
    ///
    /// A count that the rest of the object has no room for is refused before anything is allocated, so the
    /// allocation is bounded by the input and not by what it claims.
    pub(crate) fn list<T>(
        &mut self,
        min_len: usize,
        max: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let remaining = self.0.input().len().saturating_sub(self.0.position());
        let count = usize::try_from(self.array(what)?).map_err(|_| DecodeError::Malformed(what))?;
        let room = remaining.checked_div(min_len).unwrap_or(0).min(max);
        if count > room {
            return Err(DecodeError::Malformed(what));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// The next map key must be `key`.
    pub(crate) fn key(&mut self, key: u64, what: &'static str) -> Result<(), DecodeError> {
        if self.uint(what)? == key { Ok(()) } else { Err(DecodeError::Malformed(what)) }
    }

    /// Whether the next item is the map key `key`; if so it is consumed.
    pub(crate) fn optional_key(&mut self, key: u64) -> bool {
        let before = self.0.position();
        if self.0.u64().is_ok_and(|found| found == key) {
            return true;
        }
        self.0.set_position(before);
        false
    }

    /// Nothing follows.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.0.position() == self.0.input().len() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("the end"))
        }
    }
}
