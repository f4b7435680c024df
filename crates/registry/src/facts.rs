//! The registry's meta objects: their kinds, their paths, and what they say.
//!
//! ```text
//! repository   repository                        {}                            there from the first push on, for good
//! link         repository, digest                {size}                        the repository may serve this blob
//! manifest     repository, digest                {mediaType, size} LF bytes    without bytes: in the blob of that digest;
//!                                                                              pending: not there yet
//! tag          repository, tag                   {digest}
//! referrer     repository, subject, digest       a descriptor                  what the referrers API lists
//! ```
//!
//! Payloads are JSON; fields that a reader does not know are ignored, so that later versions may add some. They are bytes of
//! the bucket: sealed, but written by nodes of any version, so that decoding is total.

use std::collections::BTreeMap;

use bulla::{Digest, MetaEntry, MetaKind};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{RegistryError, Result};

/// A repository that was pushed to.
pub const REPOSITORY: MetaKind = MetaKind::new("repository", 1);
/// A blob that a repository may serve.
pub const LINK: MetaKind = MetaKind::new("link", 2);
/// A manifest.
pub const MANIFEST: MetaKind = MetaKind::new("manifest", 2);
/// A tag.
pub const TAG: MetaKind = MetaKind::new("tag", 2);
/// A manifest that has a subject, below that subject.
pub const REFERRER: MetaKind = MetaKind::new("referrer", 3);

/// The longest payload of a manifest that has its bytes inside; those of longer ones are in a blob. The engine takes 64 KiB.
pub(crate) const MAX_INLINE: usize = 60 << 10;

/// What a [`LINK`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkFact {
    /// The blob's length in bytes.
    pub size: u64,
}

/// What a [`MANIFEST`] says before its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ManifestFact {
    /// As it was pushed.
    pub media_type: String,
    /// The manifest's length in bytes.
    pub size: u64,
    /// It is being put: for nobody there yet, but what it needs stays.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pending: bool,
}

/// What a [`TAG`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TagFact {
    /// The manifest's.
    #[serde(with = "text")]
    pub digest: Digest,
}

/// A manifest as the referrers API lists it, and what a [`REFERRER`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Descriptor {
    /// The manifest's.
    pub media_type: String,
    /// The manifest's.
    #[serde(with = "text")]
    pub digest: Digest,
    /// The manifest's length in bytes.
    pub size: u64,
    /// What it is; of an image without it, its configuration's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifest's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A [`Descriptor`] as it is stored: without annotations where they would not fit.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReferrerFact {
    #[serde(flatten)]
    pub(crate) descriptor: Descriptor,
    /// The annotations are in the manifest only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) cut: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A fact's payload.
pub(crate) fn encode(fact: &impl Serialize) -> Bytes {
    serde_json::to_vec(fact).expect("facts have string keys only").into()
}

/// What `entry` says.
///
/// # Errors
/// `UNKNOWN` where it is not as this registry writes it.
pub fn decode<T: DeserializeOwned>(entry: &MetaEntry) -> Result<T> {
    serde_json::from_slice(&entry.payload).map_err(|_| RegistryError::damaged(entry.path.join(" ")))
}

/// `{…} LF bytes`, or without bytes where that is too long.
pub(crate) fn encode_manifest(fact: &ManifestFact, bytes: &[u8]) -> (Bytes, bool) {
    let mut payload = serde_json::to_vec(fact).expect("facts have string keys only");
    payload.push(b'\n');
    let fits = payload.len() + bytes.len() <= MAX_INLINE;
    if fits {
        payload.extend_from_slice(bytes);
    }
    (payload.into(), fits)
}

/// What a [`MANIFEST`] entry says, and its bytes if they are inside.
///
/// # Errors
/// `UNKNOWN` where it is not as this registry writes it.
pub fn decode_manifest(entry: &MetaEntry) -> Result<(ManifestFact, Option<Bytes>)> {
    let damaged = || RegistryError::damaged(entry.path.join(" "));
    // JSON of one line has no line feed inside.
    let end = entry.payload.iter().position(|&byte| byte == b'\n').ok_or_else(damaged)?;
    let fact: ManifestFact = serde_json::from_slice(&entry.payload[..end]).map_err(|_| damaged())?;
    let bytes = entry.payload.slice(end + 1..);
    if bytes.len() as u64 == fact.size {
        return Ok((fact, Some(bytes)));
    }
    if bytes.is_empty() { Ok((fact, None)) } else { Err(damaged()) }
}

/// Whatever has a text, as that.
mod text {
    use std::borrow::Cow;
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
