//! A bucket that another program writes: it is listed and read, and objects are removed from it. Nothing is ever written.

mod walk;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use super::files::{blocking, generic, sync_dir};
use super::{Bucket, BucketError, BucketErrorKind, Entry, parse_key};

/// Bytes in one ranged GET, and how many are on their way at once in one stream.
const PIECE: u64 = 4 << 20;
const READ_AHEAD: usize = 2;

/// A bucket, or the part of it below a prefix, that another program writes: see [`StoreUrl::connect_foreign`]. Cheap to clone.
///
/// Unlike a [`Bucket`], it has no tombstones (an empty object is an empty object), and in a folder neither a lock nor anything
/// else of ours.
///
/// [`StoreUrl::connect_foreign`]: super::StoreUrl::connect_foreign
#[derive(Clone)]
pub struct ForeignBucket {
    bucket: Bucket,
    /// If it is a folder.
    root: Option<PathBuf>,
}

impl ForeignBucket {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self { bucket, root: None }
    }

    /// All of an object store that is no folder; see [`StoreUrl::connect_foreign`] for these.
    ///
    /// [`StoreUrl::connect_foreign`]: super::StoreUrl::connect_foreign
    ///
    /// # Errors
    /// As [`Bucket::from_object_store`].
    pub fn from_object_store(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, BucketError> {
        Bucket::from_object_store(store, prefix).map(Self::new)
    }

    /// A whole folder, which must be there. Folders that become empty are removed with their last object.
    pub(super) fn folder(root: &Path) -> Result<Self, BucketError> {
        // Else it would be made.
        if !root.is_dir() {
            let message = format!("there is no folder {}", root.display());
            return Err(BucketError::new(BucketErrorKind::NotFound, message));
        }
        let files = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| BucketError::from_store("open", &root.display().to_string(), error))?
            .with_automatic_cleanup(true);
        let bucket = Bucket::from_object_store(Arc::new(files), "")?;
        Ok(Self { bucket, root: Some(root.to_path_buf()) })
    }

    /// Every object below `prefix` (`""`: in the bucket), in no particular order. `prefix` names whole parts of a key.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry, BucketError>> {
        self.bucket.list(prefix)
    }

    /// What there is below `prefix` beside the files and folders of a folder, ascending: symbolic links to files and to
    /// nowhere, which all else here takes for what they point to; pipes, sockets and devices; and files that no listing shows. A
    /// link to a folder is one, unless the folder is there already. Nothing in a bucket.
    ///
    /// # Errors
    /// [`BucketErrorKind::Unavailable`] if a folder can't be read.
    ///
    /// # Cancel safety
    /// Yes: reading changes nothing.
    pub async fn irregular(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let Some(root) = self.root.clone() else { return Ok(Vec::new()) };
        let below = root.join(parse_key(prefix)?.as_ref());
        let found = blocking(move || walk::irregular(&root, below).map_err(generic)).await;
        found.map_err(|error| BucketError::from_store("list", prefix, error))
    }

    /// Reads an object whole, or `None` if there is none.
    ///
    /// # Errors
    /// [`BucketErrorKind::TooLarge`], before anything of it is read, if it has more than `max_len` bytes; otherwise what the
    /// store says.
    ///
    /// # Cancel safety
    /// Yes: reading changes nothing.
    pub async fn get(&self, key: &str, max_len: usize) -> Result<Option<Bytes>, BucketError> {
        Ok(self.bucket.get(key, max_len).await?.map(|object| object.bytes))
    }

    /// The first `size` bytes of an object, in order, by ranged GETs of 4 MiB, two at a time.
    ///
    /// The stream fails with [`BucketErrorKind::NotFound`], with [`BucketErrorKind::ShortObject`] if the object is shorter,
    /// and with what the store says. Whether the object was replaced meanwhile is for the reader to find out.
    pub fn stream(&self, key: &str, size: u64) -> BoxStream<'static, Result<Bytes, BucketError>> {
        let (bucket, key) = (self.bucket.clone(), key.to_owned());
        let starts = (0..size.div_ceil(PIECE)).map(|piece| piece * PIECE);
        stream::iter(starts)
            .map(move |start| {
                let (bucket, key) = (bucket.clone(), key.clone());
                async move { bucket.get_range(&key, start..size.min(start + PIECE)).await }
            })
            .buffered(READ_AHEAD)
            .boxed()
    }

    /// Removes objects for good, with as few requests as the store can do it, durably. It is no error if some are not there.
    ///
    /// # Errors
    /// The first failure; the others are removed all the same, and any may be gone.
    ///
    /// # Cancel safety
    /// A dropped delete may or may not be applied, even later.
    pub async fn delete(&self, keys: &[String]) -> Result<(), BucketError> {
        self.bucket.delete_all(keys).await?;
        let Some(root) = &self.root else { return Ok(()) };
        let mut folders = BTreeSet::new();
        for key in keys {
            let path = root.join(parse_key(key)?.as_ref());
            folders.extend(path.ancestors().find(|folder| folder.is_dir()).map(Path::to_path_buf));
        }
        let synced = folders.iter().try_for_each(|folder| sync_dir(folder));
        synced.map_err(|error| {
            BucketError::new(BucketErrorKind::Unavailable, "removals can't be made durable")
                .with_source(error)
        })
    }
}

