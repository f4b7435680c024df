//! What an envelope holds sealed: what the blob is, and where its extents are.
//!
//! ```text
//! {1: algorithm, 2: digest, 3: size, 4: blob id, 5: [[name, length, salt, commitment]…], 6: created,
//!  7: root id the DEK was born under, ?8: expires, ?9: inline, ?10: padding, ?11: there since}
//! ```
//!
//! A blob is either inline or in extents, never both and never neither (FORMAT-E10), so an empty blob is an
//! empty inline.

#![deny(clippy::indexing_slicing)]

use core::fmt;

use super::wrap::all_different;
use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require, require_canonical};
use crate::cobblestone;
use crate::digest::{Algorithm, Digest};
use crate::ids::{BlobId, ExtentName, RootId};

/// The largest blob that an envelope holds itself, in bytes: 64 KiB.
pub const MAX_INLINE_LEN: usize = 65_536;

/// 9999-12-31T23:59:59.999Z: the last millisecond that everything that prints dates can print.
pub(crate) const MAX_TIME: u64 = 253_402_300_799_999;

/// A blob: what it is and where it is.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// The digest of the plaintext.
    pub digest: Digest,
    /// The plaintext's length in bytes.
    pub size: u64,
    /// Random for every put; in the sealing context of every extent.
    pub blob: BlobId,
    /// The data objects in order; their lengths sum to `size`. Empty if the blob is inline.
    pub extents: Vec<Extent>,
    /// The whole plaintext, if it is at most [`MAX_INLINE_LEN`] and was put here.
    pub inline: Option<Vec<u8>>,
    /// When it was put, in ms since 1970-01-01 UTC by the writer's clock.
    pub created: u64,
    /// The root in use when the DEK was made. (The envelope itself may since have been sealed under another.)
    pub dek_root: RootId,
    /// When it may be dropped, in ms since 1970-01-01 UTC.
    pub expires: Option<u64>,
    /// When an envelope with these extents was there at the latest, and ever since, in ms since 1970-01-01 UTC by the bucket's
    /// clock; in those that were renewed (FORMAT-E14).
    pub there_since: Option<u64>,
}

/// One data object of a blob: one Cobblestone-256 message under the DEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The object's random name.
    pub name: ExtentName,
    /// Length of its plaintext in bytes, never 0.
    pub len: u64,
    /// Salt and commitment, which the object must begin with: an old or foreign extent is refused.
    pub header: cobblestone::Header,
}

