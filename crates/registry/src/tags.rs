//! Tags: what manifests are called.

use bulla::{Digest, MetaEntry, MetaWrite};

use crate::error::{ErrorCode, RegistryError, Result};
use crate::facts::{TAG, TagFact, decode, encode};
use crate::listing::Listing;
use crate::name::Tag;
use crate::registry::{Page, Repository};

/// Tags read in one go.
const PAGE: usize = 1000;

/// What a tag must name at the moment when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there are these three")]
pub enum Replaces {
    /// Whatever it names, and nothing.
    #[default]
    Anything,
    /// It must not be there.
    Nothing,
    /// It must name this.
    Only(Digest),
}

impl Repository {
    /// The manifest that `tag` names, which may be gone.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tag(&self, tag: &Tag) -> Result<Option<Digest>> {
        match self.tag_entry(tag).await? {
            Some(entry) => Ok(Some(decode::<TagFact>(&entry)?.digest)),
            None => Ok(None),
        }
    }

    /// The first `limit` tags after `after`, ascending by their bytes. A page costs a listing of all of them.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tags(&self, after: Option<&str>, limit: usize) -> Result<Page<Tag>> {
        let page = self.store().meta().list(TAG, &[self.name().as_str()], after, limit).await?;
        let parse = |name: String| name.parse().map_err(|_| RegistryError::damaged("a tag's name"));
        let items = page.names.into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        Ok(Page { items, more: page.more })
    }

    /// Removes a tag; the manifest stays, for as long as gc leaves untagged ones from now on, less half of the grace at most.
    /// Whether it was there.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have removed it.
    pub async fn delete_tag(&self, tag: &Tag) -> Result<bool> {
        if let Some(digest) = self.tag(tag).await? {
            self.rely_on_manifest(&digest).await?;
        }
        self.registry().remove(TAG, &[self.name().as_str(), tag.as_str()]).await
    }

    /// As [`delete_tag`](Self::delete_tag), if it names `digest` at that moment. Whether it was there.
    ///
    /// # Errors
    /// `DENIED` where it names another manifest; `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// As [`delete_tag`](Self::delete_tag).
    pub async fn delete_tag_of(&self, tag: &Tag, digest: &Digest) -> Result<bool> {
        self.rely_on_manifest(digest).await?;
        let mut found = self.tag_entry(tag).await?;
        while let Some(entry) = found {
            let named = decode::<TagFact>(&entry)?.digest;
            if named != *digest {
                return Err(names_another(tag, Some(&named)));
            }
            let path = [self.name().as_str(), tag.as_str()];
            match self.store().meta().remove(TAG, &path, &entry.version).await? {
                MetaWrite::Done(()) => return Ok(true),
                MetaWrite::Changed(other) => found = other,
            }
        }
        Ok(false)
    }

    /// Names a manifest of this repository that the caller relies on, if the tag names what it must or this already; of several
    /// at once, one is the last. It is written anew whatever it said, so that who removes the tags of a manifest sees it. The
    /// time that gc leaves the one it named before begins now, or at most half of the grace ago.
    pub(crate) async fn set_tag(&self, tag: &Tag, digest: &Digest, replaces: &Replaces) -> Result<()> {
        let path = [self.name().as_str(), tag.as_str()];
        let payload = encode(&TagFact { digest: digest.clone() });
        let meta = self.store().meta();
        let mut found = match self.tag_entry(tag).await {
            // One that is damaged is replaced all the same.
            Err(error) if *replaces == Replaces::Anything && error.code() == ErrorCode::Unknown => {
                meta.set(TAG, &path, payload).await?;
                return Ok(());
            }
            found => found?,
        };
        loop {
            let named = found.as_ref().map(decode::<TagFact>).transpose();
            let named = match (named, replaces) {
                (Err(_), Replaces::Anything) => None,
                (named, _) => named?.map(|tag| tag.digest),
            };
            let fits = match replaces {
                Replaces::Anything => true,
                _ if named.as_ref() == Some(digest) => true,
                Replaces::Nothing => named.is_none(),
                Replaces::Only(wanted) => named.as_ref() == Some(wanted),
            };
            if !fits {
                return Err(names_another(tag, named.as_ref()));
            }
            if let Some(before) = named.filter(|named| named != digest) {
                self.rely_on_manifest(&before).await?;
            }
            let written = match &found {
                Some(entry) => meta.update(TAG, &path, payload.clone(), &entry.version).await?,
                None => meta.create(TAG, &path, payload.clone()).await?,
            };
            match written {
                MetaWrite::Done(_) => return Ok(()),
                MetaWrite::Changed(other) => found = other,
            }
        }
    }

    /// Names a manifest that may have been there for long. Whether the repository has it.
    pub(crate) async fn tag_existing(&self, tag: &Tag, digest: &Digest) -> Result<bool> {
        if !self.rely_on_manifest(digest).await? {
            return Ok(false);
        }
        self.set_tag(tag, digest, &Replaces::Anything).await?;
        // It may have gone before anybody could see the tag.
        self.rely_on_manifest(digest).await
    }

    /// Removes every tag of a manifest that was deleted. Who puts it again meanwhile writes the manifest, then the tag anew.
    pub(crate) async fn untag_deleted(&self, digest: &Digest) -> Result<()> {
        let meta = self.store().meta();
        let repository = self.name().as_str();
        let parent = [repository];
        let mut listing = Listing::new(self.registry(), TAG, &parent, PAGE);
        while let Some(page) = listing.entries().await? {
            for (name, entry) in page {
                // One that can't be read names nothing.
                let Ok(entry) = entry else { continue };
                if decode::<TagFact>(&entry).is_ok_and(|tag| tag.digest == *digest) {
                    // After the tag was read.
                    if self.has_manifest(digest).await? {
                        return Ok(());
                    }
                    // One that was moved or written at the same moment stays.
                    let _: MetaWrite<()> = meta.remove(TAG, &[repository, &name], &entry.version).await?;
                }
            }
        }
        Ok(())
    }

    async fn tag_entry(&self, tag: &Tag) -> Result<Option<MetaEntry>> {
        Ok(self.store().meta().get(TAG, &[self.name().as_str(), tag.as_str()]).await?)
    }
}

fn names_another(tag: &Tag, named: Option<&Digest>) -> RegistryError {
    let now = named.map_or_else(|| "nothing".to_owned(), Digest::to_string);
    RegistryError::new(
        ErrorCode::Denied,
        format!("{tag} names {now} by now, which is not what the request's condition has"),
    )
}
