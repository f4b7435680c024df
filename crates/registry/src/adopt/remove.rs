//! Removing originals: only after everything was read back, nothing failed and nothing changed; and only objects that were
//! looked at and can be had from the store.
//!
//! Contents go first, then links, then tags. So a run that is killed here can be run again: whatever is left, the store has
//! all that it names.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla::bucket::ForeignBucket;
use bulla::{Digest, ErrorKind};
use futures::{StreamExt, TryStreamExt, stream};

use super::copy::{LOOKS, add};
use super::report::{AdoptCause, AdoptFailure, AdoptProgress, Refusal};
use super::source::{Inventory, Listing, SourceRepository};
use super::{AdoptError, AdoptOptions, Log, tree};
use crate::error::{RegistryError, Result};
use crate::manifest::Parsed;
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
    let mut dangling = HashSet::new();
    for (name, found) in &inventory.repositories {
        let repository = registry.repository(name.clone());
        facts(&repository, found, inventory, log, &mut dangling).await?;
    }
    let (_, changed) = listing.again(source).await.map_err(AdoptError::Source)?;
    log.write(|report| report.changed = changed);
    if !sound(log) {
        return Ok(());
    }
    let keys = || {
        let kept = |key: &String| options.drop_unlinked || !dangling.contains(key);
        originals_first(inventory, options.drop_unlinked).filter(kept).filter(|key| listing.contains(key))
    };
    let of_objects = keys().count() as u64;
    let mut all = keys().peekable();
    while all.peek().is_some() {
        let objects = log.write(|report| report.removed.objects);
        log.progress(AdoptProgress::Removing { objects, of_objects });
        let batch: Vec<String> = all.by_ref().take(BATCH).collect();
        source.delete(&batch).await.map_err(AdoptError::Source)?;
        let removed = listing.tally_of(&batch);
        log.write(|report| {
            report.removed.objects += removed.objects;
            report.removed.bytes += removed.bytes;
        });
    }
    let left = source.list(tree::ROOT).try_fold(0, |left, _| std::future::ready(Ok(left + 1)));
    let left = left.await.map_err(AdoptError::Source)?;
    log.write(|report| report.unsealed = left);
    Ok(())
}

/// The keys that are removed, in their order: contents, links, tags.
fn originals_first(inventory: &Inventory, unlinked_too: bool) -> impl Iterator<Item = String> {
    let unlinked = inventory.unlinked();
    let contents = inventory.data.keys().filter(move |digest| unlinked_too || !unlinked.contains(digest));
    let uploads = inventory.uploads.iter().filter(move |_| unlinked_too).cloned();
    let links = inventory.repositories.iter().flat_map(|(name, found)| {
        let layers = found.layers.iter().map(move |digest| tree::layer_key(name, digest));
        layers.chain(found.manifests.iter().map(move |digest| tree::revision_key(name, digest)))
    });
    let tags = inventory
        .repositories
        .iter()
        .flat_map(|(name, found)| found.tags.keys().map(move |tag| tree::tag_key(name, tag)));
    let history = inventory.history.iter().cloned();
    contents.map(tree::data_key).chain(uploads).chain(links).chain(history).chain(tags)
}

/// Reads back and hashes every blob that the source has the content of.
async fn contents(
    registry: &Registry,
    inventory: &Inventory,
    options: &AdoptOptions,
    log: &Log<'_>,
) -> Result<()> {
    let layers = inventory.layers();
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
                        log.failed(AdoptFailure::new(None, what, Refusal::damaged(error.to_string())));
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

/// Reads back what a repository has: its links, the bytes of its manifests, its tags. Links to what neither side has are
/// `dangling`.
async fn facts(
    repository: &Repository,
    found: &SourceRepository,
    inventory: &Inventory,
    log: &Log<'_>,
    dangling: &mut HashSet<String>,
) -> Result<()> {
    let name = repository.name();
    let fail = |what: String, why: &str| {
        log.failed(AdoptFailure::new(Some(name), what, Refusal::new(AdoptCause::Unavailable, why)));
    };
    let mut links = stream::iter(&found.layers)
        .map(|digest| async move { Ok::<_, RegistryError>((digest, repository.linked(digest).await?)) })
        .buffer_unordered(LOOKS);
    while let Some((digest, linked)) = links.try_next().await? {
        match linked {
            Some(_) => {}
            None if inventory.data.contains_key(digest) => {
                fail(
                    format!("blob {digest}"),
                    "gc has removed its link, as no manifest needs it; run it again, and no gc meanwhile",
                );
            }
            None => {
                dangling.insert(tree::layer_key(name, digest));
            }
        }
    }
    let mut manifests = stream::iter(&found.manifests)
        .map(|digest| async move { Ok::<_, RegistryError>((digest, wrong(repository, digest).await?)) })
        .buffer_unordered(LOOKS);
    while let Some((digest, wrong)) = manifests.try_next().await? {
        if let Some(why) = wrong {
            fail(format!("manifest {digest}"), why);
        }
    }
    let mut tags = stream::iter(&found.tags)
        .map(|(tag, digest)| async move {
            Ok::<_, RegistryError>((tag, repository.tag(tag).await?.as_ref() == Some(digest)))
        })
        .buffer_unordered(LOOKS);
    while let Some((tag, is_same)) = tags.try_next().await? {
        if !is_same {
            fail(format!("tag {tag}"), "it names another manifest in the store by now; run it again");
        }
    }
    Ok(())
}

/// What is wrong with a manifest that was adopted.
async fn wrong(repository: &Repository, digest: &Digest) -> Result<Option<&'static str>> {
    let Some(manifest) = repository.manifest(&Reference::Digest(digest.clone())).await? else {
        return Ok(Some("the store does not have it any more; run it again"));
    };
    if Digest::of(digest.algorithm(), &manifest.bytes) != *digest {
        return Ok(Some("the store has other bytes for it; delete it there, and run it again"));
    }
    match Parsed::new(Some(&manifest.media_type), &manifest.bytes)?.subject {
        Some(subject) if !repository.has_referrer(&subject, digest).await? => {
            Ok(Some("the store does not list it among its subject's referrers; run it again"))
        }
        _ => Ok(None),
    }
}
