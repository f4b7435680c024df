//! What there is to take over: one listing, then every link read.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use bulla::bucket::{BucketError, BucketErrorKind, Entry, ForeignBucket};
use bulla::{Digest, Tally};
use futures::{StreamExt, TryStreamExt, stream};

use super::copy::add;
use super::report::{AdoptFailure, Refusal};
use super::tree::{self, Fact, MAX_LINK_LEN, ROOT, parse_link};
use crate::name::{RepositoryName, Tag};

/// Links that are read at once.
const LINKS_AT_ONCE: usize = 64;

/// And the repositories whose links these are.
const REPOSITORIES: usize = 4;

/// Objects of the source that changed and are named: more would be a registry that runs.
const MAX_CHANGED: usize = 10_000;

/// An object's state: what differs in any of this was written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    /// Of its time and ETag: there are millions of them.
    hash: u64,
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

impl Stamp {
    fn of(entry: &Entry) -> Self {
        let of = (entry.last_modified, &entry.version.e_tag);
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of);
        Self { size: entry.size, hash }
    }
}

impl Listing {
    /// # Errors
    /// What the source says.
    pub(super) async fn of(source: &ForeignBucket) -> Result<Self, BucketError> {
        let mut objects = BTreeMap::new();
        let mut entries = source.list(ROOT);
        while let Some(entry) = entries.try_next().await? {
            let stamp = Stamp::of(&entry);
            objects.insert(entry.key, stamp);
        }
        Ok(Self { objects })
    }

    /// Lists again: how much there is, and what is not the same: written, replaced or removed since.
    ///
    /// # Errors
    /// What the source says.
    pub(super) async fn again(&self, source: &ForeignBucket) -> Result<(Tally, Vec<String>), BucketError> {
        let (mut now, mut known) = (Tally::default(), 0);
        let mut changed = BTreeSet::new();
        let mut entries = source.list(ROOT);
        while let Some(entry) = entries.try_next().await? {
            add(&mut now, entry.size);
            let before = self.objects.get(&entry.key);
            known += usize::from(before.is_some());
            if before != Some(&Stamp::of(&entry)) && changed.len() < MAX_CHANGED {
                changed.insert(entry.key);
            }
        }
        if known < self.objects.len() {
            // It is rare enough for another look.
            let there: HashSet<String> = source.list(ROOT).map_ok(|entry| entry.key).try_collect().await?;
            let gone = self.objects.keys().filter(|key| !there.contains(*key)).cloned();
            changed.extend(gone.take(MAX_CHANGED));
        }
        Ok((now, changed.into_iter().collect()))
    }

    pub(super) fn tally(&self) -> Tally {
        tally(self.objects.values().map(|stamp| stamp.size))
    }

    pub(super) fn tally_of(&self, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Tally {
        tally(keys.into_iter().filter_map(|key| self.objects.get(key.as_ref())).map(|stamp| stamp.size))
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.objects.contains_key(key)
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
        let read: Vec<Vec<AdoptFailure>> = stream::iter(&mut inventory.repositories)
            .map(|(name, repository)| repository.read(source, name))
            .buffer_unordered(REPOSITORIES)
            .collect()
            .await;
        (inventory, read.concat())
    }

    /// Blobs that any repository may serve.
    pub(super) fn layers(&self) -> BTreeSet<&Digest> {
        self.repositories.values().flat_map(|repository| &repository.layers).collect()
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
    async fn read(&mut self, source: &ForeignBucket, name: &RepositoryName) -> Vec<AdoptFailure> {
        let mut failures = Vec::new();
        let layers = self.layers.iter().map(|digest| (digest, tree::layer_key(name, digest)));
        let manifests = self.manifests.iter().map(|digest| (digest, tree::revision_key(name, digest)));
        let mut links = stream::iter(layers.chain(manifests))
            .map(async |(digest, key)| match link(source, &key).await {
                Ok(named) if named == *digest => None,
                Ok(named) => Some((digest.clone(), key, Refusal::damaged(format!("it names {named}")))),
                Err(refusal) => Some((digest.clone(), key, refusal)),
            })
            .buffer_unordered(LINKS_AT_ONCE)
            .filter_map(std::future::ready)
            .boxed();
        let mut bad = Vec::new();
        while let Some((digest, key, refusal)) = links.next().await {
            failures.push(AdoptFailure::new(Some(name), format!("link {key}"), refusal));
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
            .boxed();
        while let Some((tag, named)) = tags.next().await {
            match named {
                Ok(digest) => {
                    self.tags.insert(tag, digest);
                }
                Err(refusal) => failures.push(AdoptFailure::new(Some(name), format!("tag {tag}"), refusal)),
            }
        }
        drop(tags);
        failures
    }
}

/// What a link names, or why that can't be said.
async fn link(source: &ForeignBucket, key: &str) -> Result<Digest, Refusal> {
    match source.get(key, MAX_LINK_LEN).await {
        Ok(Some(bytes)) => parse_link(&bytes).ok_or_else(|| Refusal::damaged("the link names no digest")),
        Ok(None) => Err(Refusal::damaged("the link is gone")),
        Err(error) if error.kind() == BucketErrorKind::TooLarge => {
            Err(Refusal::damaged("the link names no digest"))
        }
        Err(error) => Err(Refusal::of_source(&error)),
    }
}

fn tally(sizes: impl Iterator<Item = u64>) -> Tally {
    sizes.fold(Tally::default(), |mut tally, size| {
        add(&mut tally, size);
        tally
    })
}
