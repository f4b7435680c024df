//! Small sealed objects beside envelopes and log: facts about the store's contents, and jobs.
//!
//! ```text
//! object = [1, header: bstr, sealed: bstr]                                   deterministic CBOR
//! sealed = Cobblestone-256.Seal(meta key, label ‖ header ‖ kind ‖ name, {1: kind, 2: name, 3: content})
//! ```
//!
//! An object opens only as the kind and name it was sealed for. That it is the *newest* of that name, nothing here can
//! say: whoever writes the bucket can put an older one back. FORMAT.md §10.
//!
//! This module refuses to know what the content means, and where objects are stored.

#![deny(clippy::indexing_slicing)]

use zeroize::Zeroizing;

use crate::cbor::{
    DecodeError, InvalidRecord, MAX_OBJECT_LEN, Reader, VERSION, Writer, require, require_canonical,
};
use crate::crypto::CryptoProvider;
use crate::envelope::EnvelopeHeader;
use crate::secret::MetaKey;
use crate::{cobblestone, context};

/// Bytes in a kind: 1 to 32, printable ASCII.
pub const MAX_KIND_LEN: usize = 32;

/// A small sealed object as it is stored.
///
/// A decoded object is well-formed, nothing more: only [`SealedObject::open`] authenticates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedObject {
    /// Which store and root it belongs to; authenticated when it opens.
    pub header: EnvelopeHeader,
    /// Kind, name and content, sealed.
    pub sealed: Vec<u8>,
}

impl SealedObject {
    /// Seals `content` as the object `name` of a kind: FORMAT-J1.
    ///
    /// `salt` must be fresh random bytes on every call, an attempt that failed before included.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if the kind is not 1 to 32 printable ASCII characters, or if the object would be larger than
    /// [`MAX_OBJECT_LEN`].
    pub fn seal(
        crypto: &'static CryptoProvider,
        key: &MetaKey,
        header: EnvelopeHeader,
        kind: &str,
        name: &[u8],
        content: &[u8],
        salt: [u8; 24],
    ) -> Result<Self, InvalidRecord> {
        let context = context::meta_context(&header.encode(), kind, name);
        Self::seal_in(crypto, key.expose(), &context, header, (kind, name, content), salt)
    }

    /// As [`seal`](Self::seal), under any key and context.
    pub(crate) fn seal_in(
        crypto: &'static CryptoProvider,
        key: &[u8; 32],
        context: &[u8],
        header: EnvelopeHeader,
        (kind, name, content): (&str, &[u8], &[u8]),
        salt: [u8; 24],
    ) -> Result<Self, InvalidRecord> {
        require(
            (1..=MAX_KIND_LEN).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_graphic()),
            "a kind is 1 to 32 printable characters",
        )?;
        let plaintext = Zeroizing::new(encode_inside(kind, name, content));
        let sealed = cobblestone::seal(crypto, key, context, salt, &plaintext);
        let object = Self { header, sealed };
        require(object.encode().len() <= MAX_OBJECT_LEN, "an object is at most 1 MiB")?;
        Ok(object)
    }

    /// Opens the content *as the object `name` of `kind`*.
    ///
    /// # Errors
    ///
    /// [`OpenObjectError`]: the object is damaged, foreign, or of another place.
    pub fn open(
        &self,
        crypto: &'static CryptoProvider,
        key: &MetaKey,
        kind: &str,
        name: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenObjectError> {
        let context = context::meta_context(&self.header.encode(), kind, name);
        self.open_in(crypto, key.expose(), &context, kind, name)
    }

    /// As [`open`](Self::open), under any key and context.
    pub(crate) fn open_in(
        &self,
        crypto: &'static CryptoProvider,
        key: &[u8; 32],
        context: &[u8],
        kind: &str,
        name: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenObjectError> {
        let plaintext = cobblestone::open(crypto, key, context, &self.sealed)
            .map_err(|_| OpenObjectError::NotAuthentic)?;
        let plaintext = Zeroizing::new(plaintext);
        let (found_kind, found_name, content) =
            decode_inside(&plaintext).map_err(OpenObjectError::Content)?;
        // The context has bound both already; a writer that mixes them up must not go unnoticed.
        if found_kind != kind || found_name != name {
            return Err(OpenObjectError::WrongName);
        }
        Ok(Zeroizing::new(content.to_vec()))
    }

    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header = self.header.encode();
        let mut out = Writer::new(32 + header.len() + self.sealed.len());
        out.array(3).uint(VERSION).bytes(&header).bytes(&self.sealed);
        out.finish()
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything but the deterministic encoding of a well-formed object of this version.
    pub fn decode(object: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(object)?;
        if input.versioned_array()? != 3 {
            return Err(DecodeError::Malformed("the object's array"));
        }
        let header = EnvelopeHeader::decode(input.bytes("the header")?)?;
        let sealed = input.bytes("what is sealed")?.to_vec();
        input.finish()?;
        require(
            cobblestone::plaintext_len(u64::try_from(sealed.len()).unwrap_or(u64::MAX)).is_some(),
            "what is sealed is a whole message",
        )?;
        let decoded = Self { header, sealed };
        require_canonical(object, &decoded.encode())?;
        Ok(decoded)
    }
}

fn encode_inside(kind: &str, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = Writer::new(32 + kind.len() + name.len() + content.len());
    out.map(3);
    out.uint(1).text(kind);
    out.uint(2).bytes(name);
    out.uint(3).bytes(content);
    out.finish()
}

fn decode_inside(plaintext: &[u8]) -> Result<(&str, &[u8], &[u8]), DecodeError> {
    let mut input = Reader::new(plaintext)?;
    if input.map("the object's map")? != 3 {
        return Err(DecodeError::Malformed("the object's map"));
    }
    input.key(1, "field 1")?;
    let kind = input.text("the kind")?;
    input.key(2, "field 2")?;
    let name = input.bytes("the name")?;
    input.key(3, "field 3")?;
    let content = input.bytes("the content")?;
    input.finish()?;
    require_canonical(plaintext, &encode_inside(kind, name, content))?;
    Ok((kind, name, content))
}

/// Why an object does not open as the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenObjectError {
    /// The sealed part does not open under this key, header, kind and name; which of them is wrong can't be told.
    #[error("object does not open under its name")]
    NotAuthentic,
    /// It opens, but what is inside is not of this format: its writer is broken.
    #[error("object holds nothing of this format")]
    Content(#[source] DecodeError),
    /// It opens, but says another kind or name inside: its writer is broken.
    #[error("object holds another name")]
    WrongName,
}
