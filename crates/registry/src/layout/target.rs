//! Where a layout is written to: a folder, or an archive.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use bulla::{Algorithm, Digest};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde_json::Map;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::archive::ArchiveWriter;
use super::beside::{Beside, parent, sweep};
use super::source::Source;
use super::{Index, LayoutError, Name, at};

pub(super) enum Target {
    Folder(PathBuf),
    Archive(Box<ArchiveWriter>),
}

impl Target {
    /// An archive where the name says so, else a folder, which is made or added to; and the index that is there.
    pub(super) async fn open(path: &Path) -> Result<(Self, Index), LayoutError> {
        let is_folder = tokio::fs::metadata(path).await.is_ok_and(|meta| meta.is_dir());
        let is_archive = !is_folder && path.extension() == Some(OsStr::new("tar"));
        let packed = ["gz", "tgz", "zst", "xz", "bz2"].map(OsStr::new);
        if !is_folder && path.extension().is_some_and(|extension| packed.contains(&extension)) {
            return Err(LayoutError::Invalid(format!(
                "{} would be compressed; layers are already: choose a name that ends in .tar, or a folder",
                path.display()
            )));
        }
        sweep_all(path, is_archive);
        let found = match is_archive {
            true => None,
            false => Source::Folder(path.to_owned()).index().await?,
        };
        if let Some(index) = found {
            return Ok((Self::Folder(path.to_owned()), index));
        }
        let mut target = if is_archive {
            Self::Archive(Box::new(ArchiveWriter::create(path).await?))
        } else {
            refuse_other(path).await?;
            Self::Folder(path.to_owned())
        };
        let version = Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#);
        target.put_bytes(Name::Layout, version).await?;
        Ok((target, Index { schema_version: 2, manifests: Vec::new(), more: Map::new() }))
    }

    /// Whether the content is there. It may have been damaged since it was written; then it is not.
    pub(super) async fn has(&self, digest: &Digest, len: u64) -> Result<bool, LayoutError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(Name::Blob(digest.clone()).to_string());
                let is_there = tokio::fs::metadata(&path).await.is_ok_and(|meta| meta.len() == len);
                Ok(is_there && has_digest(&path, digest).await?)
            }
            Self::Archive(archive) => Ok(archive.has(digest)),
        }
    }

    /// Writes what has this name, of this length.
    pub(super) async fn put(
        &mut self,
        name: Name,
        len: u64,
        content: BoxStream<'_, Result<Bytes, LayoutError>>,
    ) -> Result<(), LayoutError> {
        match self {
            Self::Folder(folder) => write(&folder.join(name.to_string()), content).await,
            Self::Archive(archive) => archive.put(name, len, content).await,
        }
    }

    async fn put_bytes(&mut self, name: Name, bytes: Bytes) -> Result<(), LayoutError> {
        self.put(name, bytes.len() as u64, stream::iter([Ok(bytes)]).boxed()).await
    }

    /// Writes the index, after which all that it names is to be seen.
    pub(super) async fn finish(mut self, index: &Index) -> Result<(), LayoutError> {
        let bytes = serde_json::to_vec(index).map_err(|error| LayoutError::Invalid(error.to_string()))?;
        self.put_bytes(Name::Index, bytes.into()).await?;
        match self {
            Self::Folder(_) => Ok(()),
            Self::Archive(archive) => archive.finish().await,
        }
    }
}

/// Removes what exports to the same place left when they were killed.
fn sweep_all(path: &Path, is_archive: bool) {
    if is_archive {
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        return sweep(parent(path), |name| name == own);
    }
    sweep(path, |name| matches!(Name::of(name), Some(Name::Layout | Name::Index)));
    for algorithm in ["sha256", "sha512"] {
        let folder = format!("blobs/{algorithm}");
        sweep(&path.join(&folder), |name| Name::of(&format!("{folder}/{name}")).is_some());
    }
}

/// Nothing is written into a folder with something else in it.
async fn refuse_other(folder: &Path) -> Result<(), LayoutError> {
    let is_other = match tokio::fs::read_dir(folder).await {
        Ok(mut names) => {
            let first = names.next_entry().await.map_err(at(folder))?;
            first.is_some_and(|first| first.file_name() != OsStr::new(super::LAYOUT))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(LayoutError::Invalid(format!(
                "{} is a file; choose a folder, or a name that ends in .tar",
                folder.display()
            )));
        }
        Err(source) => return Err(LayoutError::Io { path: folder.to_owned(), source }),
    };
    if is_other && tokio::fs::metadata(folder.join(super::LAYOUT)).await.is_err() {
        return Err(LayoutError::Invalid(format!(
            "{} is neither an OCI layout nor empty; choose another folder",
            folder.display()
        )));
    }
    Ok(())
}

/// Whether the file's content is what its name says.
async fn has_digest(path: &Path, digest: &Digest) -> Result<bool, LayoutError> {
    async fn hash<H: sha2::Digest>(mut file: File) -> io::Result<String> {
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
    let file = File::open(path).await.map_err(at(path))?;
    let hex = match digest.algorithm() {
        Algorithm::Sha512 => hash::<sha2::Sha512>(file).await,
        _ => hash::<sha2::Sha256>(file).await,
    };
    Ok(digest.to_string().ends_with(&format!(":{}", hex.map_err(at(path))?)))
}

/// Writes a file beside its place and then moves it there, so that nobody sees a part of it.
async fn write(
    path: &Path,
    mut content: BoxStream<'_, Result<Bytes, LayoutError>>,
) -> Result<(), LayoutError> {
    let folder = parent(path);
    tokio::fs::create_dir_all(folder).await.map_err(at(folder))?;
    let (beside, mut file) = Beside::create(path).await?;
    while let Some(piece) = content.try_next().await? {
        file.write_all(&piece).await.map_err(at(beside.path()))?;
    }
    beside.name(file, path).await
}