impl BlobRecord {
    /// The sealed plaintext's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let inline_len = self.inline.as_ref().map_or(0, Vec::len);
        self.encode_padded(None, 256 + 96 * self.extents.len() + inline_len)
    }

    /// `padding` is the length of field 10, which readers accept and this version never writes; `capacity` should
    /// be the whole length.
    fn encode_padded(&self, padding: Option<usize>, capacity: usize) -> Vec<u8> {
        let mut out = Writer::new(capacity);
        let optional =
            [self.expires.is_some(), self.inline.is_some(), padding.is_some(), self.there_since.is_some()];
        out.map(7 + optional.iter().filter(|present| **present).count());
        out.uint(1).text(self.digest.algorithm().as_str());
        out.uint(2).bytes(self.digest.as_bytes());
        out.uint(3).uint(self.size);
        out.uint(4).bytes(self.blob.as_bytes());
        out.uint(5).array(self.extents.len());
        for extent in &self.extents {
            write_extent_fields(out.array(4), extent);
        }
        out.uint(6).uint(self.created);
        out.uint(7).bytes(self.dek_root.as_bytes());
        if let Some(expires) = self.expires {
            out.uint(8).uint(expires);
        }
        if let Some(inline) = &self.inline {
            out.uint(9).bytes(inline);
        }
        if let Some(padding) = padding {
            out.uint(10).bytes(&vec![0; padding]);
        }
        if let Some(there_since) = self.there_since {
            out.uint(11).uint(there_since);
        }
        out.finish()
    }

    /// Reads a sealed plaintext. It authenticated, but its writer may still be wrong: nothing is taken on trust.
    pub(crate) fn decode(plaintext: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(plaintext)?;
        input.map("the blob record's map")?;
        input.key(1, "field 1")?;
        let algorithm = input.text("the algorithm")?;
        input.key(2, "field 2")?;
        let digest = input.bytes("the digest")?;
        input.key(3, "field 3")?;
        let size = input.uint("the size")?;
        input.key(4, "field 4")?;
        let blob = BlobId::from_bytes(input.fixed("the blob id")?);
        input.key(5, "field 5")?;
        let extents = input.list(MIN_ENCODED_EXTENT, usize::MAX, "the extents", read_extent)?;
        input.key(6, "field 6")?;
        let created = input.uint("the creation time")?;
        input.key(7, "field 7")?;
        let dek_root = RootId::from_bytes(input.fixed("the DEK's root id")?);
        let expires = input.optional_key(8).then(|| input.uint("the expiry")).transpose()?;
        let inline = input.optional_key(9).then(|| input.bytes("the inline payload")).transpose()?;
        let padding = input.optional_key(10).then(|| input.bytes("the padding")).transpose()?;
        let there_since =
            input.optional_key(11).then(|| input.uint("the time it is there since")).transpose()?;
        input.finish()?;
        let digest = algorithm
            .parse()
            .ok()
            .and_then(|algorithm: Algorithm| Digest::from_bytes(algorithm, digest))
            .ok_or(DecodeError::Malformed("the digest"))?;
        let inline = inline.map(<[u8]>::to_vec);
        let record = Self { digest, size, blob, extents, inline, created, dek_root, expires, there_since };
        record.check()?;
        require_canonical(plaintext, &record.encode_padded(padding.map(<[u8]>::len), plaintext.len()))?;
        Ok(record)
    }

    /// FORMAT-E8 to E12.
    pub(super) fn check(&self) -> Result<(), InvalidRecord> {
        require(
            self.inline.is_some() == self.extents.is_empty(),
            "a blob is either inline or in extents, never both and never neither",
        )?;
        if let Some(inline) = &self.inline {
            require(inline.len() <= MAX_INLINE_LEN, "an inline payload is at most 64 KiB")?;
            require(
                u64::try_from(inline.len()) == Ok(self.size),
                "an inline payload is as long as the size says",
            )?;
        } else {
            let sum = self.extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.len));
            require(sum == Some(self.size), "the extents' lengths sum to the size")?;
        }
        check_extents(self.extents.iter())?;
        let times = [Some(self.created), self.expires, self.there_since];
        require(times.into_iter().flatten().all(|time| time <= MAX_TIME), "a time is before the year 10000")
    }
}

pub(crate) fn write_extent_fields<'w>(out: &'w mut Writer, extent: &Extent) -> &'w mut Writer {
    out.bytes(extent.name.as_bytes()).uint(extent.len);
    out.bytes(&extent.header.salt).bytes(&extent.header.commitment)
}

/// FORMAT-E9, but for the sum.
pub(crate) fn check_extents<'a>(
    extents: impl Iterator<Item = &'a Extent> + Clone,
) -> Result<(), InvalidRecord> {
    for extent in extents.clone() {
        require(extent.len > 0, "no extent is empty")?;
        require(cobblestone::sealed_len(extent.len).is_some(), "an extent's sealed length fits 64 bits")?;
    }
    require(
        all_different(extents.clone().map(|extent| &extent.name)),
        "the extents of a blob have different names",
    )?;
    require(
        all_different(extents.map(|extent| &extent.header.salt)),
        "the extents of a blob have different salts",
    )
}

/// Array, name, one-byte length, salt, commitment.
pub(crate) const MIN_ENCODED_EXTENT: usize = 1 + 17 + 1 + 26 + 34;

fn read_extent(input: &mut Reader<'_>) -> Result<Extent, DecodeError> {
    input.exact_array(4, "an extent")?;
    read_extent_fields(input)
}

/// The four elements of an extent, without the array's head.
pub(crate) fn read_extent_fields(input: &mut Reader<'_>) -> Result<Extent, DecodeError> {
    Ok(Extent {
        name: ExtentName::from_bytes(input.fixed("an extent's name")?),
        len: input.uint("an extent's length")?,
        header: cobblestone::Header {
            salt: input.fixed("an extent's salt")?,
            commitment: input.fixed("an extent's commitment")?,
        },
    })
}

/// The inline payload is the customer's data: its length is shown, never its bytes.
impl fmt::Debug for BlobRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobRecord")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("blob", &self.blob)
            .field("extents", &self.extents)
            .field("inline_len", &self.inline.as_ref().map(Vec::len))
            .field("created", &self.created)
            .field("dek_root", &self.dek_root)
            .field("expires", &self.expires)
            .field("there_since", &self.there_since)
            .finish()
    }
}
