//! Links: which blobs a repository may serve. One is written only after the repository received the whole content, or who
//! may read it elsewhere asked for it; knowing a digest gives nothing.

use bulla::Digest;

use crate::error::{RegistryError, Result};
use crate::facts::{LINK, LinkFact, decode, encode};
use crate::registry::Repository;

/// How often something slow is begun again.
const ATTEMPTS: usize = 3;

impl Repository {
    /// The linked blob's size.
    pub(crate) async fn linked(&self, digest: &Digest) -> Result<Option<u64>> {
        let name = digest.to_string();
        match self.store().meta().get(LINK, &[self.name().as_str(), &name]).await? {
            Some(entry) => Ok(Some(decode::<LinkFact>(&entry)?.size)),
            None => Ok(None),
        }
    }

    /// Whether the repository has the link, which then stays for at least half of the grace. It says nothing alone: one that was
    /// written too late may be to a blob that gc has removed.
    pub(crate) async fn rely_on_link(&self, digest: &Digest) -> Result<bool> {
        let name = digest.to_string();
        Ok(self.registry().rely_on(LINK, &[self.name().as_str(), &name]).await?.is_some())
    }

    /// Whether the repository has the blob, for who relies on it: link and blob stay for at least half of the grace.
    pub(crate) async fn keep_linked(&self, digest: &Digest) -> Result<bool> {
        Ok(self.rely_on_link(digest).await? && self.registry().keep_blob(digest).await?)
    }

    /// Links a blob whose envelope is young.
    pub(crate) async fn link(&self, digest: &Digest, size: u64) -> Result<()> {
        let name = digest.to_string();
        // Gc looks for links in the repositories that it knows of.
        self.ensure().await?;
        let payload = encode(&LinkFact { size });
        self.registry().write(LINK, &[self.name().as_str(), &name], payload).await?;
        Ok(())
    }

    /// Links a blob that may have been there for long. Whether it is there.
    pub(crate) async fn link_existing(&self, digest: &Digest) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let started = self.registry().moment();
            let Some(size) = self.registry().rely_on_blob(digest).await? else { return Ok(false) };
            self.link(digest, size).await?;
            // Slower, and gc may have removed the blob before the link was there: look again.
            if self.registry().elapsed(&started) <= self.registry().patience() {
                return Ok(true);
            }
        }
        Err(RegistryError::busy("the bucket is too slow for the grace of this registry's gc; try again"))
    }

    /// Removes a link. Whether there was one.
    pub(crate) async fn unlink(&self, digest: &Digest) -> Result<bool> {
        let name = digest.to_string();
        self.registry().remove(LINK, &[self.name().as_str(), &name]).await
    }
}
