//! Manifests: what lists others comes after these.
//!
//! Gc removes a link that no manifest needs for longer than its grace, and the layers of a large repository may take longer
//! than that. So who finds links missing when a manifest is put makes them again, and puts it right after.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use bulla::Digest;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::IgnoredAny;

use super::blobs::Blob;
use super::copy::{Adopted, Copying, add, locked};
use super::report::{AdoptCause, Refusal};
use super::source::SourceRepository;
use super::tree;
use crate::error::{ErrorCode, RegistryError, Result};
use crate::manifest::{Need, Parsed};
use crate::manifests::PutManifest;
use crate::name::Reference;
use crate::registry::Repository;

/// How often the links of a manifest are made again.
const ATTEMPTS: usize = 3;

/// What became of a manifest.
enum Outcome {
    /// The repository has it, or would have it.
    There,
    /// It lists these, and waits for them.
    Lists(Vec<Digest>),
}

impl Copying<'_> {
    /// Gives those that the repository has then, or would have.
    pub(super) async fn manifests(
        &self,
        repository: &Repository,
        found: &SourceRepository,
    ) -> Result<HashSet<Digest>> {
        let there = &Mutex::default();
        let put = |digest, lists| async move {
            let done = self.manifest(repository, found, there, digest, lists).await;
            let outcome = self.settle(repository.name(), || format!("manifest {digest}"), done)?;
            Ok::<_, RegistryError>(match outcome {
                Some(Outcome::There) => {
                    locked(there).insert(digest.clone());
                    None
                }
                Some(Outcome::Lists(children)) => Some((digest, children)),
                None => None,
            })
        };
        let at_once = self.options.concurrency.max(1);
        let lists: BTreeMap<&Digest, Vec<Digest>> = stream::iter(&found.manifests)
            .map(|digest| put(digest, false))
            .buffer_unordered(at_once)
            .try_filter_map(|list| std::future::ready(Ok(list)))
            .try_collect()
            .await?;
        for wave in children_first(&lists) {
            stream::iter(wave)
                .map(|digest| put(digest, true))
                .buffer_unordered(at_once)
                .try_for_each(|_| std::future::ready(Ok(())))
                .await?;
        }
        Ok(std::mem::take(&mut *locked(there)))
    }

    /// Puts a manifest, unless it lists others and `lists` is not set.
    async fn manifest(
        &self,
        repository: &Repository,
        found: &SourceRepository,
        there: &Mutex<HashSet<Digest>>,
        digest: &Digest,
        lists: bool,
    ) -> Adopted<Outcome> {
        let before = match repository.manifest(&Reference::Digest(digest.clone())).await {
            // One that is damaged is replaced.
            Err(error) if error.code() == ErrorCode::Unknown => None,
            before => before?,
        };
        let is_there = before.is_some();
        let (bytes, media_type) = match before {
            Some(before) => (before.bytes, Some(before.media_type)),
            None => match self.manifest_bytes(digest).await {
                Ok(bytes) => (bytes, None),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let parsed = match Parsed::new(media_type.as_deref(), &bytes) {
            Ok(parsed) => parsed,
            Err(error) => {
                let is_json = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
                let cause = if is_json { AdoptCause::Unsupported } else { AdoptCause::Damaged };
                return Ok(Err(Refusal::new(cause, error.to_string())));
            }
        };
        if is_there {
            // What lists it below its subject may have been lost since: then it is put again.
            if !self.options.dry_run
                && let Some(subject) = &parsed.subject
                && !repository.has_referrer(subject, digest).await?
                && let Err(refusal) =
                    self.put(repository, found, &parsed, put_as(digest, media_type, bytes)).await?
            {
                return Ok(Err(refusal));
            }
            self.log.write(|report| report.present_manifests += 1);
            return Ok(Ok(Outcome::There));
        }
        let children: Vec<Digest> = parsed.needs.iter().filter_map(child).cloned().collect();
        if !lists && !children.is_empty() {
            return Ok(Ok(Outcome::Lists(children)));
        }
        if let Some(missing) = self.missing(repository, found, there, &parsed).await? {
            if found.manifests.contains(&missing) {
                return Ok(Err(not_adopted(&missing)));
            }
            let why = format!("it needs {missing}, which the repository does not have in the source");
            return Ok(Err(Refusal::damaged(why)));
        }
        let size = bytes.len() as u64;
        if !self.options.dry_run
            && let Err(refusal) = self.put(repository, found, &parsed, put_as(digest, None, bytes)).await?
        {
            return Ok(Err(refusal));
        }
        self.log.write(|report| add(&mut report.manifests, size));
        Ok(Ok(Outcome::There))
    }

    async fn manifest_bytes(&self, digest: &Digest) -> Result<Bytes, Refusal> {
        let longest = self.registry.options().max_manifest;
        let bytes = match self.source.get(&tree::data_key(digest), longest).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(Refusal::damaged("the source does not have its content")),
            Err(error) => return Err(Refusal::of_source(&error)),
        };
        let computed = Digest::of(digest.algorithm(), &bytes);
        if computed != *digest {
            return Err(Refusal::damaged(format!("its content has digest {computed}")));
        }
        Ok(bytes)
    }

    /// Puts it; links of blobs that it needs, and that gc has removed meanwhile, are made again.
    async fn put(
        &self,
        repository: &Repository,
        found: &SourceRepository,
        parsed: &Parsed,
        put: PutManifest,
    ) -> Adopted<()> {
        let mut attempt = 1;
        loop {
            match repository.put_manifest(put.clone()).await {
                Ok(_) => return Ok(Ok(())),
                Err(error) if error.code() == ErrorCode::ManifestBlobUnknown && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
            attempt += 1;
            for need in &parsed.needs {
                let Need::Blob(digest) = need else { continue };
                if !found.layers.contains(digest) {
                    continue;
                }
                match self.blob(repository, digest).await {
                    Ok(Ok(Blob::Present(_) | Blob::Sealed(_))) => {}
                    Ok(Ok(Blob::Dangling) | Err(_)) => return Ok(Err(not_adopted(digest))),
                    Err(error) if Refusal::of_registry(&error).is_some() => {
                        return Ok(Err(not_adopted(digest)));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// What a manifest needs and would not find, as far as names tell.
    async fn missing(
        &self,
        repository: &Repository,
        found: &SourceRepository,
        there: &Mutex<HashSet<Digest>>,
        parsed: &Parsed,
    ) -> Result<Option<Digest>> {
        for need in &parsed.needs {
            let is_blob = |digest| found.layers.contains(digest) && self.inventory.data.contains_key(digest);
            let (digest, will_be) = match need {
                Need::Blob(digest) => (digest, is_blob(digest)),
                Need::Manifest(digest) => (digest, locked(there).contains(digest) || is_blob(digest)),
            };
            if !will_be && !has(repository, need).await? {
                return Ok(Some(digest.clone()));
            }
        }
        Ok(None)
    }
}

fn put_as(digest: &Digest, media_type: Option<String>, bytes: Bytes) -> PutManifest {
    PutManifest { digest: Some(digest.clone()), media_type, bytes, ..PutManifest::default() }
}

fn not_adopted(digest: &Digest) -> Refusal {
    Refusal::damaged(format!("it needs {digest}, which is not adopted"))
}

fn child(need: &Need) -> Option<&Digest> {
    match need {
        Need::Manifest(child) => Some(child),
        Need::Blob(_) => None,
    }
}

/// Whether the repository has it, without touching it.
async fn has(repository: &Repository, need: &Need) -> Result<bool> {
    match need {
        Need::Blob(digest) => Ok(repository.linked(digest).await?.is_some()),
        Need::Manifest(digest) => {
            Ok(repository.manifest(&Reference::Digest(digest.clone())).await?.is_some()
                || repository.linked(digest).await?.is_some())
        }
    }
}

/// In waves, every list in a later one than those that it lists. Digests make no circles.
fn children_first<'d>(lists: &BTreeMap<&'d Digest, Vec<Digest>>) -> Vec<Vec<&'d Digest>> {
    let mut waves: Vec<Vec<&Digest>> = Vec::new();
    let mut placed: BTreeMap<&Digest, usize> = BTreeMap::new();
    let mut seen = HashSet::new();
    // A list is on the stack twice: to be looked into, and to be put after what it lists.
    let mut stack: Vec<(&Digest, bool)> = lists.keys().map(|digest| (*digest, false)).collect();
    while let Some((digest, looked_into)) = stack.pop() {
        let children = lists[digest].iter();
        if looked_into {
            let wave = children.filter_map(|child| placed.get(child)).max().map_or(0, |last| last + 1);
            placed.insert(digest, wave);
            if waves.len() == wave {
                waves.push(Vec::new());
            }
            waves[wave].push(digest);
        } else if seen.insert(digest) {
            stack.push((digest, true));
            let children = children.filter_map(|child| lists.get_key_value(child));
            stack.extend(children.map(|(child, _)| (*child, false)));
        }
    }
    waves
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
        let waves = children_first(&lists);
        assert_eq!(waves.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        let wave = |digest: &Digest| waves.iter().position(|wave| wave.contains(&digest));
        for (digest, children) in &lists {
            for child in children.iter().filter(|child| lists.contains_key(child)) {
                assert!(wave(child) < wave(digest));
            }
        }
    }
}
