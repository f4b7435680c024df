//! One repository after the other: what its blobs are, then its manifests, then its tags, so that a tag that can be pulled can
//! be pulled whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bulla::bucket::{BucketError, ForeignBucket};
use bulla::{Digest, Tally};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::report::{AdoptFailure, AdoptProgress, with_causes};
use super::source::{Inventory, SourceRepository};
use super::{AdoptOptions, Log, is_about_one, tree};
use crate::error::{RegistryError, Result};
use crate::manifest::{Need, Parsed};
use crate::manifests::PutManifest;
use crate::name::{Reference, RepositoryName, Tag};
use crate::registry::{Registry, Repository};

/// Why one thing is not adopted, in words; or why nothing more is.
type Adopted<T> = Result<Result<T, String>, RegistryError>;

pub(super) struct Copying<'a> {
    registry: &'a Registry,
    source: &'a ForeignBucket,
    inventory: &'a Inventory,
    options: &'a AdoptOptions,
    log: &'a Log<'a>,
    /// Blobs that are in the report: each once, however many repositories have it.
    counted: Mutex<HashSet<Digest>>,
    bytes: AtomicU64,
    of_bytes: u64,
}

/// What became of a blob.
enum Blob {
    Present(u64),
    Sealed(u64),
    /// The source does not have it either.
    Dangling,
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        source: &'a ForeignBucket,
        inventory: &'a Inventory,
        options: &'a AdoptOptions,
        log: &'a Log<'a>,
    ) -> Self {
        let layers: BTreeSet<&Digest> =
            inventory.repositories.values().flat_map(|repository| &repository.layers).collect();
        let of_bytes = layers.into_iter().filter_map(|digest| inventory.data.get(digest)).sum();
        let bytes = AtomicU64::default();
        Self { registry, source, inventory, options, log, counted: Mutex::default(), bytes, of_bytes }
    }

    pub(super) async fn repository(&self, name: &RepositoryName, found: &SourceRepository) -> Result<()> {
        let repository = &self.registry.repository(name.clone());
        stream::iter(&found.layers)
            .map(|digest| async move {
                let done = self.blob(repository, digest).await;
                self.settle(name, || format!("blob {digest}"), done).map(|blob| self.count(digest, blob))
            })
            .buffer_unordered(self.options.concurrency.max(1))
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        self.manifests(repository, found).await?;
        for (tag, digest) in &found.tags {
            let done = self.tag(repository, found, tag, digest).await;
            self.settle(name, || format!("tag {tag}"), done)?;
        }
        Ok(())
    }

    /// Names what failed and goes on, unless it concerns everything.
    fn settle<T>(
        &self,
        name: &RepositoryName,
        what: impl FnOnce() -> String,
        done: Adopted<T>,
    ) -> Result<Option<T>> {
        let why = match done {
            Ok(Ok(done)) => return Ok(Some(done)),
            Ok(Err(why)) => why,
            Err(error) if is_about_one(&error) => with_causes(&error),
            Err(error) => return Err(error),
        };
        self.log.failed(AdoptFailure::new(Some(name), what(), why));
        Ok(None)
    }

    async fn blob(&self, repository: &Repository, digest: &Digest) -> Adopted<Blob> {
        if let Some(size) = self.linked(repository, digest).await? {
            return Ok(Ok(Blob::Present(size)));
        }
        // Another repository may have it, or a run that was killed: its content was compared with the digest then.
        if let Some(size) = self.stored(digest).await?
            && (self.options.dry_run || repository.link_existing(digest).await?)
        {
            return Ok(Ok(Blob::Present(size)));
        }
        let Some(&size) = self.inventory.data.get(digest) else { return Ok(Ok(Blob::Dangling)) };
        if self.options.dry_run {
            return Ok(Ok(Blob::Sealed(size)));
        }
        let unread = Mutex::default();
        let content = self.content(digest, size, &unread);
        let put = repository.put_blob(digest, Some(size), content).await;
        if let Some(why) = unread.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Err(why));
        }
        put.map(|put| Ok(if put.created { Blob::Sealed(size) } else { Blob::Present(size) }))
    }

    /// The content as it is in the source. Why it can't be read is in `unread` then: that is no failure of the store.
    fn content<'s>(
        &'s self,
        digest: &Digest,
        size: u64,
        unread: &'s Mutex<Option<String>>,
    ) -> impl Stream<Item = Result<Bytes, BucketError>> + Unpin + 's {
        self.source.stream(&tree::data_key(digest), size).inspect(move |read| match read {
            Ok(bytes) => self.read(bytes.len() as u64),
            Err(error) => {
                *unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(with_causes(error));
            }
        })
    }

    /// The size of a blob that the repository has. A dry run touches nothing.
    async fn linked(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        if !self.options.dry_run {
            return Ok(repository.stat_blob(digest).await?.map(|stat| stat.size));
        }
        match repository.linked(digest).await? {
            Some(_) => self.stored(digest).await,
            None => Ok(None),
        }
    }

    /// The size of a blob that the store has, and is sound as far as that shows.
    async fn stored(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.registry.store().stat(digest).await {
            Ok(info) => Ok(Some(info.size)),
            Err(error) if matches!(error.kind(), bulla::ErrorKind::NotFound | bulla::ErrorKind::Corrupt) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self, digest: &Digest, blob: Option<Blob>) {
        let new = || self.counted.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
        match blob {
            Some(Blob::Present(size)) if new() => {
                self.log.write(|report| add(&mut report.present, size));
                self.read(size);
            }
            Some(Blob::Sealed(size)) if new() => {
                self.log.write(|report| add(&mut report.sealed, size));
                if self.options.dry_run {
                    self.read(size);
                }
            }
            Some(Blob::Dangling) => self.log.write(|report| report.dangling += 1),
            Some(Blob::Present(_) | Blob::Sealed(_)) | None => {}
        }
    }

    fn read(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.log.progress(AdoptProgress::Sealing { bytes, of_bytes: self.of_bytes.max(bytes) });
    }

    /// Images at once; then what lists other manifests, after these.
    async fn manifests(&self, repository: &Repository, found: &SourceRepository) -> Result<()> {
        let lists: BTreeMap<&Digest, Vec<Digest>> = stream::iter(&found.manifests)
            .map(|digest| async move {
                let done = self.manifest(repository, found, digest, false).await;
                let children = self.settle(repository.name(), || format!("manifest {digest}"), done)?;
                Ok::<_, RegistryError>(children.flatten().map(|children| (digest, children)))
            })
            .buffer_unordered(self.options.concurrency.max(1))
            .try_filter_map(|list| std::future::ready(Ok(list)))
            .try_collect()
            .await?;
        for digest in children_first(&lists) {
            let done = self.manifest(repository, found, digest, true).await;
            self.settle(repository.name(), || format!("manifest {digest}"), done)?;
        }
        Ok(())
    }

    /// Puts a manifest, unless it lists others and `lists` is not set: then it gives these.
    async fn manifest(
        &self,
        repository: &Repository,
        found: &SourceRepository,
        digest: &Digest,
        lists: bool,
    ) -> Adopted<Option<Vec<Digest>>> {
        if repository.manifest(&Reference::Digest(digest.clone())).await?.is_some() {
            self.log.write(|report| report.present_manifests += 1);
            return Ok(Ok(None));
        }
        let longest = self.registry.options().max_manifest;
        let bytes = match self.source.get(&tree::data_key(digest), longest).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Err("the source does not have its content".to_owned())),
            Err(error) => return Ok(Err(with_causes(&error))),
        };
        let computed = Digest::of(digest.algorithm(), &bytes);
        if computed != *digest {
            return Ok(Err(format!("its content has digest {computed}")));
        }
        let parsed = Parsed::new(None, &bytes)?;
        let children = parsed.needs.iter().filter_map(|need| match need {
            Need::Manifest(child) => Some(child.clone()),
            Need::Blob(_) => None,
        });
        let children: Vec<Digest> = children.collect();
        if !lists && !children.is_empty() {
            return Ok(Ok(Some(children)));
        }
        let size = bytes.len() as u64;
        if self.options.dry_run {
            if let Some(missing) = self.missing(repository, found, &parsed).await? {
                return Ok(Err(format!("it needs {missing}, which the repository does not have")));
            }
        } else {
            let put = PutManifest { digest: Some(digest.clone()), bytes, ..PutManifest::default() };
            repository.put_manifest(put).await?;
        }
        self.log.write(|report| add(&mut report.manifests, size));
        Ok(Ok(None))
    }

    /// What a manifest needs and would not find, as far as names tell.
    async fn missing(
        &self,
        repository: &Repository,
        found: &SourceRepository,
        parsed: &Parsed,
    ) -> Result<Option<Digest>> {
        for need in &parsed.needs {
            let (digest, listed) = match need {
                Need::Blob(digest) => (digest, found.layers.contains(digest)),
                Need::Manifest(digest) => {
                    (digest, found.manifests.contains(digest) || found.layers.contains(digest))
                }
            };
            let will_be = listed && self.inventory.data.contains_key(digest);
            if !will_be && !is_there(repository, need).await? {
                return Ok(Some(digest.clone()));
            }
        }
        Ok(None)
    }

    async fn tag(
        &self,
        repository: &Repository,
        found: &SourceRepository,
        tag: &Tag,
        digest: &Digest,
    ) -> Adopted<()> {
        match repository.tag(tag).await? {
            Some(named) if named == *digest => {
                self.log.write(|report| report.present_tags += 1);
                return Ok(Ok(()));
            }
            Some(named) => {
                return Ok(Err(format!(
                    "it names {digest} in the source, and {named} in the store; delete one of the two"
                )));
            }
            None => {}
        }
        let tagged = if self.options.dry_run {
            found.manifests.contains(digest) || is_there(repository, &Need::Manifest(digest.clone())).await?
        } else {
            repository.tag_existing(tag, digest).await?
        };
        if !tagged {
            return Ok(Err(format!("it names {digest}, which is not adopted")));
        }
        self.log.write(|report| report.tags += 1);
        Ok(Ok(()))
    }
}

