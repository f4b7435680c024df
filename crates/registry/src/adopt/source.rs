//! What there is to take over: one listing, then every link read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bulla::bucket::{BucketError, Entry, ForeignBucket};
use bulla::{Digest, Tally};
use futures::{StreamExt, TryStreamExt, stream};

use super::report::AdoptFailure;
use super::tree::{self, Fact, MAX_LINK_LEN, ROOT, parse_link};
use crate::name::{RepositoryName, Tag};

/// Links that are read at once.
const LINKS_AT_ONCE: usize = 16;

/// An object's state: what differs in any of this was written since.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: SystemTime,
    e_tag: Option<String>,
}

/// One listing of the source.
#[derive(Debug, Default)]
pub(super) struct Listing {
    objects: BTreeMap<String, Stamp>,
}

/// What the objects of a listing are.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The content of blobs and manifests, with its size.
    pub(super) data: BTreeMap<Digest, u64>,
    pub(super) repositories: BTreeMap<RepositoryName, SourceRepository>,
    pub(super) history: Vec<String>,
    pub(super) uploads: Vec<String>,
    pub(super) unknown: Vec<String>,
}

/// A repository of the source.
#[derive(Debug, Default)]
pub(super) struct SourceRepository {
    /// Blobs that it may serve.
    pub(super) layers: BTreeSet<Digest>,
    pub(super) manifests: BTreeSet<Digest>,
    pub(super) tags: BTreeMap<Tag, Digest>,
    /// Tags whose link was not read yet, or can't be.
    unread: Vec<Tag>,
}

impl Listing {
    /// # Errors
    /// What the source says.
    pub(super) async fn of(source: &ForeignBucket) -> Result<Self, BucketError> {
        let mut objects = BTreeMap::new();
        let mut entries = source.list(ROOT);
        while let Some(Entry { key, size, last_modified, version, .. }) = entries.try_next().await? {
            objects.insert(key, Stamp { size, modified: last_modified, e_tag: version.e_tag });
        }
        Ok(Self { objects })
    }

    pub(super) fn tally(&self) -> Tally {
        tally(self.objects.values().map(|stamp| stamp.size))
    }

    pub(super) fn tally_of<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Tally {
        tally(keys.into_iter().filter_map(|key| self.objects.get(key)).map(|stamp| stamp.size))
    }

    /// The objects that are not the same in both: written, replaced or removed in between.
    pub(super) fn changed_since(&self, earlier: &Self) -> Vec<String> {
        let new = self.objects.iter().filter(|(key, stamp)| earlier.objects.get(*key) != Some(stamp));
        let gone = earlier.objects.keys().filter(|key| !self.objects.contains_key(*key));
        let changed: BTreeSet<&String> = new.map(|(key, _)| key).chain(gone).collect();
        changed.into_iter().cloned().collect()
    }

    /// What they are by their names.
    fn sorted(&self) -> Inventory {
        let mut inventory = Inventory::default();
        for (key, stamp) in &self.objects {
            let repositories = &mut inventory.repositories;
            match Fact::of_key(key) {
                Fact::Data(digest) => {
                    inventory.data.insert(digest, stamp.size);
                }
                Fact::Layer(name, digest) => {
                    repositories.entry(name).or_default().layers.insert(digest);
                }
                Fact::Revision(name, digest) => {
                    repositories.entry(name).or_default().manifests.insert(digest);
                }
                Fact::Tag(name, tag) => repositories.entry(name).or_default().unread.push(tag),
                Fact::History => inventory.history.push(key.clone()),
                Fact::Upload => inventory.uploads.push(key.clone()),
                Fact::Unknown => inventory.unknown.push(key.clone()),
            }
        }
        inventory
    }
}

impl Inventory {
    /// Reads every link: one that does not name what its key says is a failure and left out.
    pub(super) async fn read(source: &ForeignBucket, listing: &Listing) -> (Self, Vec<AdoptFailure>) {
        let mut inventory = listing.sorted();
        let mut failures = Vec::new();
        for (name, repository) in &mut inventory.repositories {
            repository.read(source, name, &mut failures).await;
        }
        (inventory, failures)
    }

    /// Content that no repository has.
    pub(super) fn unlinked(&self) -> BTreeSet<&Digest> {
        let mut unlinked: BTreeSet<&Digest> = self.data.keys().collect();
        for repository in self.repositories.values() {
            for digest in repository.layers.iter().chain(&repository.manifests) {
                unlinked.remove(digest);
            }
        }
        unlinked
    }
}

impl SourceRepository {
    async fn read(
        &mut self,
        source: &ForeignBucket,
        name: &RepositoryName,
        failures: &mut Vec<AdoptFailure>,
    ) {
        let layers = self.layers.iter().map(|digest| (digest, tree::layer_key(name, digest)));
        let manifests = self.manifests.iter().map(|digest| (digest, tree::revision_key(name, digest)));
        let mut links = stream::iter(layers.chain(manifests))
            .map(async |(digest, key)| match link(source, &key).await {
                Ok(named) if named == *digest => None,
                Ok(named) => Some((digest.clone(), key, format!("it names {named}"))),
                Err(what) => Some((digest.clone(), key, what)),
            })
            .buffer_unordered(LINKS_AT_ONCE)
            .filter_map(std::future::ready)
            .boxed_local();
        let mut bad = Vec::new();
        while let Some((digest, key, what)) = links.next().await {
            failures.push(AdoptFailure::new(Some(name), format!("link {key}"), what));
            bad.push((digest, key));
        }
        drop(links);
        for (digest, key) in bad {
            let links =
                if key == tree::layer_key(name, &digest) { &mut self.layers } else { &mut self.manifests };
            links.remove(&digest);
        }
        let mut tags = stream::iter(std::mem::take(&mut self.unread))
            .map(async |tag: Tag| {
                let named = link(source, &tree::tag_key(name, &tag)).await;
                (tag, named)
            })
            .buffer_unordered(LINKS_AT_ONCE)
            .boxed_local();
        while let Some((tag, named)) = tags.next().await {
            match named {
                Ok(digest) => {
                    self.tags.insert(tag, digest);
                }
                Err(what) => failures.push(AdoptFailure::new(Some(name), format!("tag {tag}"), what)),
            }
        }
    }
}

/// What a link names, or why that can't be said.
async fn link(source: &ForeignBucket, key: &str) -> Result<Digest, String> {
    match source.get(key, MAX_LINK_LEN).await {
        Ok(Some(bytes)) => parse_link(&bytes).ok_or_else(|| "the link names no digest".to_owned()),
        Ok(None) => Err("the link is gone".to_owned()),
        Err(error) => Err(super::report::with_causes(&error)),
    }
}

fn tally(sizes: impl Iterator<Item = u64>) -> Tally {
    sizes.fold(Tally::default(), |mut tally, size| {
        tally.objects += 1;
        tally.bytes += size;
        tally
    })
}
