//! Manifests of a repository. A manifest is put only when everything that it needs is there, and then all of that stays.
//!
//! ```text
//! rely on what it needs ─► long bytes ─► referrer ─► entry ─► referrer ─► tags ─► entry still there?
//!     └────────── again, if that took longer than a quarter of gc's grace ◄─┘             └─► again
//! ```
//!
//! Once the entry is there in time it is whole for as long as it is there; so who has tagged it only looks for it again.

use bulla::{Algorithm, Digest, ErrorKind, MetaEntry};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::error::{ErrorCode, RegistryError, Result};
use crate::facts::{Descriptor, MANIFEST, ManifestFact, decode_manifest, encode_manifest};
use crate::manifest::{Need, Parsed};
use crate::name::{Reference, Tag};
use crate::registry::Repository;
use crate::tags::Replaces;

/// What a manifest needs is looked for so much at once.
const READS: usize = 16;

/// So many that are missing are looked for and named.
const MAX_MISSING: usize = 100;

/// How often something slow is begun again.
const ATTEMPTS: usize = 3;

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

impl Repository {
    /// Puts a manifest and its tags. A subject need not be there.
    ///
    /// # Errors
    /// `MANIFEST_INVALID` where it breaks a rule of [`Parsed::new`]; `SIZE_INVALID` where it is too long; `DIGEST_INVALID`
    /// where it has another digest; `MANIFEST_BLOB_UNKNOWN` where something that it needs is not in this repository (push
    /// it first); `DENIED` where the first tag names what it must not; `UNAVAILABLE` where key or bucket can't be used now: put it
    /// again.
    ///
    /// # Cancel safety
    /// A dropped call may have put the manifest, and some of the tags.
    pub async fn put_manifest(&self, put: PutManifest) -> Result<PutManifestResult> {
        let PutManifest { digest, tags, replaces, media_type, bytes } = put;
        let longest = self.registry().options().max_manifest;
        if bytes.len() > longest {
            return Err(too_long(longest));
        }
        let algorithm = digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let computed = Digest::of(algorithm, &bytes);
        if let Some(claimed) = digest
            && claimed != computed
        {
            return Err(RegistryError::new(
                ErrorCode::DigestInvalid,
                format!("the manifest has digest {computed}, not {claimed} as claimed"),
            ));
        }
        let parsed = Parsed::new(media_type.as_deref(), &bytes)?;
        // Gc looks for manifests in the repositories that it knows of.
        self.ensure().await?;
        for _ in 0..ATTEMPTS {
            let started = self.registry().moment();
            let in_time = || self.registry().elapsed(&started) <= self.registry().patience();
            self.rely_on_all(&parsed.needs).await?;
            if !in_time() {
                continue;
            }
            self.write_manifest(&computed, &parsed, &bytes).await?;
            if !in_time() {
                continue;
            }
            let conditions = std::iter::once(&replaces).chain(std::iter::repeat(&Replaces::Anything));
            for (tag, replaces) in tags.iter().zip(conditions) {
                self.set_tag(tag, &computed, replaces).await?;
            }
            // If it went before gc or who deleted it could see the tags, they name nothing.
            if tags.is_empty() || self.rely_on_manifest(&computed).await? {
                return Ok(PutManifestResult { digest: computed, subject: parsed.subject });
            }
        }
        Err(RegistryError::busy(
            "the bucket is too slow for the grace of this registry's gc, or the manifest is deleted each time; try again",
        ))
    }

