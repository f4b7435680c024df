//! The envelope: a blob's wrapped key and, sealed, what the blob is. Its existence is what makes a blob exist.
//!
//! ```text
//! object = [1, header: bstr, wraps: [[kid, alg, value]…], sealed: bstr]        deterministic CBOR
//! header = ["Cobblestone-256", store id, root id]
//! sealed = Cobblestone-256.Seal(EK, label ‖ header ‖ algorithm ‖ digest, blob record)
//! EK     = HKDF-SHA-512(salt = envelope key, IKM = DEK, info = label)
//! ```
//!
//! So an envelope can be made or changed only with the root *and* the DEK, and opens only as the digest that
//! it was sealed for. `wraps` is outside: rewrapping changes nothing else. FORMAT.md §6.
//!
//! This module refuses to know who unwraps a [`Wrap`], and where envelopes are stored.

mod blob_record;
mod wrap;

use zeroize::Zeroizing;

pub use self::blob_record::{BlobRecord, Extent, MAX_INLINE_LEN};
pub(crate) use self::blob_record::{
    MAX_TIME, MIN_ENCODED_EXTENT, check_extents, read_extent_fields, write_extent_fields,
};
pub use self::wrap::{MAX_ALG_LEN, MAX_KID_LEN, MAX_WRAP_LEN, MAX_WRAPS, STORE_KEY_PREFIX, Wrap};
pub(crate) use self::wrap::{
    all_different, check_alg, check_kek_kid, check_text, check_wraps, read_wrap, write_wrap,
};
use crate::cbor::{
    DecodeError, InvalidRecord, MAX_OBJECT_LEN, Reader, VERSION, Writer, require, require_canonical,
};
use crate::crypto::CryptoProvider;
use crate::digest::Digest;
use crate::ids::{RootId, StoreId};
use crate::secret::{Dek, EnvelopeKey};
use crate::{cobblestone, context};

/// The only suite of this version.
const SUITE: &str = "Cobblestone-256";

/// An envelope as it is stored.
///
/// A decoded envelope is well-formed, nothing more: only [`Envelope::open`] authenticates it, and what it
/// says in `header` and `wraps` is a hint until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which store and root it belongs to; authenticated when it opens.
    pub header: EnvelopeHeader,
    /// The DEK, wrapped, under 1 to [`MAX_WRAPS`] keys. Authenticated only by opening to the right DEK.
    pub wraps: Vec<Wrap>,
    /// The [`BlobRecord`], sealed.
    pub sealed: Vec<u8>,
}

/// The part of an envelope that is readable without any key and bound to the sealed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// The store.
    pub store: StoreId,
    /// The root from which the envelope key is derived. (The DEK may be older: [`BlobRecord::dek_root`].)
    pub root: RootId,
}

impl Envelope {
    /// Seals `record` for the digest in it: FORMAT-E5.
    ///
    /// `salt` must be fresh random bytes on every call, an attempt that failed before included.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if the record or a wrap breaks a rule, or if the object would be larger than
    /// [`MAX_OBJECT_LEN`] (too many extents): the caller has to make it differently.
    pub fn seal(
        crypto: &'static CryptoProvider,
        key: &EnvelopeKey,
        header: EnvelopeHeader,
        wraps: Vec<Wrap>,
        dek: &Dek,
        record: &BlobRecord,
        salt: [u8; 24],
    ) -> Result<Self, InvalidRecord> {
        record.check()?;
        check_wraps(&wraps)?;
        let plaintext = Zeroizing::new(record.encode());
        let context = context::envelope_context(&header.encode(), &record.digest);
        let sealing_key = key.with_dek(dek);
        let sealed = cobblestone::seal(crypto, sealing_key.expose(), &context, salt, &plaintext);
        let envelope = Self { header, wraps, sealed };
        require(envelope.encode().len() <= MAX_OBJECT_LEN, "an envelope is at most 1 MiB")?;
        Ok(envelope)
    }

