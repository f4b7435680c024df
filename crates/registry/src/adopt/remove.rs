//! Removing originals: only after everything was read back, nothing failed and nothing changed; and only objects that were
//! looked at and can be had from the store.
//!
//! Contents go first, then links, then tags. So a run that is killed here can be run again: whatever is left, the store has
//! all that it names.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla::bucket::ForeignBucket;
use bulla::{Digest, ErrorKind};
use futures::{StreamExt, TryStreamExt, stream};

use super::copy::add;
use super::report::{AdoptFailure, AdoptProgress, with_causes};
use super::source::{Inventory, Listing, SourceRepository};
use super::{AdoptError, AdoptOptions, Log, tree};
use crate::error::Result;
use crate::name::Reference;
use crate::registry::{Registry, Repository};

/// Objects that are removed at once.
const BATCH: usize = 500;

pub(super) async fn originals(
    registry: &Registry,
    source: &ForeignBucket,
    listing: &Listing,
    inventory: &Inventory,
    options: &AdoptOptions,
    log: &Log<'_>,
) -> Result<(), AdoptError> {
    let sound = |log: &Log<'_>| log.write(|report| report.failures.is_empty() && report.changed.is_empty());
    if !sound(log) {
        return Ok(());
    }
    contents(registry, inventory, options, log).await?;
    let mut links = Vec::new();
    let mut tags = inventory.history.clone();
    let mut dangling = Vec::new();
    for (name, found) in &inventory.repositories {
        let repository = registry.repository(name.clone());
        facts(&repository, found, inventory, log, &mut links, &mut dangling).await?;
        tags.extend(found.tags.keys().map(|tag| tree::tag_key(name, tag)));
    }
    let second = Listing::of(source).await.map_err(AdoptError::Source)?;
    log.write(|report| report.changed = second.changed_since(listing));
    if !sound(log) {
        return Ok(());
    }
    let unlinked = inventory.unlinked();
    let linked = inventory.data.keys().filter(|digest| !unlinked.contains(digest));
    let mut keys: Vec<String> = linked.map(tree::data_key).collect();
    if options.drop_unlinked {
        keys.extend(unlinked.into_iter().map(tree::data_key));
        keys.extend(inventory.uploads.iter().cloned());
        keys.extend(dangling);
    }
    keys.extend(links);
    keys.extend(tags);
    let removed = second.tally_of(&keys);
    for (batch, keys) in keys.chunks(BATCH).enumerate() {
        let objects = (batch * BATCH) as u64;
        log.progress(AdoptProgress::Removing { objects, of_objects: removed.objects });
        source.delete(keys).await.map_err(AdoptError::Source)?;
    }
    let left = Listing::of(source).await.map_err(AdoptError::Source)?;
    log.write(|report| {
        report.removed = removed;
        report.unsealed = left.tally().objects;
    });
    Ok(())
}

/// Reads back and hashes every blob that the source has the content of.
async fn contents(
    registry: &Registry,
    inventory: &Inventory,
    options: &AdoptOptions,
    log: &Log<'_>,
) -> Result<()> {
    let layers: BTreeSet<&Digest> =
        inventory.repositories.values().flat_map(|repository| &repository.layers).collect();
    let layers: Vec<(&Digest, u64)> =
        layers.into_iter().filter_map(|digest| Some((digest, *inventory.data.get(digest)?))).collect();
    let of_bytes = layers.iter().map(|(_, size)| size).sum();
    let read = &AtomicU64::new(0);
    stream::iter(layers)
        .map(|(digest, size)| async move {
            let checked = async {
                let mut stream = registry.store().get(digest).await?.into_verified_stream();
                while let Some(bytes) = stream.try_next().await? {
                    let len = bytes.len() as u64;
                    let bytes = read.fetch_add(len, Ordering::Relaxed) + len;
                    log.progress(AdoptProgress::Verifying { bytes, of_bytes });
                }
                Ok(())
            };
            match checked.await {
                Ok(()) => log.write(|report| add(&mut report.verified, size)),
                Err(error) => match bulla::Error::kind(&error) {
                    ErrorKind::NotFound | ErrorKind::Corrupt => {
                        let what = format!("blob {digest}");
                        log.failed(AdoptFailure::new(None, what, with_causes(&error)));
                    }
                    _ => return Err(error.into()),
                },
            }
            Ok(())
        })
        .buffer_unordered(options.concurrency.max(1))
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}

/// Reads back what a repository has: its links, the bytes of its manifests, its tags.
async fn facts(
    repository: &Repository,
    found: &SourceRepository,
    inventory: &Inventory,
    log: &Log<'_>,
    links: &mut Vec<String>,
    dangling: &mut Vec<String>,
) -> Result<()> {
    let name = repository.name();
    let fail = |what: String, why: &str| log.failed(AdoptFailure::new(Some(name), what, why));
    for digest in &found.layers {
        let key = tree::layer_key(name, digest);
        if repository.linked(digest).await?.is_some() {
            links.push(key);
        } else if inventory.data.contains_key(digest) {
            fail(format!("blob {digest}"), "the store has no link to it any more");
        } else {
            dangling.push(key);
        }
    }
    for digest in &found.manifests {
        match repository.manifest(&Reference::Digest(digest.clone())).await? {
            Some(manifest) if Digest::of(digest.algorithm(), &manifest.bytes) == *digest => {
                links.push(tree::revision_key(name, digest));
            }
            Some(_) => fail(format!("manifest {digest}"), "the store has other bytes for it"),
            None => fail(format!("manifest {digest}"), "the store does not have it any more"),
        }
    }
    for (tag, digest) in &found.tags {
        if repository.tag(tag).await?.as_ref() != Some(digest) {
            fail(format!("tag {tag}"), "it names another manifest in the store by now");
        }
    }
    Ok(())
}
