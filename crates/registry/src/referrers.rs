//! Referrers: the manifests of a repository that have another one as their subject, such as its signatures.

use bulla::{Digest, MetaEntry};

use crate::error::Result;
use crate::facts::{Descriptor, MAX_INLINE, REFERRER, ReferrerFact, decode, encode};
use crate::manifest::Parsed;
use crate::name::Reference;
use crate::registry::{Page, Repository};

/// Entries read at once.
const BATCH: usize = 256;

impl Repository {
    /// The first `limit` manifests whose subject is `subject`, of that artifact type if one is given, after the digest
    /// `after`, ascending by their digests. The subject need not be there.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Descriptor>> {
        let subject = subject.to_string();
        let parent = [self.name().as_str(), &subject];
        let mut items = Vec::new();
        let mut after = after.map(str::to_owned);
        loop {
            let (entries, more) =
                self.store().meta().entries(REFERRER, &parent, after.as_deref(), BATCH).await?;
            let last = entries.last().and_then(|entry| entry.path.last().cloned());
            for entry in entries {
                let Some(descriptor) = self.descriptor(&entry).await? else { continue };
                if artifact_type.is_some() && descriptor.artifact_type.as_deref() != artifact_type {
                    continue;
                }
                if items.len() == limit {
                    return Ok(Page { items, more: true });
                }
                items.push(descriptor);
            }
            if !more || last.is_none() {
                return Ok(Page { items, more: false });
            }
            after = last;
        }
    }

    /// Lists a manifest below its subject.
    pub(crate) async fn add_referrer(&self, subject: &Digest, descriptor: Descriptor) -> Result<()> {
        let (subject, digest) = (subject.to_string(), descriptor.digest.to_string());
        let mut fact = ReferrerFact { descriptor, cut: false };
        let mut payload = encode(&fact);
        if payload.len() > MAX_INLINE {
            fact.descriptor.annotations.clear();
            fact.cut = true;
            payload = encode(&fact);
        }
        self.registry().write(REFERRER, &[self.name().as_str(), &subject, &digest], payload).await
    }

    /// Whether a manifest is listed below its subject.
    pub(crate) async fn has_referrer(&self, subject: &Digest, digest: &Digest) -> Result<bool> {
        let (subject, digest) = (subject.to_string(), digest.to_string());
        let path = [self.name().as_str(), subject.as_str(), digest.as_str()];
        Ok(self.store().meta().get(REFERRER, &path).await?.is_some())
    }

    pub(crate) async fn remove_referrer(&self, subject: &Digest, digest: &Digest) -> Result<bool> {
        let (subject, digest) = (subject.to_string(), digest.to_string());
        self.registry().remove(REFERRER, &[self.name().as_str(), &subject, &digest]).await
    }

    async fn descriptor(&self, entry: &MetaEntry) -> Result<Option<Descriptor>> {
        let ReferrerFact { mut descriptor, cut } = decode(entry)?;
        if cut {
            let reference = Reference::Digest(descriptor.digest.clone());
            let Some(manifest) = self.manifest(&reference).await? else { return Ok(None) };
            descriptor.annotations = Parsed::new(Some(&manifest.media_type), &manifest.bytes)?.annotations;
        }
        Ok(Some(descriptor))
    }
}