    /// Opens the sealed record *as the envelope of `requested`*: FORMAT-E6.
    ///
    /// The digest asked for is part of the sealing context, and is compared again with the one inside; lengths
    /// inside have been checked against each other. So the record returned is the one that a holder of the
    /// root and the DEK sealed for exactly this digest, store and root.
    ///
    /// # Errors
    ///
    /// [`OpenEnvelopeError`]; none of them says anything about the KEK.
    pub fn open(
        &self,
        crypto: &'static CryptoProvider,
        key: &EnvelopeKey,
        dek: &Dek,
        requested: &Digest,
    ) -> Result<BlobRecord, OpenEnvelopeError> {
        let context = context::envelope_context(&self.header.encode(), requested);
        let sealing_key = key.with_dek(dek);
        let plaintext = cobblestone::open(crypto, sealing_key.expose(), &context, &self.sealed)
            .map_err(|_| OpenEnvelopeError::NotAuthentic)?;
        let record = BlobRecord::decode(&plaintext).map_err(OpenEnvelopeError::Record)?;
        if record.digest != *requested {
            return Err(OpenEnvelopeError::WrongDigest);
        }
        Ok(record)
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let header = self.header.encode();
        let wraps: usize = self.wraps.iter().map(Wrap::encoded_len_at_most).sum();
        let mut out = Writer::new(32 + header.len() + wraps + self.sealed.len());
        out.array(4).uint(VERSION).bytes(&header).array(self.wraps.len());
        for wrap in &self.wraps {
            write_wrap(&mut out, wrap);
        }
        out.bytes(&self.sealed);
        out.finish()
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything but the deterministic encoding of a well-formed envelope of this version.
    pub fn decode(object: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(object)?;
        if input.versioned_array()? != 4 {
            return Err(DecodeError::Malformed("the envelope's array"));
        }
        let header = EnvelopeHeader::decode(input.bytes("the header")?)?;
        let wraps = input.list(Wrap::MIN_ENCODED_LEN, MAX_WRAPS, "the wraps", read_wrap)?;
        let sealed = input.bytes("the sealed record")?.to_vec();
        input.finish()?;
        check_wraps(&wraps)?;
        require(
            cobblestone::plaintext_len(u64::try_from(sealed.len()).unwrap_or(u64::MAX)).is_some(),
            "what is sealed is a whole message",
        )?;
        let envelope = Self { header, wraps, sealed };
        require_canonical(object, &envelope.encode())?;
        Ok(envelope)
    }
}

impl EnvelopeHeader {
    /// The header's bytes, as they go into the object and the sealing context.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(64);
        out.array(3).text(SUITE).bytes(self.store.as_bytes()).bytes(self.root.as_bytes());
        out.finish()
    }

    pub(crate) fn decode(header: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(header)?;
        let len = input.array("the header's array")?;
        let suite = input.text("the suite")?;
        check_text(suite, MAX_ALG_LEN, "a suite's name is 1 to 32 printable characters")?;
        if suite != SUITE {
            return Err(DecodeError::UnknownSuite(suite.to_owned()));
        }
        if len != 3 {
            return Err(DecodeError::Malformed("the header's array"));
        }
        let store = StoreId::from_bytes(input.fixed("the store id")?);
        let root = RootId::from_bytes(input.fixed("the root id")?);
        input.finish()?;
        let decoded = Self { store, root };
        require_canonical(header, &decoded.encode())?;
        Ok(decoded)
    }
}

/// Why an envelope does not open as the blob that was asked for.
///
/// Given that the keys are the store's, each means that this object is damaged or foreign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenEnvelopeError {
    /// The sealed part does not open under these keys, this header and this digest; which of them is wrong
    /// can't be told.
    #[error("envelope does not open as this blob")]
    NotAuthentic,
    /// It opens, but what is inside is not a blob record of this format: its writer is broken.
    #[error("envelope holds no valid blob record")]
    Record(#[source] DecodeError),
    /// It opens, but the record inside is of another digest: its writer is broken.
    #[error("envelope holds the record of another digest")]
    WrongDigest,
}
