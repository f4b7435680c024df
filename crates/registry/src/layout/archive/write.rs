//! A tar that is written as its contents come.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use bulla::Digest;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::layout::beside::Beside;
use crate::layout::{LayoutError, Name, at};

/// A tar is a whole number of these, and ends with two that are empty.
const BLOCK: u64 = 512;
const BUFFER: usize = 1 << 20;

/// An archive that has its name only once it is whole.
pub(in crate::layout) struct ArchiveWriter {
    path: PathBuf,
    beside: Beside,
    file: BufWriter<File>,
    contents: HashSet<Digest>,
}

impl ArchiveWriter {
    /// # Errors
    /// `Invalid` where there is something already: a tar can't be added to while others read it.
    pub(in crate::layout) async fn create(path: &Path) -> Result<Self, LayoutError> {
        match tokio::fs::symlink_metadata(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LayoutError::Io { path: path.to_owned(), source }),
            Ok(_) => {
                return Err(LayoutError::Exists(format!(
                    "{} is there already; choose another name, or a folder, which can be added to",
                    path.display()
                )));
            }
        }
        let (beside, file) = Beside::create(path).await?;
        let file = BufWriter::with_capacity(BUFFER, file);
        Ok(Self { path: path.to_owned(), beside, file, contents: HashSet::new() })
    }

    pub(in crate::layout) fn has(&self, digest: &Digest) -> bool {
        self.contents.contains(digest)
    }

    /// Adds what has this name; the content must have that length.
    pub(in crate::layout) async fn put(
        &mut self,
        name: Name,
        len: u64,
        mut content: BoxStream<'_, Result<Bytes, LayoutError>>,
    ) -> Result<(), LayoutError> {
        self.write(&header(&name, len).map_err(at(&self.path))?).await?;
        let mut written = 0;
        while let Some(piece) = content.try_next().await? {
            self.write(&piece).await?;
            written += piece.len() as u64;
        }
        if written != len {
            return Err(LayoutError::Invalid(format!("`{name}` has {written} bytes and not {len}")));
        }
        self.pad(len.next_multiple_of(BLOCK) - len).await?;
        if let Name::Blob(digest) = name {
            self.contents.insert(digest);
        }
        Ok(())
    }

    /// Ends the archive, and gives it its name.
    pub(in crate::layout) async fn finish(mut self) -> Result<(), LayoutError> {
        self.pad(2 * BLOCK).await?;
        self.file.flush().await.map_err(at(self.beside.path()))?;
        self.beside.name(self.file.into_inner(), &self.path).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LayoutError> {
        self.file.write_all(bytes).await.map_err(at(self.beside.path()))
    }

    async fn pad(&mut self, len: u64) -> Result<(), LayoutError> {
        tokio::io::copy(&mut tokio::io::AsyncReadExt::take(tokio::io::repeat(0), len), &mut self.file)
            .await
            .map(drop)
            .map_err(at(self.beside.path()))
    }
}

/// What is before a content of this length. The same names and contents make the same archive, whoever makes it and when.
fn header(name: &Name, len: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name.to_string(), io::empty())?;
    // Without the end that `into_inner` would write.
    Ok(std::mem::take(builder.get_mut()))
}

#[cfg(test)]
mod tests {
    use bulla::Algorithm;
    use futures::{StreamExt, stream};
    use tempfile::TempDir;

    use super::*;
    use crate::layout::archive::Archive;

    #[tokio::test]
    async fn what_is_written_is_found() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.tar");
        let mut writer = ArchiveWriter::create(&path).await.unwrap();
        let contents = [b"".to_vec(), b"one".to_vec(), vec![2; 512], vec![3; 513], vec![4; 3 << 20]];
        let names = contents.iter().zip([Algorithm::Sha256, Algorithm::Sha512].into_iter().cycle());
        let names: Vec<Name> =
            names.map(|(content, algorithm)| Name::Blob(Digest::of(algorithm, content))).collect();
        for (name, content) in names.iter().zip(&contents) {
            let pieces = content.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
            writer.put(name.clone(), content.len() as u64, stream::iter(pieces).boxed()).await.unwrap();
        }
        assert!(!path.exists(), "it is not whole");
        writer.finish().await.unwrap();
        let (bytes, archive) = (std::fs::read(&path).unwrap(), Archive::open(&path).await.unwrap());
        for (name, content) in names.iter().zip(&contents) {
            let place = archive.find(name).unwrap();
            let place = usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap();
            assert!(bytes[place] == **content);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(ArchiveWriter::create(&path).await, Err(LayoutError::Exists(_))));
    }

    #[tokio::test]
    async fn what_is_given_up_is_nothing() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.tar");
        let mut writer = ArchiveWriter::create(&path).await.unwrap();
        let short = stream::iter([Ok(Bytes::from_static(b"12"))]).boxed();
        assert!(matches!(writer.put(Name::Index, 3, short).await, Err(LayoutError::Invalid(_))));
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// More than the eleven octal digits of a header.
    #[test]
    fn a_layer_may_be_long() {
        let bytes = header(&Name::Index, 20 << 30).unwrap();
        assert_eq!(tar::Header::from_byte_slice(&bytes).entry_size().unwrap(), 20 << 30);
        assert_eq!(bytes.len() as u64, BLOCK);
    }
}
