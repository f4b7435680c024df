//! Meta objects: small facts about the store's contents, such as a registry's repositories and tags, found by their names.
//!
//! ```text
//! key     = meta/<root id>/<kind>/<sealed name>/…              each name sealed for its kind and the path above it
//! object  = a small sealed object of that kind, whose name is its key
//! content = [path: [name…], nonce, payload]
//! ```
//!
//! The key stands for the names in the sealing context, because a name that is too long to be sealed into its component
//! (FORMAT-N2) is known only after opening. The names inside must give the key again. FORMAT.md §10.
//!
//! This module refuses to know what payloads mean.

#![deny(clippy::indexing_slicing)]

use core::fmt;

use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require, require_canonical};
use crate::crypto::CryptoProvider;
use crate::envelope::EnvelopeHeader;
use crate::ids::RootId;
use crate::job::JOB_KIND;
use crate::names::BLOB_KIND;
use crate::object::{MAX_KIND_LEN, OpenObjectError, SealedObject};
use crate::secret::{MetaKey, NameKey};
use crate::session::UPLOAD_KIND;

/// The largest payload, in bytes: 64 KiB. What is larger belongs in a blob.
pub const MAX_PAYLOAD_LEN: usize = 65_536;
/// Names in a path: 1 to 4, so that no key is longer than 900 bytes.
pub const MAX_PATH_LEN: usize = 4;
/// Bytes in a name: 1 to 1024.
pub const MAX_NAME_LEN: usize = 1024;

/// A kind of meta object: its name, and how many names its paths have.
///
/// The name is readable in the bucket, the names in the paths are not. All paths of a kind are equally long, so no object's
/// key is the directory of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MetaKind {
    name: &'static str,
    depth: usize,
}

impl MetaKind {
    /// The kind `name`, with paths of `depth` names.
    ///
    /// ```
    /// use bulla_envelope::meta::MetaKind;
    /// /// Repository and tag.
    /// const TAG: MetaKind = MetaKind::new("tag", 2);
    /// # assert_eq!((TAG.name(), TAG.depth()), ("tag", 2));
    /// ```
    ///
    /// # Panics
    ///
    /// If the name is not 1 to 32 of `a–z`, `0–9` and `-`, or is `blob`, `job` or `upload`; if the depth is not 1 to
    /// [`MAX_PATH_LEN`]. In a constant, that is a compile-time error.
    #[must_use]
    pub const fn new(name: &'static str, depth: usize) -> Self {
        assert!(is_kind(name.as_bytes()), "a kind of meta objects is 1 to 32 of a-z, 0-9 and -");
        assert!(
            !same(name, BLOB_KIND) && !same(name, JOB_KIND) && !same(name, UPLOAD_KIND),
            "this kind is the engine's own"
        );
        assert!(depth >= 1 && depth <= MAX_PATH_LEN, "a path has 1 to 4 names");
        Self { name, depth }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How many names its paths have.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }
}

const fn is_kind(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, after @ ..] = rest {
        if !matches!(first, b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        rest = after;
    }
    !name.is_empty() && name.len() <= MAX_KIND_LEN
}