/// Names the place, as errors do.
impl fmt::Display for ForeignBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(f)
    }
}

impl fmt::Debug for ForeignBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForeignBucket({self})")
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::bucket::StoreUrl;

    /// One byte more than a piece.
    const LARGE: usize = (4 << 20) + 1;

    fn folder() -> (tempfile::TempDir, ForeignBucket) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::fs::write(temp.path().join("a/b/empty"), "").unwrap();
        std::fs::write(temp.path().join("a/large"), vec![7; LARGE]).unwrap();
        let url = StoreUrl::parse(temp.path().to_str().unwrap()).unwrap();
        (temp, url.connect_foreign().unwrap())
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_foreign_folder_is_read_and_nothing_of_ours_appears_in_it() {
        let (temp, foreign) = folder();
        let mut listed: Vec<_> = foreign.list("a").try_collect().await.unwrap();
        listed.sort_by(|one, other| one.key.cmp(&other.key));
        let listed: Vec<_> = listed.iter().map(|entry| (&*entry.key, entry.size)).collect();
        assert_eq!(listed, [("a/b/empty", 0), ("a/large", LARGE as u64)]);
        assert_eq!(foreign.list("none").try_collect::<Vec<_>>().await.unwrap().len(), 0);
        assert_eq!(foreign.get("a/b/empty", 0).await.unwrap().unwrap().len(), 0);
        assert!(foreign.get("a/none", 0).await.unwrap().is_none());
        assert_eq!(foreign.get("a/large", 10).await.unwrap_err().kind(), BucketErrorKind::TooLarge);
        let read: Vec<Bytes> = foreign.stream("a/large", LARGE as u64).try_collect().await.unwrap();
        assert_eq!(read.concat(), vec![7; LARGE]);
        let short = foreign.stream("a/large", LARGE as u64 + 1).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(short.kind(), BucketErrorKind::ShortObject);
        let none = foreign.stream("none", 1).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(none.kind(), BucketErrorKind::NotFound);
        assert_eq!(names(temp.path()), ["a"]);
    }

    #[tokio::test]
    async fn removed_objects_leave_no_empty_folders() {
        let (temp, foreign) = folder();
        foreign.delete(&["a/b/empty".into(), "a/b/none".into()]).await.unwrap();
        assert_eq!(names(&temp.path().join("a")), ["large"]);
        foreign.delete(&["a/large".into()]).await.unwrap();
        assert_eq!(names(temp.path()).len(), 0);
        assert!(temp.path().exists());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_no_file_is_named() {
        use std::os::unix::fs::symlink;
        let (temp, foreign) = folder();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("file"), "x").unwrap();
        symlink(elsewhere.path().join("file"), temp.path().join("a/file")).unwrap();
        symlink(elsewhere.path(), temp.path().join("a/folder")).unwrap();
        symlink("nowhere", elsewhere.path().join("broken")).unwrap();
        symlink(elsewhere.path(), elsewhere.path().join("circle")).unwrap();
        symlink(elsewhere.path(), elsewhere.path().join("other")).unwrap();
        std::fs::write(temp.path().join("a/b/hidden#1"), "x").unwrap();
        let found = foreign.irregular("a").await.unwrap();
        let all = ["a/b/hidden#1", "a/file", "a/folder/broken", "a/folder/circle", "a/folder/other"];
        assert_eq!(found, all);
        assert_eq!(foreign.irregular("none").await.unwrap().len(), 0);
    }

    #[test]
    fn a_missing_folder_is_not_made() {
        let temp = tempfile::tempdir().unwrap();
        let url = StoreUrl::parse(temp.path().join("none").to_str().unwrap()).unwrap();
        assert_eq!(url.connect_foreign().unwrap_err().kind(), BucketErrorKind::NotFound);
        assert!(!temp.path().join("none").exists());
    }
}