    /// A manifest, if the repository has it.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now; `UNKNOWN` where it is damaged.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        let Some((digest, entry)) = self.find(reference).await? else { return Ok(None) };
        let (fact, bytes) = decode_manifest(&entry)?;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => self.long_bytes(&digest, fact.size).await?,
        };
        Ok(Some(Manifest { digest, media_type: fact.media_type, bytes }))
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
        let Some((digest, entry)) = self.find(reference).await? else { return Ok(None) };
        let name = digest.to_string();
        let path = [self.name().as_str(), &name];
        let (fact, _) = decode_manifest(&entry)?;
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

    /// Whether the repository has the manifest, which then stays for at least half of the grace.
    pub(crate) async fn rely_on_manifest(&self, digest: &Digest) -> Result<bool> {
        let name = digest.to_string();
        let path = [self.name().as_str(), &name];
        Ok(self.registry().rely_on(MANIFEST, &path).await?.is_some())
    }

    async fn rely_on_all(&self, needs: &[Need]) -> Result<()> {
        let mut looked = stream::iter(needs.to_vec())
            .map(|need| {
                let repository = self.clone();
                async move { repository.rely_on(need).await }
            })
            .buffered(READS);
        let mut missing: Vec<String> = Vec::new();
        while let Some((digest, there)) = looked.try_next().await? {
            if !there {
                missing.push(digest.to_string());
            }
            // Who invents a hundred thousand of them need not be told of each.
            if missing.len() == MAX_MISSING {
                break;
            }
        }
        let Some(first) = missing.first() else { return Ok(()) };
        Err(RegistryError::new(
            ErrorCode::ManifestBlobUnknown,
            format!("{first} is not in this repository; push it first"),
        )
        .with_detail(json!(missing)))
    }

    /// Whether what a manifest needs is there.
    async fn rely_on(&self, need: Need) -> Result<(Digest, bool)> {
        let (digest, there) = match need {
            Need::Blob(digest) => {
                let there = self.keep_linked(&digest).await?;
                (digest, there)
            }
            Need::Manifest(digest) => {
                let there = self.rely_on_manifest(&digest).await? || self.keep_linked(&digest).await?;
                (digest, there)
            }
        };
        Ok((digest, there))
    }

    async fn write_manifest(&self, digest: &Digest, parsed: &Parsed, bytes: &Bytes) -> Result<()> {
        let size = bytes.len() as u64;
        let fact = ManifestFact { media_type: parsed.media_type.clone(), size };
        let (payload, fits) = encode_manifest(&fact, bytes);
        if !fits {
            self.put_unlinked(digest, bytes.clone()).await?;
        }
        let referrer = parsed.subject.as_ref().map(|subject| {
            let descriptor = Descriptor {
                media_type: parsed.media_type.clone(),
                digest: digest.clone(),
                size,
                artifact_type: parsed.artifact_type.clone(),
                annotations: parsed.annotations.clone(),
            };
            (subject, descriptor)
        });
        // First, so that no crash leaves a signature that is there and not listed: what is not there is not listed anyway.
        if let Some((subject, descriptor)) = &referrer {
            self.add_referrer(subject, descriptor, false).await?;
        }
        let path = [self.name().as_str(), &digest.to_string()];
        self.registry().write(MANIFEST, &path, payload).await?;
        if let Some((subject, descriptor)) = &referrer {
            self.add_referrer(subject, descriptor, true).await?;
        }
        Ok(())
    }

    async fn find(&self, reference: &Reference) -> Result<Option<(Digest, MetaEntry)>> {
        let mut before = None;
        loop {
            let digest = match reference {
                Reference::Digest(digest) => digest.clone(),
                Reference::Tag(tag) => match self.tag(tag).await? {
                    Some(digest) => digest,
                    None => return Ok(None),
                },
            };
            let path = [self.name().as_str(), &digest.to_string()];
            if let Some(entry) = self.store().meta().get(MANIFEST, &path).await? {
                return Ok(Some((digest, entry)));
            }
            // The tag may have been moved, and its old manifest removed, between the two reads.
            if before.as_ref() == Some(&digest) || matches!(reference, Reference::Digest(_)) {
                return Ok(None);
            }
            before = Some(digest);
        }
    }

    async fn long_bytes(&self, digest: &Digest, size: u64) -> Result<Bytes> {
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

pub(crate) fn too_long(longest: usize) -> RegistryError {
    RegistryError::new(ErrorCode::SizeInvalid, format!("a manifest has at most {longest} bytes here"))
}