const fn same(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let ([x, rest_a @ ..], [y, rest_b @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.is_empty() && b.is_empty()
}

impl NameKey {
    /// `meta/<root id>/<kind>` and a component for every name of `path`: the key of a meta object, or the directory of
    /// those whose paths begin so. The name key is that of the kind. FORMAT-M1.
    #[must_use]
    pub fn meta_key(&self, root: &RootId, kind: MetaKind, path: &[&str]) -> String {
        let mut key = format!("meta/{root}/{}", kind.name);
        for name in path {
            let component = self.seal_name(kind.name, &key, name.as_bytes());
            key.push('/');
            key.push_str(&component);
        }
        key
    }
}

/// A meta object's content.
#[derive(Clone, PartialEq, Eq)]
pub struct MetaRecord {
    /// The names that it is found by.
    pub path: Vec<String>,
    /// Drawn anew for every write, so that a writer recognises its own.
    pub nonce: [u8; 16],
    /// What the object says.
    pub payload: Vec<u8>,
}

impl MetaRecord {
    /// The object's bytes, for its key: FORMAT-M2.
    ///
    /// `salt` must be fresh random bytes on every call, an attempt that failed before included.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if path or payload break a rule.
    pub fn seal(
        &self,
        crypto: &'static CryptoProvider,
        keys: MetaKeys<'_>,
        header: EnvelopeHeader,
        kind: MetaKind,
        salt: [u8; 24],
    ) -> Result<Vec<u8>, InvalidRecord> {
        self.check(kind)?;
        let key = self.key(keys.names, &header.root, kind);
        let content = self.encode();
        let object =
            SealedObject::seal(crypto, keys.meta, header, kind.name, key.as_bytes(), &content, salt)?;
        Ok(object.encode())
    }

    /// Reads and opens what is stored at `key`, of the store and root in `header`: FORMAT-M3.
    ///
    /// # Errors
    ///
    /// [`OpenMetaError`]: the object is damaged, foreign, or of another place.
    pub fn open(
        crypto: &'static CryptoProvider,
        keys: MetaKeys<'_>,
        header: EnvelopeHeader,
        kind: MetaKind,
        key: &str,
        object: &[u8],
    ) -> Result<Self, OpenMetaError> {
        let object = SealedObject::decode(object)?;
        if object.header != header {
            return Err(OpenMetaError::Foreign);
        }
        let content = object.open(crypto, keys.meta, kind.name, key.as_bytes())?;
        let record = Self::decode(&content)?;
        record.check(kind).map_err(DecodeError::from)?;
        if record.key(keys.names, &header.root, kind) != key {
            return Err(OpenMetaError::WrongPath);
        }
        Ok(record)
    }

    fn key(&self, names: &NameKey, root: &RootId, kind: MetaKind) -> String {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        names.meta_key(root, kind, &path)
    }

    fn encode(&self) -> Vec<u8> {
        let names: usize = self.path.iter().map(|name| 8 + name.len()).sum();
        let mut out = Writer::new(64 + names + self.payload.len());
        out.array(3).array(self.path.len());
        for name in &self.path {
            out.text(name);
        }
        out.bytes(&self.nonce).bytes(&self.payload);
        out.finish()
    }

    fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(content)?;
        input.exact_array(3, "the meta object's array")?;
        let path = input.list(1, MAX_PATH_LEN, "the path", |input| Ok(input.text("a name")?.to_owned()))?;
        let nonce = input.fixed("the nonce")?;
        let payload = input.bytes("the payload")?.to_vec();
        input.finish()?;
        let record = Self { path, nonce, payload };
        require_canonical(content, &record.encode())?;
        Ok(record)
    }

    fn check(&self, kind: MetaKind) -> Result<(), InvalidRecord> {
        require(self.path.len() == kind.depth, "a path has as many names as its kind says")?;
        self.path.iter().try_for_each(|name| check_name(name))?;
        require(
            self.payload.len() <= MAX_PAYLOAD_LEN,
            "a payload is at most 64 KiB; what is larger is a blob",
        )
    }
}

/// Whether `name` may stand in a path.
///
/// # Errors
///
/// [`InvalidRecord`] if it is empty or longer than [`MAX_NAME_LEN`].
pub fn check_name(name: &str) -> Result<(), InvalidRecord> {
    require((1..=MAX_NAME_LEN).contains(&name.len()), "a name is 1 to 1024 bytes")
}

/// The keys that one kind of meta objects needs.
#[derive(Clone, Copy, Debug)]
pub struct MetaKeys<'a> {
    /// Seals the objects.
    pub meta: &'a MetaKey,
    /// Seals the names; that of the kind.
    pub names: &'a NameKey,
}

/// Names and payload are the customer's: their lengths are shown.
impl fmt::Debug for MetaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaRecord")
            .field("names", &self.path.len())
            .field("payload_len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Why an object is not the meta object that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenMetaError {
    /// Not an object of this format and version, or its content is not a meta object's.
    #[error("object can't be decoded")]
    Decode(#[from] DecodeError),
    /// Of another store or root.
    #[error("object belongs to another store or root")]
    Foreign,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenObjectError),
    /// It opens, but the names inside do not give its key: its writer is broken.
    #[error("object holds the names of another key")]
    WrongPath,
}
