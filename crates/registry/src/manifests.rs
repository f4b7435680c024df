//! Manifests of a repository: what all that it needs is there for, as long as it is there itself.

mod put;

use bulla::{Digest, ErrorKind, MetaEntry};
use bytes::Bytes;

pub(crate) use self::put::too_long;
use crate::error::{ErrorCode, RegistryError, Result};
use crate::facts::{MANIFEST, ManifestFact, decode_manifest};
use crate::manifest::Parsed;
use crate::name::{Reference, Tag};
use crate::registry::Repository;
use crate::tags::Replaces;

/// A manifest to put.
#[derive(Clone, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "what a client says")]
pub struct PutManifest {
    /// What its digest must be; also chooses the algorithm. Without it the manifest is named by SHA-256.
    pub digest: Option<Digest>,
    /// What it is called from then on.
    pub tags: Vec<Tag>,
    /// What the first of these must name until then. The manifest is put all the same.
    pub replaces: Replaces,
    /// What the client says that it is.
    pub media_type: Option<String>,
    /// It, byte for byte.
    pub bytes: Bytes,
}

/// What putting a manifest did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutManifestResult {
    /// Its name.
    pub digest: Digest,
    /// The manifest that it is about, below which it is listed now.
    pub subject: Option<Digest>,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// Its name.
    pub digest: Digest,
    /// As it was pushed.
    pub media_type: String,
    /// It, byte for byte.
    pub bytes: Bytes,
}

/// What is known of a manifest without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestStat {
    /// Its name.
    pub digest: Digest,
    /// As it was pushed.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A manifest's entry as it was read.
struct Found {
    entry: MetaEntry,
    fact: ManifestFact,
    /// `None`: they are a blob.
    bytes: Option<Bytes>,
}

impl Repository {
    /// A manifest, if the repository has it.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now; `UNKNOWN` where it is damaged.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        let Some((digest, found)) = self.find(reference).await? else { return Ok(None) };
        let bytes = match found.bytes {
            Some(bytes) => bytes,
            None => self.long_bytes(&digest, found.fact.size).await?,
        };
        Ok(Some(Manifest { digest, media_type: found.fact.media_type, bytes }))
    }

    /// What is known of a manifest, for who then relies on it: it stays for at least half of gc's grace, as far as gc removes
    /// manifests at all.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stat_manifest(&self, reference: &Reference) -> Result<Option<ManifestStat>> {
        let Some((digest, Found { entry, fact, .. })) = self.find(reference).await? else { return Ok(None) };
        let name = digest.to_string();
        let path = [self.name().as_str(), &name];
        match self.registry().touch(MANIFEST, &path, entry).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            // Nobody need be able to write here to pull; who pushes looks again.
            Err(error) if error.code() == ErrorCode::Unavailable => {
                tracing::warn!(%error, %digest, "a manifest that was asked for can't be kept from gc");
            }
            Err(error) => return Err(error),
        }
        Ok(Some(ManifestStat { digest, media_type: fact.media_type, size: fact.size }))
    }

    /// Removes a manifest with its tags, and from the referrers of its subject. Whether it was there.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// A dropped call may have removed some of it; call it again.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        let reference = Reference::Digest(digest.clone());
        let subject = match self.manifest(&reference).await {
            Ok(None) => {
                // Who was interrupted is here again.
                self.untag_deleted(digest).await?;
                return Ok(false);
            }
            // One that an earlier version took is removed all the same.
            Ok(Some(manifest)) => Parsed::new(Some(&manifest.media_type), &manifest.bytes)
                .ok()
                .and_then(|parsed| parsed.subject),
            // It can be removed all the same.
            Err(error) if error.code() == ErrorCode::Unknown => None,
            Err(error) => return Err(error),
        };
        let removed = self.registry().remove(MANIFEST, &[self.name().as_str(), &digest.to_string()]).await?;
        if let Some(subject) = subject {
            self.remove_referrer(&subject, digest).await?;
        }
        self.untag_deleted(digest).await?;
        Ok(removed)
    }

    /// Whether the repository has the manifest, which then stays for at least half of the grace. One that is damaged is not
    /// there, so that it is pushed again, which repairs it.
    pub(crate) async fn rely_on_manifest(&self, digest: &Digest) -> Result<bool> {
        let found = match self.found(digest).await {
            Err(error) if error.code() == ErrorCode::Unknown => {
                tracing::error!(%error, "a damaged manifest is taken for none");
                return Ok(false);
            }
            found => found?,
        };
        let Some(Found { entry, .. }) = found else { return Ok(false) };
        let name = digest.to_string();
        match self.registry().touch(MANIFEST, &[self.name().as_str(), &name], entry).await? {
            // Somebody may have written it anew.
            Some(entry) => Ok(decode_manifest(&entry).is_ok_and(|(fact, _)| !fact.pending)),
            None => Ok(false),
        }
    }

    /// Whether the repository has the manifest.
    pub(crate) async fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        match self.found(digest).await {
            // It is there to be deleted, or to be pushed again.
            Err(error) if error.code() == ErrorCode::Unknown => Ok(true),
            found => Ok(found?.is_some()),
        }
    }

    async fn found(&self, digest: &Digest) -> Result<Option<Found>> {
        let path = [self.name().as_str(), &digest.to_string()];
        let Some(entry) = self.store().meta().get(MANIFEST, &path).await? else { return Ok(None) };
        let (fact, bytes) = decode_manifest(&entry)?;
        Ok((!fact.pending).then_some(Found { entry, fact, bytes }))
    }

    async fn find(&self, reference: &Reference) -> Result<Option<(Digest, Found)>> {
        let mut before = None;
        loop {
            let digest = match reference {
                Reference::Digest(digest) => digest.clone(),
                Reference::Tag(tag) => match self.tag(tag).await? {
                    Some(digest) => digest,
                    None => return Ok(None),
                },
            };
            if let Some(found) = self.found(&digest).await? {
                return Ok(Some((digest, found)));
            }
            // The tag may have been moved, and its old manifest removed, between the two reads.
            if before.as_ref() == Some(&digest) || matches!(reference, Reference::Digest(_)) {
                return Ok(None);
            }
            before = Some(digest);
        }
    }

    /// The bytes of a manifest that are not in its entry.
    pub(crate) async fn long_bytes(&self, digest: &Digest, size: u64) -> Result<Bytes> {
        let damaged = || RegistryError::damaged(format!("the manifest {digest}"));
        let blob = match self.store().get(digest).await {
            Ok(blob) => blob,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged()),
            Err(error) => return Err(error.into()),
        };
        if blob.size() != size {
            return Err(damaged());
        }
        Ok(blob.bytes().await?)
    }
}
