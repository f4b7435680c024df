//! From a repository into a layout.

use std::collections::HashSet;
use std::path::Path;

use bulla::{Digest, Tally};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::{Map, Value};

use super::target::Target;
use super::{Entry, LayoutError, MAX_DEPTH, Name, REF_NAME, too_deep};
use crate::error::RegistryError;
use crate::manifest::{Need, Parsed};
use crate::name::Reference;
use crate::registry::Repository;

/// Referrers asked for at once.
const PAGE: usize = 100;

/// What is exported with a manifest.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExportOptions {
    /// What refers to it as well, such as its signatures, and what refers to those.
    pub referrers: bool,
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// The manifest.
    pub digest: Digest,
    /// Manifests, children and referrers included.
    pub manifests: u64,
    /// Contents that were written, manifests included.
    pub written: Tally,
    /// Contents that the layout had already.
    pub present: u64,
}

struct Exporting<'a> {
    repository: &'a Repository,
    target: Target,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Manifests that were exported: many indexes may have the same.
    seen: HashSet<Digest>,
    done: Export,
}

impl Repository {
    /// Writes a manifest and all that it needs into the layout at `to`, under its tag, if it is asked for by one: into a new
    /// archive where the name ends in `.tar`, else into a folder, which is made, or added to. Other programs see it once it is
    /// whole. `progress` hears how many bytes were written.
    ///
    /// # Errors
    /// `NotFound` where the repository has no such manifest; `Damaged` where it lacks what the manifest needs; `Invalid` where the
    /// folder holds something else; `Exists` where the archive is there; `Io` where a file can't be written; what the registry
    /// says.
    ///
    /// # Cancel safety
    /// Contents that were written into a folder stay, and nothing names them; of an archive nothing stays. Export it again.
    pub async fn export_layout(
        &self,
        reference: &Reference,
        to: &Path,
        options: &ExportOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Export, LayoutError> {
        let Some(manifest) = self.manifest(reference).await? else {
            return Err(LayoutError::NotFound(format!(
                "the repository {} has no manifest {reference}",
                self.name()
            )));
        };
        let (target, mut index) = Target::open(to).await?;
        let digest = manifest.digest.clone();
        let done = Export { digest: digest.clone(), manifests: 0, written: Tally::default(), present: 0 };
        let mut exporting = Exporting { repository: self, target, progress, seen: HashSet::new(), done };
        exporting.manifest(manifest.media_type.clone(), digest.clone(), manifest.bytes.clone(), 0).await?;
        let mut entries = vec![entry(&manifest.media_type, &digest, manifest.bytes.len())];
        if let Reference::Tag(tag) = reference {
            entries[0].annotations.insert(REF_NAME.to_owned(), Value::from(tag.as_str()));
            index.manifests.retain(|entry| entry.name() != Some(tag.as_str()));
        }
        if options.referrers {
            entries.extend(exporting.referrers(digest).await?);
        }
        let known = |new: &Entry, old: &Entry| {
            new.digest == old.digest && (new.name() == old.name() || new.name().is_none())
        };
        for entry in entries {
            if !index.manifests.iter().any(|old| known(&entry, old)) {
                index.manifests.push(entry);
            }
        }
        exporting.target.finish(&index).await?;
        Ok(exporting.done)
    }
}

impl Exporting<'_> {
    fn manifest(
        &mut self,
        media_type: String,
        digest: Digest,
        bytes: Bytes,
        depth: usize,
    ) -> BoxFuture<'_, Result<(), LayoutError>> {
        async move {
            if depth > MAX_DEPTH {
                return Err(too_deep(&digest));
            }
            if !self.seen.insert(digest.clone()) {
                return Ok(());
            }
            let parsed = Parsed::new(Some(&media_type), &bytes)?;
            for need in parsed.needs {
                let needed = need.digest();
                if let Need::Manifest(_) = need
                    && let Some(child) = self.repository.manifest(&Reference::Digest(needed.clone())).await?
                {
                    self.manifest(child.media_type, child.digest, child.bytes, depth + 1).await?;
                    continue;
                }
                self.blob(needed, &digest).await?;
            }
            self.done.manifests += 1;
            let len = bytes.len() as u64;
            self.content(&digest, len, stream::iter([Ok(bytes)]).boxed()).await
        }
        .boxed()
    }

    async fn blob(&mut self, digest: &Digest, by: &Digest) -> Result<(), LayoutError> {
        let Some(found) = self.repository.open_blob(digest).await? else {
            return Err(LayoutError::Damaged(format!(
                "the repository {} has no {digest}, which the manifest {by} needs; push the image again",
                self.repository.name()
            )));
        };
        let len = found.size();
        let content = found.into_verified_stream().map_err(|error| RegistryError::from(error).into()).boxed();
        self.content(digest, len, content).await
    }

    async fn content(
        &mut self,
        digest: &Digest,
        len: u64,
        content: BoxStream<'_, Result<Bytes, LayoutError>>,
    ) -> Result<(), LayoutError> {
        if self.target.has(digest, len).await? {
            self.done.present += 1;
            return Ok(());
        }
        self.target.put(Name::Blob(digest.clone()), len, content).await?;
        self.done.written.objects += 1;
        self.done.written.bytes += len;
        (self.progress)(self.done.written.bytes);
        Ok(())
    }

    /// Exports what refers to `subject`, and what refers to that.
    async fn referrers(&mut self, subject: Digest) -> Result<Vec<Entry>, LayoutError> {
        let mut entries = Vec::new();
        let mut subjects = vec![subject];
        let mut listed = HashSet::new();
        while let Some(subject) = subjects.pop() {
            let mut after: Option<String> = None;
            loop {
                let page = self.repository.referrers(&subject, None, after.as_deref(), PAGE).await?;
                after = page.items.last().map(|last| last.digest.to_string());
                for found in page.items {
                    let reference = Reference::Digest(found.digest.clone());
                    let Some(manifest) = self.repository.manifest(&reference).await? else { continue };
                    entries.push(entry(&manifest.media_type, &found.digest, manifest.bytes.len()));
                    self.manifest(manifest.media_type, manifest.digest, manifest.bytes, 0).await?;
                    if listed.insert(found.digest.clone()) {
                        subjects.push(found.digest);
                    }
                }
                if !page.more || after.is_none() {
                    break;
                }
            }
        }
        Ok(entries)
    }
}

fn entry(media_type: &str, digest: &Digest, size: usize) -> Entry {
    let (annotations, more) = (Map::new(), Map::new());
    Entry {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: size as u64,
        annotations,
        more,
    }
}
