//! One repository: which of its manifests and links go.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use bulla::{Digest, MetaEntry, MetaVersion};

use super::manifests::{Known, Manifests};
use super::{PAGE, Run, is_damage};
use crate::error::Result;
use crate::facts::{LINK, MANIFEST, TAG, TagFact, decode, decode_manifest};
use crate::listing::Listing;
use crate::manifest::Parsed;
use crate::name::{RepositoryName, parse_digest};
use crate::registry::Repository;

/// A link as gc read it.
struct Link {
    digest: Digest,
    modified: SystemTime,
    version: MetaVersion,
}

/// A tag as gc read it.
struct TagRead {
    name: String,
    digest: Digest,
    modified: SystemTime,
    version: MetaVersion,
}

impl Run<'_> {
    /// Removes what a repository does not need, and takes out of `unneeded` what it has after that.
    pub(super) async fn repository(
        &mut self,
        name: RepositoryName,
        unneeded: &mut HashSet<Digest>,
    ) -> Result<()> {
        let repository = self.registry.repository(name);
        let damaged_before = self.report.damaged;
        // With their versions, before what keeps them is read.
        let links = self.links(&repository).await?;
        let mut known = HashMap::new();
        self.manifests(&repository, true, &mut known).await?;
        let tags = self.tags(&repository).await?;
        if self.report.damaged == damaged_before {
            // Those that came meanwhile: they need what they need.
            self.manifests(&repository, false, &mut known).await?;
        }
        if self.report.damaged > damaged_before {
            return Ok(());
        }
        // And the names of links: a listing of files may miss one that is replaced meanwhile.
        let registry = self.registry.clone();
        let listed: HashSet<Digest> = links.iter().map(|link| link.digest.clone()).collect();
        let parent = [repository.name().as_str()];
        let mut listing = Listing::new(&registry, LINK, &parent, PAGE);
        while let Some(names) = listing.names().await? {
            for digest in names.iter().filter_map(|name| parse_digest(name).ok()) {
                if !listed.contains(&digest) {
                    unneeded.remove(&digest);
                }
            }
        }
        for tag in &tags {
            let dangles = known.get(&tag.digest).is_none_or(|manifest| manifest.pending);
            if dangles
                && self.is_old(tag.modified)
                && self.remove(TAG, &[repository.name().as_str(), &tag.name], &tag.version).await?
            {
                self.report.removed_tags += 1;
            }
        }
        let tagged: HashSet<&Digest> = tags.iter().map(|tag| &tag.digest).collect();
        let mut manifests = Manifests::new(known);
        for digest in self.kept_by_themselves(&manifests, &tagged) {
            manifests.keep(&digest);
        }
        for digest in manifests.in_order_of_removal() {
            if manifests.stays(&digest) {
                continue;
            }
            let known = manifests.get(&digest);
            if self.remove_manifest(&repository, &digest, known).await? {
                self.report.removed_manifests += u64::from(!known.pending);
            } else {
                manifests.keep(&digest);
            }
        }
        for (digest, known) in manifests.iter().filter(|(digest, _)| manifests.stays(digest)) {
            // Where its bytes are a blob.
            unneeded.remove(digest);
            self.report.manifests += u64::from(!known.pending);
        }
        let needed = manifests.needed();
        for link in links {
            let goes = self.is_old(link.modified) && !needed.contains(&link.digest);
            let name = link.digest.to_string();
            if goes && self.remove(LINK, &[repository.name().as_str(), &name], &link.version).await? {
                self.report.removed_links += 1;
            } else {
                self.report.links += 1;
                unneeded.remove(&link.digest);
            }
        }
        Ok(())
    }

    async fn links(&mut self, repository: &Repository) -> Result<Vec<Link>> {
        let (registry, parent) = (self.registry.clone(), [repository.name().as_str()]);
        let mut links = Vec::new();
        let mut listing = Listing::new(&registry, LINK, &parent, PAGE);
        while let Some(page) = listing.entries().await? {
            for (name, entry) in page {
                match (parse_digest(&name), entry) {
                    (Ok(digest), Ok(MetaEntry { modified, version, .. })) => {
                        links.push(Link { digest, modified, version });
                    }
                    _ => self.damaged(format!("the link to {name} in {}", repository.name())),
                }
            }
        }
        Ok(links)
    }

    /// Reads the manifests that are not known yet; those of a second reading came between the two.
    async fn manifests(
        &mut self,
        repository: &Repository,
        first: bool,
        known: &mut HashMap<Digest, Known>,
    ) -> Result<()> {
        let (registry, parent) = (self.registry.clone(), [repository.name().as_str()]);
        let mut listing = Listing::new(&registry, MANIFEST, &parent, PAGE);
        loop {
            // What was read is not read again: a manifest never changes what it needs.
            let page = if first {
                listing.entries().await?
            } else {
                listing
                    .entries_but(|name| parse_digest(name).is_ok_and(|digest| known.contains_key(&digest)))
                    .await?
            };
            let Some(page) = page else { return Ok(()) };
            for (name, entry) in page {
                let read = match (parse_digest(&name), entry) {
                    (Ok(digest), Ok(entry)) => Self::read(repository, digest, entry, first).await,
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
                match read {
                    Ok(Some((digest, manifest))) => {
                        known.insert(digest, manifest);
                    }
                    Ok(None) => {}
                    Err(error) if is_damage(&error) => {
                        self.damaged(format!("the manifest {name} in {}", repository.name()));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    async fn read(
        repository: &Repository,
        digest: Digest,
        entry: MetaEntry,
        first: bool,
    ) -> Result<Option<(Digest, Known)>> {
        let (fact, bytes) = decode_manifest(&entry)?;
        let bytes = match bytes {
            Some(bytes) => Ok(bytes),
            None => repository.long_bytes(&digest, fact.size).await,
        };
        let (needs, subject) = match bytes {
            Ok(bytes) => {
                let parsed = Parsed::new(Some(&fact.media_type), &bytes)?;
                (parsed.needs, parsed.subject)
            }
            // Who puts it looks for what it needs after its bytes are there.
            Err(error) if is_damage(&error) && fact.pending => (Vec::new(), None),
            Err(error) if is_damage(&error) && !repository.has_manifest(&digest).await? => return Ok(None),
            Err(error) => return Err(error),
        };
        let version = first.then_some(entry.version);
        let known = Known { modified: entry.modified, version, needs, subject, pending: fact.pending };
        Ok(Some((digest, known)))
    }

    async fn tags(&mut self, repository: &Repository) -> Result<Vec<TagRead>> {
        let (registry, parent) = (self.registry.clone(), [repository.name().as_str()]);
        let mut tags = Vec::new();
        let mut listing = Listing::new(&registry, TAG, &parent, PAGE);
        while let Some(page) = listing.entries().await? {
            for (name, entry) in page {
                match entry.and_then(|entry| Ok((decode::<TagFact>(&entry)?.digest, entry))) {
                    Ok((digest, MetaEntry { modified, version, .. })) => {
                        tags.push(TagRead { name, digest, modified, version });
                    }
                    Err(_) => self.damaged(format!("the tag {name} in {}", repository.name())),
                }
            }
        }
        Ok(tags)
    }

    /// The manifests that stay whatever the others do.
    fn kept_by_themselves(&self, manifests: &Manifests, tagged: &HashSet<&Digest>) -> Vec<Digest> {
        let stays = |digest: &Digest, known: &Known| {
            if known.pending {
                return known.version.is_none() || !self.is_old(known.modified);
            }
            let Some(untagged_before) = self.untagged_before else { return true };
            tagged.contains(digest) || known.version.is_none() || known.modified > untagged_before
        };
        let staying = manifests.iter().filter(|(digest, known)| stays(digest, known));
        staying.map(|(digest, _)| digest.clone()).collect()
    }

    /// Removes a manifest if it is still as it was read. Whether it is gone.
    async fn remove_manifest(&self, repository: &Repository, digest: &Digest, known: &Known) -> Result<bool> {
        let Some(version) = &known.version else { return Ok(false) };
        let (repo, name) = (repository.name().as_str(), digest.to_string());
        let removed = self.remove(MANIFEST, &[repo, &name], version).await?;
        if let (true, false, Some(subject)) = (removed, self.dry_run, &known.subject) {
            repository.remove_referrer(subject, digest).await?;
        }
        Ok(removed)
    }
}
