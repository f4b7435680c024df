//! From a layout into a repository.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bulla::{Digest, Tally};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::source::Source;
use super::{Entry, INDEX, Index, LayoutError, MAX_DEPTH, Name, too_deep};
use crate::error::ErrorCode;
use crate::manifest::{Need, Parsed};
use crate::manifests::PutManifest;
use crate::name::{Reference, Tag, parse_digest};
use crate::registry::Repository;

/// What is imported.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Only the manifest that the layout calls so, and what refers to it. Without it all manifests.
    pub only: Option<String>,
    /// The tag that it gets; without it as the layout calls it.
    pub tag: Option<Tag>,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Import {
    /// Manifests, children included.
    pub manifests: u64,
    /// Blobs that were sealed.
    pub sealed: Tally,
    /// Blobs that the repository had already.
    pub present: u64,
    /// The tags that were set, with what they name.
    pub tags: Vec<(Tag, Digest)>,
}

struct Importing<'a> {
    repository: &'a Repository,
    source: Source,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Manifests that the repository has now, and whose referrers were not looked for.
    there: Vec<Digest>,
    done: Import,
}

/// Manifests that the layout does not call anything, because they are found by what they refer to: signatures, for example.
type Referrers<'a> = HashMap<Digest, Vec<&'a Entry>>;

impl Repository {
    /// Takes the images of the layout at `from`, a folder or an archive. What has no name and refers to one of them comes with
    /// it. `progress` hears how many bytes were sealed.
    ///
    /// # Errors
    /// `Invalid` where there is no layout, or not what was asked for; `Damaged` where a content is missing or not what its name
    /// says; `Io` where one can't be read; what the registry says.
    ///
    /// # Cancel safety
    /// What was imported stays; import it again.
    pub async fn import_layout(
        &self,
        from: &Path,
        options: &ImportOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Import, LayoutError> {
        let source = Source::open(from).await?;
        let Some(index) = source.index().await? else { return Err(source.no_layout().await) };
        let mut importing =
            Importing { repository: self, source, progress, there: Vec::new(), done: Import::default() };
        let mut wanted: Vec<_> = index.manifests.iter().collect();
        let mut referrers = Referrers::new();
        if let Some(only) = &options.only {
            wanted.retain(|entry| entry.name() == Some(only));
            if wanted.is_empty() {
                let names: Vec<&str> = index.manifests.iter().filter_map(Entry::name).collect();
                let names = names.join(", ");
                return Err(LayoutError::Invalid(format!("the layout has no `{only}`; it has: {names}")));
            }
        }
        if options.only.is_some() || options.tag.is_some() {
            referrers = importing.referrers(&index).await?;
            let nameless: HashSet<&str> = referrers.values().flatten().map(|entry| &*entry.digest).collect();
            wanted.retain(|entry| entry.name().is_some() || !nameless.contains(&*entry.digest));
        }
        if options.tag.is_some() && wanted.len() != 1 {
            return Err(LayoutError::Invalid(format!(
                "the layout has {} manifests, which can't all have one tag; say which",
                wanted.len()
            )));
        }
        for entry in wanted {
            let tag = match (&options.tag, entry.name()) {
                (Some(tag), _) => Some(tag.clone()),
                // Some write the whole reference.
                (None, Some(name)) => Some(tag_of(name)?),
                (None, None) => None,
            };
            importing.entry(entry, tag).await?;
        }
        // What refers to what refers to an image, too.
        while let Some(subject) = importing.there.pop() {
            for entry in referrers.remove(&subject).unwrap_or_default() {
                importing.entry(entry, None).await?;
            }
        }
        Ok(importing.done)
    }
}

impl Importing<'_> {
    async fn entry(&mut self, entry: &Entry, tag: Option<Tag>) -> Result<(), LayoutError> {
        let digest = parse_digest(&entry.digest).map_err(|error| {
            LayoutError::Damaged(format!("{INDEX} of the layout names no digest: {error}"))
        })?;
        self.manifest(&digest, &Name::Index, Some(&entry.media_type), tag.as_slice(), 0).await?;
        self.done.tags.extend(tag.map(|tag| (tag, digest)));
        Ok(())
    }

