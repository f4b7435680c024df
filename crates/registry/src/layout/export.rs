//! From a repository into a layout.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use bulla::{Algorithm, Digest, Tally};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Entry, INDEX, Index, LAYOUT, LayoutError, MAX_DEPTH, REF_NAME, at, blob, too_deep};
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
    folder: &'a Path,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Manifests that were exported: many indexes may have the same.
    seen: HashSet<Digest>,
    done: Export,
}

impl Repository {
    /// Writes a manifest and all that it needs into the layout in `folder`, which is made, or added to; under its tag, if it
    /// is asked for by one. Other programs see it once it is whole. `progress` hears how many bytes were written.
    ///
    /// # Errors
    /// `Invalid` where the repository has no such manifest, or the folder holds something else; `Io` where a file can't be
    /// written; what the registry says.
    ///
    /// # Cancel safety
    /// Contents that were written stay, and nothing names them; export it again.
    pub async fn export_layout(
        &self,
        reference: &Reference,
        folder: &Path,
        options: &ExportOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Export, LayoutError> {
        let Some(manifest) = self.manifest(reference).await? else {
            return Err(LayoutError::Invalid(format!("{} has no {reference}", self.name())));
        };
        let mut index = prepare(folder).await?;
        let digest = manifest.digest.clone();
        let done = Export { digest: digest.clone(), manifests: 0, written: Tally::default(), present: 0 };
        let mut exporting = Exporting { repository: self, folder, progress, seen: HashSet::new(), done };
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
        let bytes = serde_json::to_vec(&index).map_err(|error| LayoutError::Invalid(error.to_string()))?;
        write(&folder.join(INDEX), stream::iter([Ok(Bytes::from(bytes))]).boxed()).await?;
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
                let (Need::Blob(needed) | Need::Manifest(needed)) = &need;
                if let Need::Manifest(_) = need
                    && let Some(child) = self.repository.manifest(&Reference::Digest(needed.clone())).await?
                {
                    self.manifest(child.media_type, child.digest, child.bytes, depth + 1).await?;
                    continue;
                }
                self.blob(needed).await?;
            }
            self.done.manifests += 1;
            let len = bytes.len() as u64;
            self.content(&digest, len, stream::iter([Ok(bytes)]).boxed()).await
        }
        .boxed()
    }

    async fn blob(&mut self, digest: &Digest) -> Result<(), LayoutError> {
        let Some(found) = self.repository.open_blob(digest).await? else {
            return Err(LayoutError::Invalid(format!(
                "{} has no {digest}, which its manifest needs",
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
        let path = blob(self.folder, digest);
        // It may have been damaged since; then it is written again.
        let is_there = tokio::fs::metadata(&path).await.is_ok_and(|meta| meta.len() == len);
        if is_there && has_digest(&path, digest).await? {
            self.done.present += 1;
            return Ok(());
        }
        write(&path, content).await?;
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

/// Whether the file's content is what its name says.
async fn has_digest(path: &Path, digest: &Digest) -> Result<bool, LayoutError> {
    async fn hash<H: sha2::Digest>(mut file: tokio::fs::File) -> io::Result<String> {
        let mut hasher = H::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut piece).await?;
            if read == 0 {
                return Ok(HEXLOWER.encode(&hasher.finalize()));
            }
            hasher.update(&piece[..read]);
        }
    }
    let file = tokio::fs::File::open(path).await.map_err(at(path))?;
    let hex = match digest.algorithm() {
        Algorithm::Sha512 => hash::<sha2::Sha512>(file).await,
        _ => hash::<sha2::Sha256>(file).await,
    };
    Ok(digest.to_string().ends_with(&format!(":{}", hex.map_err(at(path))?)))
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

/// The layout that is there, or an empty one in a folder that is empty or not there.
async fn prepare(folder: &Path) -> Result<Index, LayoutError> {
    if let Some(index) = Index::read(folder).await? {
        return Ok(index);
    }
    let is_other = match tokio::fs::read_dir(folder).await {
        Ok(mut names) => {
            names.next_entry().await.map_err(at(folder))?.is_some_and(|first| first.file_name() != LAYOUT)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(source) => return Err(LayoutError::Io { path: folder.to_owned(), source }),
    };
    if is_other && tokio::fs::metadata(folder.join(LAYOUT)).await.is_err() {
        return Err(LayoutError::Invalid(format!(
            "{} is neither an OCI layout nor empty; choose another folder",
            folder.display()
        )));
    }
    let version = Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#);
    write(&folder.join(LAYOUT), stream::iter([Ok(version)]).boxed()).await?;
    Ok(Index { schema_version: 2, manifests: Vec::new(), more: Map::new() })
}

/// Writes a file beside its place and then moves it there, so that nobody sees a part of it.
async fn write(
    path: &Path,
    mut content: BoxStream<'_, Result<Bytes, LayoutError>>,
) -> Result<(), LayoutError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(folder).await.map_err(at(folder))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = Beside(folder.join(format!(".{name}.{}", std::process::id())));
    let mut file = tokio::fs::File::create(&beside.0).await.map_err(at(&beside.0))?;
    while let Some(piece) = content.try_next().await? {
        file.write_all(&piece).await.map_err(at(&beside.0))?;
    }
    file.sync_all().await.map_err(at(&beside.0))?;
    tokio::fs::rename(&beside.0, path).await.map_err(at(path))?;
    // The name is a content of the folder.
    let folder = tokio::fs::File::open(folder).await.map_err(at(folder))?;
    folder.sync_all().await.map_err(at(path))
}

/// A file that goes unless it got its name: what could not be finished, or was given up, is nothing.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
