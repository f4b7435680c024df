//! Referrers: the manifests of a repository that have another one as their subject, such as its signatures.

use bulla::{Digest, MetaEntry, MetaWrite};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Result;
use crate::facts::{Descriptor, MANIFEST, MAX_INLINE, REFERRER, ReferrerFact, decode, encode};
use crate::listing::Listing;
use crate::manifest::Parsed;
use crate::name::Reference;
use crate::registry::{Page, Repository};

/// Entries read at once.
const BATCH: usize = 256;

/// Their manifests looked for at once.
const READS: usize = 16;

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
        let after = after.map(str::to_owned);
        let mut listing = Listing::new(self.registry(), REFERRER, &parent, BATCH).after(after);
        while let Some(page) = listing.entries().await? {
            let mut descriptors = stream::iter(page)
                .map(|(_, entry)| async move { self.descriptor(&entry?).await })
                .buffered(READS);
            while let Some(descriptor) = descriptors.try_next().await? {
                let Some(descriptor) = descriptor else { continue };
                if artifact_type.is_some() && descriptor.artifact_type.as_deref() != artifact_type {
                    continue;
                }
                if items.len() == limit {
                    return Ok(Page { items, more: true });
                }
                items.push(descriptor);
            }
        }
        Ok(Page { items, more: false })
    }

    /// Lists a manifest below its subject, once an entry of it is there: anew, so that who removes what an earlier one left
    /// sees it.
    pub(crate) async fn add_referrer(&self, subject: &Digest, descriptor: &Descriptor) -> Result<()> {
        let (subject, digest) = (subject.to_string(), descriptor.digest.to_string());
        let mut fact = ReferrerFact { descriptor: descriptor.clone(), cut: false };
        let mut payload = encode(&fact);
        if payload.len() > MAX_INLINE {
            fact.descriptor.annotations.clear();
            fact.cut = true;
            payload = encode(&fact);
        }
        let path = [self.name().as_str(), &subject, &digest];
        self.registry().write_anew(REFERRER, &path, payload).await
    }

    /// Whether a manifest is listed below its subject.
    pub(crate) async fn has_referrer(&self, subject: &Digest, digest: &Digest) -> Result<bool> {
        let (subject, digest) = (subject.to_string(), digest.to_string());
        let path = [self.name().as_str(), subject.as_str(), digest.as_str()];
        Ok(self.store().meta().get(REFERRER, &path).await?.is_some())
    }

    /// Takes a manifest that was removed from its subject's list. Who puts it again meanwhile writes a pending manifest, then
    /// the entry anew.
    pub(crate) async fn remove_referrer(&self, subject: &Digest, digest: &Digest) -> Result<()> {
        let (subject, digest) = (subject.to_string(), digest.to_string());
        let path = [self.name().as_str(), &subject, &digest];
        let meta = self.store().meta();
        if let Some(entry) = meta.get(REFERRER, &path).await?
            // After the entry was read. Who is putting it counts on it.
            && meta.get(MANIFEST, &[self.name().as_str(), &digest]).await?.is_none()
        {
            let _: MetaWrite<()> = meta.remove(REFERRER, &path, &entry.version).await?;
        }
        Ok(())
    }

    /// `None` where the manifest is gone, and who removed it could not remove this too.
    async fn descriptor(&self, entry: &MetaEntry) -> Result<Option<Descriptor>> {
        let ReferrerFact { mut descriptor, cut } = decode(entry)?;
        if cut {
            let reference = Reference::Digest(descriptor.digest.clone());
            let Some(manifest) = self.manifest(&reference).await? else { return Ok(None) };
            descriptor.annotations = Parsed::new(Some(&manifest.media_type), &manifest.bytes)?.annotations;
            return Ok(Some(descriptor));
        }
        Ok(self.has_manifest(&descriptor.digest).await?.then_some(descriptor))
    }
}
