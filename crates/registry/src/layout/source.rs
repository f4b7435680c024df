//! Where a layout is read from: a folder, or one file with the same names in it. Nothing is ever unpacked.

use std::fmt;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use bulla::Digest;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::error::Category;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::archive::Archive;
use super::{DOCKER_IMAGES, INDEX, Index, LAYOUT, LayoutError, MAX_INDEX, Name, at};

/// Bytes read from a file at once.
const PIECE: usize = 1 << 20;

pub(super) enum Source {
    Folder(PathBuf),
    Archive(Archive),
}

/// What has one name in a layout: a file, or a part of one.
pub(super) struct Content {
    /// For errors: as if archives were folders.
    shown: PathBuf,
    file: PathBuf,
    at: u64,
    pub(super) len: u64,
}

impl Source {
    /// A file is an archive, anything else a folder.
    pub(super) async fn open(path: &Path) -> Result<Self, LayoutError> {
        match tokio::fs::metadata(path).await {
            Ok(meta) if meta.is_file() => Ok(Self::Archive(Archive::open(path).await?)),
            Ok(_) => Ok(Self::Folder(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Folder(path.to_owned())),
            Err(source) => Err(LayoutError::Io { path: path.to_owned(), source }),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Archive(archive) => archive.path(),
        }
    }

    async fn find(&self, name: &Name) -> Result<Option<Content>, LayoutError> {
        let shown = self.path().join(name.to_string());
        match self {
            Self::Folder(_) => match tokio::fs::metadata(&shown).await {
                Ok(meta) => Ok(Some(Content { file: shown.clone(), shown, at: 0, len: meta.len() })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(LayoutError::Io { path: shown, source }),
            },
            Self::Archive(archive) => Ok(archive.find(name).map(|place| {
                let file = archive.path().to_owned();
                Content { shown, file, at: place.start, len: place.end - place.start }
            })),
        }
    }

    /// The index of a layout; `None` where there is no layout.
    pub(super) async fn index(&self) -> Result<Option<Index>, LayoutError> {
        let (Some(content), Some(_)) = (self.find(&Name::Index).await?, self.find(&Name::Layout).await?)
        else {
            return Ok(None);
        };
        let bytes = content.bytes(MAX_INDEX, "an index").await?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let why = format!("{} is no index: {error}", content.shown.display());
            match error.classify() {
                Category::Data => LayoutError::Invalid(why),
                _ => LayoutError::Damaged(why),
            }
        })
    }

    /// Why there is no layout, and what there is instead, if others make images of it.
    pub(super) async fn no_layout(&self) -> LayoutError {
        let path = self.path().display();
        let other = match self {
            Self::Archive(archive) => {
                archive.has_docker_images().then_some(("docker-archive", "oci-archive:NEW.tar:TAG"))
            }
            Self::Folder(folder) => {
                let is_dir = tokio::fs::metadata(folder.join(DOCKER_IMAGES)).await.is_ok();
                is_dir.then_some(("dir", "oci:NEW:TAG"))
            }
        };
        LayoutError::Invalid(match other {
            Some((kind, new)) => format!(
                "{path} is what skopeo calls `{kind}:`, and no OCI layout; convert it: `skopeo copy {kind}:{path} {new}`"
            ),
            None => format!(
                "there is no OCI layout at {path}: a folder, or a tar of one, with the files {LAYOUT} and {INDEX}"
            ),
        })
    }

    /// The content with this digest, which it need not have, and which `by` needs.
    pub(super) async fn blob(&self, digest: &Digest, by: &Name) -> Result<Content, LayoutError> {
        let name = Name::Blob(digest.clone());
        self.find(&name).await?.ok_or_else(|| {
            let path = self.path().display();
            LayoutError::Damaged(format!("{path} has no `{name}`, which `{by}` needs; get the layout again"))
        })
    }
}

impl Content {
    /// What is in it is not what its name says.
    pub(super) fn damaged(&self, why: impl fmt::Display) -> LayoutError {
        LayoutError::Damaged(format!("{} is damaged: {why}; get the layout again", self.shown.display()))
    }

    async fn open(&self) -> Result<File, LayoutError> {
        let mut file = File::open(&self.file).await.map_err(at(&self.shown))?;
        if self.at > 0 {
            file.seek(SeekFrom::Start(self.at)).await.map_err(at(&self.shown))?;
        }
        Ok(file)
    }

    /// All of it, unless it is longer than `what` may be.
    pub(super) async fn bytes(&self, longest: u64, what: &str) -> Result<Bytes, LayoutError> {
        if self.len > longest {
            return Err(LayoutError::Invalid(format!("{} is too long to be {what}", self.shown.display())));
        }
        let mut bytes = Vec::new();
        self.open().await?.take(self.len).read_to_end(&mut bytes).await.map_err(at(&self.shown))?;
        Ok(bytes.into())
    }

    /// It, piece by piece. Shorter than [`len`](Self::len) if the file was cut since.
    pub(super) async fn pieces(&self) -> Result<BoxStream<'static, io::Result<Bytes>>, LayoutError> {
        let content = self.open().await?.take(self.len);
        let pieces = stream::try_unfold(content, |mut content| async move {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut content).take(PIECE as u64).read_to_end(&mut piece).await?;
            Ok((read > 0).then(|| (Bytes::from(piece), content)))
        });
        Ok(pieces.boxed())
    }
}