/// Whether the repository has it, without touching it.
async fn is_there(repository: &Repository, need: &Need) -> Result<bool> {
    match need {
        Need::Blob(digest) => Ok(repository.linked(digest).await?.is_some()),
        Need::Manifest(digest) => {
            Ok(repository.manifest(&Reference::Digest(digest.clone())).await?.is_some()
                || repository.linked(digest).await?.is_some())
        }
    }
}

/// Every list after those that it lists. Digests make no circles.
fn children_first<'d>(lists: &BTreeMap<&'d Digest, Vec<Digest>>) -> Vec<&'d Digest> {
    let mut ordered = Vec::with_capacity(lists.len());
    let mut seen = HashSet::new();
    // A list is on the stack twice: to be looked into, and to be put after what it lists.
    let mut stack: Vec<(&Digest, bool)> = lists.keys().map(|digest| (*digest, false)).collect();
    while let Some((digest, looked_into)) = stack.pop() {
        if looked_into {
            ordered.push(digest);
        } else if seen.insert(digest) {
            stack.push((digest, true));
            let children = lists[digest].iter().filter_map(|child| lists.get_key_value(child));
            stack.extend(children.map(|(child, _)| (*child, false)));
        }
    }
    ordered
}

pub(super) fn add(tally: &mut Tally, bytes: u64) {
    tally.objects += 1;
    tally.bytes += bytes;
}

#[cfg(test)]
mod tests {
    use bulla::Algorithm;

    use super::*;

    #[test]
    fn lists_come_after_what_they_list() {
        let digests: Vec<Digest> = (0..6).map(|n| Digest::of(Algorithm::Sha256, &[n])).collect();
        let of = |children: &[usize]| children.iter().map(|&n| digests[n].clone()).collect::<Vec<_>>();
        // Each lists some of those with a lower number; 0 is no list.
        let lists: BTreeMap<&Digest, Vec<Digest>> =
            [(1, vec![0]), (2, vec![1]), (3, vec![2, 1, 1]), (4, vec![3, 2]), (5, vec![])]
                .iter()
                .map(|(n, children)| (&digests[*n], of(children)))
                .collect();
        let ordered = children_first(&lists);
        assert_eq!(ordered.len(), lists.len());
        let place = |digest: &Digest| ordered.iter().position(|other| **other == *digest);
        for (digest, children) in &lists {
            for child in children.iter().filter(|child| lists.contains_key(child)) {
                assert!(place(child) < place(digest));
            }
        }
    }
}
