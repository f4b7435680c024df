//! Upload sessions: how far an upload is, so that any node can go on with it.
//!
//! ```text
//! key     = uploads/<sealed id>                                     kind `upload`, parent `uploads`
//! object  = a small sealed object under the upload key
//! content = {1: wraps, 2: blob id, 3: root id the DEK was born under, 4: [[name, length, salt, commitment, stored]…],
//!            5: tail, 6: [algorithm, chain, rest], 7: created, 8: touched, 9: revision, 10: owner, 11: horizon,
//!            ?12: [algorithm, digest]}
//! ```
//!
//! What has been uploaded is the extents and then the tail, which is too short to be an extent. The hash state stands after
//! the last byte of it. No sealer's state is here: whoever goes on seals new extents (FORMAT-P6). FORMAT.md §10.

#![deny(clippy::indexing_slicing)]

use core::fmt;

use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require, require_canonical};
use crate::context;
use crate::crypto::CryptoProvider;
use crate::digest::{Algorithm, Digest, HashState, Hasher};
use crate::envelope::{
    EnvelopeHeader, Extent, MAX_INLINE_LEN, MAX_TIME, MAX_WRAPS, MIN_ENCODED_EXTENT, Wrap, check_extents,
    check_wraps, read_extent_fields, read_wrap, write_extent_fields, write_wrap,
};
use crate::ids::{BlobId, RootId, SessionId};
use crate::names::NameError;
use crate::object::{OpenObjectError, SealedObject};
use crate::secret::{NameKey, UploadKey};

/// The kind of sessions, and of their names: see [`crate::secret::Root::name_key`].
pub const UPLOAD_KIND: &str = "upload";
/// Where sessions are.
pub const UPLOADS: &str = "uploads";
/// The longest tail, in bytes: as long as a blob may be that is inside its envelope.
pub const MAX_TAIL_LEN: usize = MAX_INLINE_LEN;
/// The longest owner, in bytes.
pub const MAX_OWNER_LEN: usize = 1024;
/// How many extents an object of at most 1 MiB has room for, whatever else is in the session: a writer's limit.
pub const MAX_EXTENTS: usize = 10_000;

/// How far an upload is.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The DEK, wrapped, as in an envelope.
    pub wraps: Vec<Wrap>,
    /// The blob that this will be.
    pub blob: BlobId,
    /// The root in use when the DEK was made.
    pub dek_root: RootId,
    /// The data objects that are stored, in order.
    pub extents: Vec<StoredExtent>,
    /// What was uploaded after them: at most [`MAX_TAIL_LEN`] bytes.
    pub tail: Vec<u8>,
    /// The hash of all that was uploaded.
    pub hash: HashState,
    /// When the session began, in ms since 1970-01-01 UTC.
    pub created: u64,
    /// When it was last written, in ms since 1970-01-01 UTC.
    pub touched: u64,
    /// Drawn anew by every writer that goes on with the upload, so that it recognises its own write. Wrapping the DEK again
    /// leaves it as it is.
    pub revision: [u8; 16],
    /// Whose session it is, in words of the engine's caller: at most [`MAX_OWNER_LEN`] bytes.
    pub owner: Vec<u8>,
    /// No extent is older than this gc horizon: ms since 1970-01-01 UTC by the bucket's clock.
    pub horizon: u64,
    /// Set before the envelope is created: from then on nothing is appended.
    pub committing: Option<Digest>,
}

/// An extent, and when its object was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredExtent {
    /// The data object.
    pub extent: Extent,
    /// Before it was sent, in ms since 1970-01-01 UTC by the writer's clock.
    pub stored: u64,
}

impl NameKey {
    /// `uploads/<sealed id>`: where a session is. The name key is that of [`UPLOAD_KIND`]. FORMAT-U1.
    #[must_use]
    pub fn upload_key(&self, id: &SessionId) -> String {
        format!("{UPLOADS}/{}", self.seal_name(UPLOAD_KIND, UPLOADS, id.as_bytes()))
    }

    /// The session that [`upload_key`](Self::upload_key) made `key` for.
    ///
    /// # Errors
    ///
    /// [`NameError::Invalid`] if it did not.
    pub fn session_of_upload_key(&self, key: &str) -> Result<SessionId, NameError> {
        let component =
            key.strip_prefix(UPLOADS).and_then(|key| key.strip_prefix('/')).ok_or(NameError::Invalid)?;
        let name = self.open_name(UPLOAD_KIND, UPLOADS, component)?;
        SessionId::from_slice(&name).ok_or(NameError::Invalid)
    }
}

