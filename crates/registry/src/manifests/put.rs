//! Putting a manifest: only where all that it needs is there, and then all of that stays.
//!
//! ```text
//! pending entry ─► long bytes, all that it needs ─► referrer ─► the entry is none any more ─► tags ─► entry still there?
//!     └◄─────────────────────── again, if somebody removed or replaced it meanwhile ◄┴──────────────────┘
//! ```
//!
//! A pending entry is no manifest for anybody, and keeps from gc what it needs. All of that is looked for once it is there, and
//! the manifest is there only if the entry was in between, which its version says. So nothing must be done in time: however long
//! a process stands still, and wherever it is killed, no manifest is there whose layers are not.

use bulla::{Algorithm, Digest, ErrorKind, MetaVersion, MetaWrite};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::{PutManifest, PutManifestResult};
use crate::error::{ErrorCode, RegistryError, Result};
use crate::facts::{Descriptor, MANIFEST, ManifestFact, decode_manifest, encode_manifest};
use crate::manifest::{Need, Parsed};
use crate::registry::Repository;
use crate::tags::Replaces;

/// What a manifest needs is looked for so much at once.
const READS: usize = 16;

/// So many that are missing are looked for and named.
const MAX_MISSING: usize = 100;

/// How often it is begun again where others remove what was put.
const ATTEMPTS: usize = 3;

/// The entry of a manifest that is being put.
struct Announced {
    /// For who makes it the manifest's; `None` where it is already.
    version: Option<MetaVersion>,
    /// Nobody else counts on it.
    is_ours: bool,
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
            let Some(is_new) = self.write_manifest(&computed, &parsed, &bytes).await? else { continue };
            let conditions = std::iter::once(&replaces).chain(std::iter::repeat(&Replaces::Anything));
            for (tag, replaces) in tags.iter().zip(conditions) {
                self.set_tag(tag, &computed, replaces).await?;
            }
            // If it went before gc or who deleted it could see the tags, they name nothing.
            if (is_new && tags.is_empty()) || self.rely_on_manifest(&computed).await? {
                return Ok(PutManifestResult { digest: computed, subject: parsed.subject });
            }
        }
        Err(RegistryError::busy("the manifest is deleted by somebody each time; try again"))
    }

    /// Writes the entry, once all that it needs is there, and lists it below its subject. Whether it was none before; `None`
    /// where somebody removed or replaced it at the same time.
    async fn write_manifest(&self, digest: &Digest, parsed: &Parsed, bytes: &Bytes) -> Result<Option<bool>> {
        let size = bytes.len() as u64;
        let fact = ManifestFact { media_type: parsed.media_type.clone(), size, pending: false };
        let (payload, fits) = encode_manifest(&fact, bytes);
        let announced = self.announce(digest, fact, bytes, &payload).await?;
        if !fits && !self.put_unlinked(digest, bytes.clone()).await? {
            return Ok(None);
        }
        if let Err(error) = self.rely_on_all(&parsed.needs).await {
            if error.code() == ErrorCode::ManifestBlobUnknown && announced.is_ours {
                self.withdraw(digest, announced).await;
            }
            return Err(error);
        }
        if let Some(subject) = &parsed.subject {
            let descriptor = Descriptor {
                media_type: parsed.media_type.clone(),
                digest: digest.clone(),
                size,
                artifact_type: parsed.artifact_type.clone(),
                annotations: parsed.annotations.clone(),
            };
            self.add_referrer(subject, &descriptor).await?;
        }
        let Some(version) = announced.version else { return Ok(Some(false)) };
        let path = [self.name().as_str(), &digest.to_string()];
        match self.store().meta().update(MANIFEST, &path, payload.clone(), &version).await {
            Ok(MetaWrite::Done(_)) => Ok(Some(true)),
            // Somebody who put the same was quicker.
            Ok(MetaWrite::Changed(Some(entry))) if entry.payload == payload => Ok(Some(true)),
            Ok(MetaWrite::Changed(_)) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a pending entry, unless there is one that keeps the same.
    async fn announce(
        &self,
        digest: &Digest,
        fact: ManifestFact,
        bytes: &Bytes,
        payload: &Bytes,
    ) -> Result<Announced> {
        let path = [self.name().as_str(), &digest.to_string()];
        let meta = self.store().meta();
        let (pending, _) = encode_manifest(&ManifestFact { pending: true, ..fact }, bytes);
        let mut written = match meta.create(MANIFEST, &path, pending.clone()).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(%error, "a damaged manifest is replaced");
                let version = meta.set(MANIFEST, &path, pending).await?;
                return Ok(Announced { version: Some(version), is_ours: true });
            }
            written => written?,
        };
        loop {
            let found = match written {
                MetaWrite::Done(version) => {
                    return Ok(Announced { version: Some(version), is_ours: true });
                }
                MetaWrite::Changed(found) => found,
            };
            written = match found {
                None => meta.create(MANIFEST, &path, pending.clone()).await?,
                Some(entry) if entry.payload == *payload => {
                    match self.registry().touch(MANIFEST, &path, entry).await? {
                        Some(entry) if entry.payload == *payload => {
                            return Ok(Announced { version: None, is_ours: false });
                        }
                        found => MetaWrite::Changed(found),
                    }
                }
                // Another's, or one that is known by another media type until then: it needs the same, for its bytes are.
                Some(entry) if decode_manifest(&entry).is_ok() => {
                    return Ok(Announced { version: Some(entry.version), is_ours: false });
                }
                Some(entry) => meta.update(MANIFEST, &path, pending.clone(), &entry.version).await?,
            };
        }
    }

    /// Removes the pending entry of a manifest that is refused, so that it does not wait for gc.
    async fn withdraw(&self, digest: &Digest, announced: Announced) {
        let Some(version) = announced.version else { return };
        let path = [self.name().as_str(), &digest.to_string()];
        if let Err(error) = self.store().meta().remove(MANIFEST, &path, &version).await {
            tracing::debug!(%error, "a refused manifest's entry is left to gc");
        }
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
}

pub(crate) fn too_long(longest: usize) -> RegistryError {
    RegistryError::new(ErrorCode::SizeInvalid, format!("a manifest has at most {longest} bytes here"))
}
