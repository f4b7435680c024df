//! From a layout into a repository.

use std::path::Path;

use bulla::{Digest, Tally};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;

use super::{Index, LAYOUT, LayoutError, MAX_DEPTH, at, blob, too_deep};
use crate::manifest::{Need, Parsed};
use crate::manifests::PutManifest;
use crate::name::{Reference, Tag, parse_digest};
use crate::registry::Repository;

/// Bytes read from a file at once.
const PIECE: usize = 1 << 20;

/// What is imported.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Only the manifest that the layout calls so. Without it all manifests.
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

impl Repository {
    /// Takes the images of the layout in `folder`. `progress` hears how many bytes were sealed.
    ///
    /// # Errors
    /// `Invalid` where there is no layout, or not what was asked for; `Io` where a file is missing or can't be read; what the
    /// registry says, such as that a content is not what its name says.
    ///
    /// # Cancel safety
    /// What was imported stays; import it again.
    pub async fn import_layout(
        &self,
        folder: &Path,
        options: &ImportOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Import, LayoutError> {
        let missing = || LayoutError::Invalid(format!("there is no OCI layout at {}", folder.display()));
        let index = Index::read(folder).await?.ok_or_else(missing)?;
        if tokio::fs::metadata(folder.join(LAYOUT)).await.is_err() {
            return Err(missing());
        }
        let mut wanted: Vec<_> = index.manifests.iter().collect();
        if let Some(only) = &options.only {
            wanted.retain(|entry| entry.name() == Some(only));
            if wanted.is_empty() {
                let names: Vec<&str> = index.manifests.iter().filter_map(super::Entry::name).collect();
                let names = names.join(", ");
                return Err(LayoutError::Invalid(format!("the layout has no `{only}`; it has: {names}")));
            }
        }
        if options.tag.is_some() && wanted.len() != 1 {
            return Err(LayoutError::Invalid(format!(
                "the layout has {} manifests, which can't all have one tag; say which",
                wanted.len()
            )));
        }
        let mut done = Import::default();
        for entry in wanted {
            let digest = parse_digest(&entry.digest)?;
            let tag = match (&options.tag, entry.name()) {
                (Some(tag), _) => Some(tag.clone()),
                // Some write the whole reference.
                (None, Some(name)) => Some(tag_of(name)?),
                (None, None) => None,
            };
            let media_type = Some(&*entry.media_type);
            self.import(folder, &digest, media_type, tag.as_slice(), 0, &mut done, progress).await?;
            done.tags.extend(tag.map(|tag| (tag, digest)));
        }
        Ok(done)
    }

    #[allow(clippy::too_many_arguments, reason = "it calls itself")]
    fn import<'a>(
        &'a self,
        folder: &'a Path,
        digest: &'a Digest,
        media_type: Option<&'a str>,
        tags: &'a [Tag],
        depth: usize,
        done: &'a mut Import,
        progress: &'a (dyn Fn(u64) + Send + Sync),
    ) -> BoxFuture<'a, Result<(), LayoutError>> {
        async move {
            if depth > MAX_DEPTH {
                return Err(too_deep(digest));
            }
            let path = blob(folder, digest);
            let len = tokio::fs::metadata(&path).await.map_err(at(&path))?.len();
            if len > self.registry().options().max_manifest as u64 {
                return Err(LayoutError::Invalid(format!("{} is too long to be a manifest", path.display())));
            }
            let bytes = Bytes::from(tokio::fs::read(&path).await.map_err(at(&path))?);
            let parsed = Parsed::new(media_type, &bytes)?;
            for need in &parsed.needs {
                match need {
                    Need::Manifest(child) if !self.has_manifest(child).await? => {
                        self.import(folder, child, None, &[], depth + 1, done, progress).await?;
                    }
                    Need::Manifest(_) => {}
                    Need::Blob(blob) => self.import_blob(folder, blob, done, progress).await?,
                }
            }
            let mut put = PutManifest::default();
            (put.digest, put.tags, put.bytes) = (Some(digest.clone()), tags.to_vec(), bytes);
            put.media_type = Some(parsed.media_type);
            self.put_manifest(put).await?;
            done.manifests += 1;
            Ok(())
        }
        .boxed()
    }

    async fn has_manifest(&self, digest: &Digest) -> Result<bool, LayoutError> {
        Ok(self.stat_manifest(&Reference::Digest(digest.clone())).await?.is_some())
    }

    async fn import_blob(
        &self,
        folder: &Path,
        digest: &Digest,
        done: &mut Import,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), LayoutError> {
        if self.stat_blob(digest).await?.is_some() {
            done.present += 1;
            return Ok(());
        }
        let path = blob(folder, digest);
        let file = tokio::fs::File::open(&path).await.map_err(at(&path))?;
        let len = file.metadata().await.map_err(at(&path))?.len();
        self.put_blob(digest, Some(len), pieces(file)).await?;
        done.sealed.objects += 1;
        done.sealed.bytes += len;
        progress(done.sealed.bytes);
        Ok(())
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

fn pieces(file: tokio::fs::File) -> BoxStream<'static, std::io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
        Ok((read > 0).then(|| (Bytes::from(piece), file)))
    })
    .boxed()
}