impl SessionRecord {
    /// How many bytes have been uploaded.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.hash.len()
    }

    /// The object's bytes for the session `id`: FORMAT-U2.
    ///
    /// `salt` must be fresh random bytes on every call, an attempt that failed before included.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if the record breaks a rule, or if the object would be larger than 1 MiB (too many extents).
    pub fn seal(
        &self,
        crypto: &'static CryptoProvider,
        key: &UploadKey,
        header: EnvelopeHeader,
        id: &SessionId,
        salt: [u8; 24],
    ) -> Result<Vec<u8>, InvalidRecord> {
        self.check()?;
        let context = context::upload_context(&header.encode(), id.as_bytes());
        let content = zeroize::Zeroizing::new(self.encode());
        let inside = (UPLOAD_KIND, id.as_bytes().as_slice(), content.as_slice());
        Ok(SealedObject::seal_in(crypto, key.expose(), &context, header, inside, salt)?.encode())
    }

    /// Reads and opens an object as the session `id` of the store and root in `header`.
    ///
    /// # Errors
    ///
    /// [`OpenSessionError`]: the object is damaged, foreign, or of another session.
    pub fn open(
        crypto: &'static CryptoProvider,
        key: &UploadKey,
        header: EnvelopeHeader,
        id: &SessionId,
        object: &[u8],
    ) -> Result<Self, OpenSessionError> {
        let object = SealedObject::decode(object)?;
        if object.header != header {
            return Err(OpenSessionError::Foreign);
        }
        let context = context::upload_context(&header.encode(), id.as_bytes());
        let content = object.open_in(crypto, key.expose(), &context, UPLOAD_KIND, id.as_bytes())?;
        Ok(Self::decode(&content)?)
    }

    fn encode(&self) -> Vec<u8> {
        let wraps: usize = self.wraps.iter().map(Wrap::encoded_len_at_most).sum();
        let mut out = Writer::new(512 + wraps + 96 * self.extents.len() + self.tail.len() + self.owner.len());
        out.map(if self.committing.is_some() { 12 } else { 11 });
        out.uint(1).array(self.wraps.len());
        for wrap in &self.wraps {
            write_wrap(&mut out, wrap);
        }
        out.uint(2).bytes(self.blob.as_bytes());
        out.uint(3).bytes(self.dek_root.as_bytes());
        out.uint(4).array(self.extents.len());
        for stored in &self.extents {
            write_extent_fields(out.array(5), &stored.extent).uint(stored.stored);
        }
        out.uint(5).bytes(&self.tail);
        out.uint(6).array(3).text(self.hash.algorithm().as_str());
        out.bytes(&self.hash.chain).bytes(&self.hash.rest);
        out.uint(7).uint(self.created);
        out.uint(8).uint(self.touched);
        out.uint(9).bytes(&self.revision);
        out.uint(10).bytes(&self.owner);
        out.uint(11).uint(self.horizon);
        if let Some(digest) = &self.committing {
            out.uint(12).array(2).text(digest.algorithm().as_str()).bytes(digest.as_bytes());
        }
        out.finish()
    }

    /// Reads a content. It authenticated, but its writer may still be wrong: nothing is taken on trust.
    fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(content)?;
        input.map("the session's map")?;
        input.key(1, "field 1")?;
        let wraps = input.list(Wrap::MIN_ENCODED_LEN, MAX_WRAPS, "the wraps", read_wrap)?;
        input.key(2, "field 2")?;
        let blob = BlobId::from_bytes(input.fixed("the blob id")?);
        input.key(3, "field 3")?;
        let dek_root = RootId::from_bytes(input.fixed("the DEK's root id")?);
        input.key(4, "field 4")?;
        let extents = input.list(MIN_ENCODED_EXTENT + 1, usize::MAX, "the extents", read_stored)?;
        input.key(5, "field 5")?;
        let tail = input.bytes("the tail")?.to_vec();
        let uploaded = extents.iter().try_fold(tail.len() as u64, |sum, stored| {
            sum.checked_add(stored.extent.len).ok_or(DecodeError::Malformed("the extents' lengths"))
        })?;
        input.key(6, "field 6")?;
        input.exact_array(3, "the hash state")?;
        let hash = HashState {
            algorithm: read_algorithm(&mut input)?,
            len: uploaded,
            chain: input.bytes("the hash state's chain")?.to_vec(),
            rest: input.bytes("the hash state's rest")?.to_vec(),
        };
        input.key(7, "field 7")?;
        let created = input.uint("the creation time")?;
        input.key(8, "field 8")?;
        let touched = input.uint("the time of the last write")?;
        input.key(9, "field 9")?;
        let revision = input.fixed("the revision")?;
        input.key(10, "field 10")?;
        let owner = input.bytes("the owner")?.to_vec();
        input.key(11, "field 11")?;
        let horizon = input.uint("the horizon")?;
        let committing = if input.optional_key(12) {
            input.exact_array(2, "the digest")?;
            let algorithm = read_algorithm(&mut input)?;
            let digest = Digest::from_bytes(algorithm, input.bytes("the digest")?);
            Some(digest.ok_or(DecodeError::Malformed("the digest"))?)
        } else {
            None
        };
        input.finish()?;
        let record = Self {
            wraps,
            blob,
            dek_root,
            extents,
            tail,
            hash,
            created,
            touched,
            revision,
            owner,
            horizon,
            committing,
        };
        record.check()?;
        require_canonical(content, &record.encode())?;
        Ok(record)
    }

    /// FORMAT-U3.
    fn check(&self) -> Result<(), InvalidRecord> {
        check_wraps(&self.wraps)?;
        check_extents(self.extents.iter().map(|stored| &stored.extent))?;
        require(self.tail.len() <= MAX_TAIL_LEN, "a session's tail is at most 64 KiB")?;
        let uploaded = self
            .extents
            .iter()
            .try_fold(self.tail.len() as u64, |sum, stored| sum.checked_add(stored.extent.len));
        require(
            uploaded == Some(self.hash.len()) && Hasher::resume(&self.hash).is_some(),
            "the hash state stands after what was uploaded",
        )?;
        require(self.owner.len() <= MAX_OWNER_LEN, "an owner is at most 1024 bytes")?;
        let times = [self.created, self.touched, self.horizon];
        let mut times = self.extents.iter().map(|stored| stored.stored).chain(times);
        require(times.all(|time| time <= MAX_TIME), "a time is before the year 10000")
    }
}