    fn manifest<'a>(
        &'a mut self,
        digest: &'a Digest,
        by: &'a Name,
        media_type: Option<&'a str>,
        tags: &'a [Tag],
        depth: usize,
    ) -> BoxFuture<'a, Result<(), LayoutError>> {
        async move {
            if depth > MAX_DEPTH {
                return Err(too_deep(digest));
            }
            let bytes = self.bytes(digest, by).await?;
            let parsed = Parsed::new(media_type, &bytes).map_err(|error| {
                LayoutError::Invalid(format!("the manifest {digest} of the layout: {error}"))
            })?;
            let name = &Name::Blob(digest.clone());
            for need in &parsed.needs {
                match need {
                    Need::Manifest(child) if !self.has_manifest(child).await? => {
                        self.manifest(child, name, None, &[], depth + 1).await?;
                    }
                    Need::Manifest(child) => self.there.push(child.clone()),
                    Need::Blob(blob) => self.blob(blob, name).await?,
                }
            }
            let mut put = PutManifest::default();
            (put.digest, put.tags, put.bytes) = (Some(digest.clone()), tags.to_vec(), bytes);
            put.media_type = Some(parsed.media_type);
            self.repository.put_manifest(put).await?;
            self.there.push(digest.clone());
            self.done.manifests += 1;
            Ok(())
        }
        .boxed()
    }

    async fn bytes(&self, digest: &Digest, by: &Name) -> Result<Bytes, LayoutError> {
        let longest = self.repository.registry().options().max_manifest as u64;
        let content = self.source.blob(digest, by).await?;
        let bytes = content.bytes(longest, "a manifest").await?;
        let computed = Digest::of(digest.algorithm(), &bytes);
        if computed != *digest {
            return Err(content.damaged(format!("its bytes have digest {computed}")));
        }
        Ok(bytes)
    }

    async fn has_manifest(&self, digest: &Digest) -> Result<bool, LayoutError> {
        Ok(self.repository.stat_manifest(&Reference::Digest(digest.clone())).await?.is_some())
    }

    async fn blob(&mut self, digest: &Digest, by: &Name) -> Result<(), LayoutError> {
        if self.repository.rely_on_linked(digest).await?.is_some() {
            self.done.present += 1;
            return Ok(());
        }
        let content = self.source.blob(digest, by).await?;
        let put = self.repository.put_blob(digest, Some(content.len), content.pieces().await?).await;
        put.map_err(|error| match error.code() {
            ErrorCode::DigestInvalid => content.damaged(&error),
            _ => error.into(),
        })?;
        self.done.sealed.objects += 1;
        self.done.sealed.bytes += content.len;
        (self.progress)(self.done.sealed.bytes);
        Ok(())
    }

    /// Those without a name that refer to something. What can't be read refers to nothing, and nobody asked for it.
    async fn referrers<'i>(&self, index: &'i Index) -> Result<Referrers<'i>, LayoutError> {
        let mut referrers = Referrers::new();
        for entry in index.manifests.iter().filter(|entry| entry.name().is_none()) {
            let Ok(digest) = parse_digest(&entry.digest) else { continue };
            let bytes = match self.bytes(&digest, &Name::Index).await {
                Ok(bytes) => bytes,
                Err(LayoutError::Damaged(_) | LayoutError::Invalid(_)) => continue,
                Err(error) => return Err(error),
            };
            if let Ok(Parsed { subject: Some(subject), .. }) = Parsed::new(Some(&entry.media_type), &bytes) {
                referrers.entry(subject).or_default().push(entry);
            }
        }
        Ok(referrers)
    }
}

/// The tag in what a layout calls a manifest: that alone, or a whole reference that ends with one.
fn tag_of(name: &str) -> Result<Tag, LayoutError> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = match last.rsplit_once(':') {
        Some((_, tag)) => tag,
        None if last.len() == name.len() => name,
        None => "",
    };
    tag.parse().map_err(|_| {
        LayoutError::Invalid(format!(
            "the layout calls a manifest `{name}`, which has no tag; take it with --only and --tag"
        ))
    })
}