fn read_algorithm(input: &mut Reader<'_>) -> Result<Algorithm, DecodeError> {
    input.text("the algorithm")?.parse().map_err(|_| DecodeError::Malformed("the algorithm"))
}

fn read_stored(input: &mut Reader<'_>) -> Result<StoredExtent, DecodeError> {
    input.exact_array(5, "an extent")?;
    Ok(StoredExtent { extent: read_extent_fields(input)?, stored: input.uint("when an extent was stored")? })
}

/// The tail is the customer's data: its length is shown, never its bytes.
impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("blob", &self.blob)
            .field("offset", &self.offset())
            .field("extents", &self.extents.len())
            .field("tail_len", &self.tail.len())
            .field("created", &self.created)
            .field("touched", &self.touched)
            .field("committing", &self.committing)
            .finish_non_exhaustive()
    }
}

/// Why an object is not the session that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenSessionError {
    /// Not an object of this format and version, or its content is not a session's.
    #[error("object can't be decoded")]
    Decode(#[from] DecodeError),
    /// Of another store or root.
    #[error("object belongs to another store or root")]
    Foreign,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenObjectError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::MAX_OBJECT_LEN;
    use crate::cobblestone::Header;
    use crate::ids::{ExtentName, StoreId};
    use crate::secret::Root;

    /// Of everything the most, and every number as long as it gets.
    #[test]
    fn the_longest_session_fits_one_object() {
        let numbered = |number: usize| {
            let mut bytes = [0xff; 24];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        let extents: Vec<StoredExtent> = (0..MAX_EXTENTS)
            .map(|number| StoredExtent {
                extent: Extent {
                    name: ExtentName::from_slice(&numbered(number)[..16]).unwrap(),
                    len: (1 << 32) + 1,
                    header: Header { salt: numbered(number), commitment: [2; 32] },
                },
                stored: MAX_TIME,
            })
            .collect();
        let len = extents.iter().map(|stored| stored.extent.len).sum::<u64>() + MAX_TAIL_LEN as u64;
        let wrap = |number: usize| Wrap {
            kid: format!("{number}{}", "k".repeat(511)),
            alg: "a".repeat(32),
            value: vec![1; 1024],
        };
        let hash = HashState {
            algorithm: Algorithm::Sha512,
            len,
            chain: vec![3; 64],
            rest: vec![4; usize::try_from(len % 128).unwrap()],
        };
        let record = SessionRecord {
            wraps: (0..MAX_WRAPS).map(wrap).collect(),
            blob: BlobId::from_bytes([5; 16]),
            dek_root: RootId::from_bytes([6; 16]),
            extents,
            tail: vec![7; MAX_TAIL_LEN],
            hash,
            created: MAX_TIME,
            touched: MAX_TIME,
            revision: [8; 16],
            owner: vec![9; MAX_OWNER_LEN],
            horizon: MAX_TIME,
            committing: Digest::from_bytes(Algorithm::Sha512, &[10; 64]),
        };
        let (crypto, key) = (CryptoProvider::rust_crypto(), Root::from_slice(&[1; 32]).unwrap().upload_key());
        let header =
            EnvelopeHeader { store: StoreId::from_bytes([11; 16]), root: RootId::from_bytes([6; 16]) };
        let id = SessionId::from_bytes([12; 16]);
        let object = record.seal(crypto, &key, header, &id, [13; 24]).unwrap();
        assert!(object.len() <= MAX_OBJECT_LEN, "{} bytes", object.len());
        assert_eq!(SessionRecord::open(crypto, &key, header, &id, &object).unwrap(), record);
    }
}
