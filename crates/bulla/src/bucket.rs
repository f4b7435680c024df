//! The bucket: the only way from the engine to stored objects.
//!
//! A [`Bucket`] is an object store and a prefix in it. It turns object_store's many ways of answering into few
//! ([`Option`], [`Conditional`], [`BucketError`]) and evens out what stores can't all do: where objects can be
//! replaced conditionally they are "deleted" by a tombstone, and in folders they are removed for real
//! (ARCHITECTURE.md, "Tombstones or removal"). It knows keys and bytes; what they mean, it refuses to know.

mod cloud;
mod conditional;
mod error;
mod files;
mod foreign;
mod probe;
mod rights;
mod url;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::buffers::Buffers;

pub use object_store::UpdateVersion;

pub use self::conditional::Conditional;
pub use self::error::{BucketError, BucketErrorKind};
pub use self::files::FileStore;
pub use self::foreign::ForeignBucket;
pub(crate) use self::probe::PROBE;
pub use self::rights::Rights;
pub use self::url::StoreUrl;

/// An object store and a prefix in it. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// The same store if it is a folder, which can do more.
    files: Option<FileStore>,
    prefix: Path,
}

/// An object that was read whole.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it contains.
    pub bytes: Bytes,
    /// For the next conditional write.
    pub version: UpdateVersion,
    /// When it was written, by the bucket's clock.
    pub last_modified: SystemTime,
}

impl Object {
    /// Whether it stands for a removed object: readers say "not found", writers may replace it.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        is_tombstone(self.bytes.len() as u64)
    }
}

/// CBOR `[1, nonce]`: 19 bytes, which no envelope is short enough for (FORMAT-P12).
const TOMBSTONE_HEAD: [u8; 3] = [0x82, 0x01, 0x50];
const TOMBSTONE_LEN: u64 = 19;

/// Some stores' ETags are hashes of the content, so equal tombstones would have equal versions: a conditional put that was
/// given up before a delete, and arrives after the next, would bring the blob back.
fn tombstone(nonce: [u8; 16]) -> Vec<u8> {
    [&TOMBSTONE_HEAD[..], &nonce].concat()
}

/// By length alone, so that listings know it too. Other tools can only empty an object.
fn is_tombstone(len: u64) -> bool {
    len == TOMBSTONE_LEN || len == 0
}

/// What a listing tells about an object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Below the bucket's prefix.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// When it was written, by the bucket's clock.
    pub last_modified: SystemTime,
    /// For the next conditional write. Some stores leave parts of it out of listings.
    pub version: UpdateVersion,
}

impl Entry {
    /// Whether it stands for a removed object.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        is_tombstone(self.size)
    }
}

impl Bucket {
    /// The part of `store` that lies below `prefix` (`""`: all of it). For a folder use
    /// [`from_files`](Self::from_files): object_store's own file store lacks what Bulla needs and will be refused.
    ///
    /// # Errors
    /// [`BucketErrorKind::Invalid`] if `prefix` has empty, `.` or `..` parts.
    pub fn from_object_store(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, BucketError> {
        Ok(Self { store, files: None, prefix: parse_key(prefix)? })
    }

    /// A whole folder.
    #[must_use]
    pub fn from_files(store: FileStore) -> Self {
        Self { store: Arc::new(store.clone()), files: Some(store), prefix: Path::default() }
    }

    /// Reads an object whole, or `None` if there is none. A tombstone is an object here.
    ///
    /// # Errors
    /// [`BucketErrorKind::TooLarge`], before anything of it is read, if it has more than `max_len` bytes; otherwise
    /// what the store says.
    ///
    /// # Cancel safety
    /// Yes: reading changes nothing.
    pub async fn get(&self, key: &str, max_len: usize) -> Result<Option<Object>, BucketError> {
        let failed = |error| BucketError::from_store("read", key, error);
        let result = match self.store.get_opts(&self.path(key)?, GetOptions::default()).await {
            Ok(result) => result,
            Err(error) => return absent(error, "read", key),
        };
        let meta = &result.meta;
        if usize::try_from(meta.size).map_or(true, |size| size > max_len) {
            let message = format!("{key} has {} bytes, more than the {max_len} it may have", meta.size);
            return Err(BucketError::new(BucketErrorKind::TooLarge, message));
        }
        let (version, last_modified) = (version(meta), meta.last_modified.into());
        let bytes = result.bytes().await.map_err(failed)?;
        Ok(Some(Object { bytes, version, last_modified }))
    }

    /// Reads exactly the bytes `range` of an object.
    ///
    /// # Errors
    /// [`BucketErrorKind::NotFound`]; [`BucketErrorKind::ShortObject`] if the object ends before the range does;
    /// otherwise what the store says.
    ///
    /// # Cancel safety
    /// Yes: reading changes nothing.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        self.get_range_with(&Buffers::default(), key, range).await
    }

    /// As [`get_range`](Self::get_range), into one of `buffers` where the store leaves that to us.
    pub(crate) async fn get_range_with(
        &self,
        buffers: &Buffers,
        key: &str,
        range: Range<u64>,
    ) -> Result<Bytes, BucketError> {
        let short = || {
            let message = format!("{key} ends before byte {}", range.end);
            BucketError::new(BucketErrorKind::ShortObject, message)
        };
        let path = self.path(key)?;
        let read = async {
            if let Some(files) = &self.files {
                return files.read(&path, range.clone(), buffers).await;
            }
            let range = Some(GetRange::Bounded(range.clone()));
            let options = GetOptions { range, ..GetOptions::default() };
            self.store.get_opts(&path, options).await?.bytes().await
        };
        match read.await {
            Ok(bytes) if u64::try_from(bytes.len()).is_ok_and(|len| len == range.end - range.start) => {
                Ok(bytes)
            }
            Ok(_) => Err(short()),
            // Stores have no common answer to a range that is not there, so ask for the size.
            Err(error @ Error::Generic { .. }) => match self.head(key).await {
                Ok(Some(entry)) if entry.size < range.end => Err(short().with_source(error)),
                _ => Err(BucketError::from_store("read", key, error)),
            },
            Err(error) => Err(BucketError::from_store("read", key, error)),
        }
    }

    /// Size, time and version of an object, or `None` if there is none.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Yes: reading changes nothing.
    pub async fn head(&self, key: &str) -> Result<Option<Entry>, BucketError> {
        match self.store.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(self.entry(meta))),
            Err(error) => absent(error, "look up", key),
        }
    }

    /// Every object below `prefix` (`""`: in the bucket), in no particular order, tombstones included. `prefix`
    /// names whole parts of a key: `blobs/ab` does not match `blobs/abc`.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry, BucketError>> {
        let path = match self.path(prefix) {
            Ok(path) => path,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let (bucket, prefix) = (self.clone(), prefix.to_owned());
        self.store
            .list(Some(&path))
            .map(move |meta| match meta {
                Ok(meta) => Ok(bucket.entry(meta)),
                Err(error) => Err(BucketError::from_store("list", &prefix, error)),
            })
            .boxed()
    }

    /// Writes an object where there is none.
    ///
    /// # Cancel safety
    /// A dropped write may or may not be applied, even later; treat it as [`Conditional::Unknown`].
    pub async fn put_create(&self, key: &str, bytes: impl Into<PutPayload>) -> Conditional {
        self.put_if(key, bytes.into(), PutMode::Create).await
    }

    /// Replaces the object of `version`, tombstones included.
    ///
    /// # Cancel safety
    /// As for [`put_create`](Self::put_create).
    pub async fn put_update(
        &self,
        key: &str,
        bytes: impl Into<PutPayload>,
        version: &UpdateVersion,
    ) -> Conditional {
        self.put_if(key, bytes.into(), PutMode::Update(version.clone())).await
    }

    async fn put_if(&self, key: &str, payload: PutPayload, mode: PutMode) -> Conditional {
        let path = match self.path(key) {
            Ok(path) => path,
            Err(error) => return Conditional::Unknown(error),
        };
        let result = self.store.put_opts(&path, payload, PutOptions::from(mode)).await;
        Conditional::from_result(result.map(UpdateVersion::from), "write", key)
    }

    /// Writes an object under a name that nobody else uses, such as a random one, without asking whether there is
    /// one. So the store may retry it as often as it likes.
    ///
    /// # Errors
    /// What the store says. The object may be there all the same, or appear later.
    ///
    /// # Cancel safety
    /// A dropped write may or may not be applied, even later.
    pub async fn put_new(&self, key: &str, payload: PutPayload) -> Result<(), BucketError> {
        // In a folder, creating takes no lock and overwriting does.
        let mode = if self.files.is_some() { PutMode::Create } else { PutMode::Overwrite };
        match self.store.put_opts(&self.path(key)?, payload, PutOptions::from(mode)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(BucketError::from_store("write", key, error)),
        }
    }

    /// Removes an object that is never replaced, such as an extent or a probe. It is no error if there is none.
    ///
    /// # Errors
    /// What the store says. The object may be gone all the same.
    ///
    /// # Cancel safety
    /// A dropped delete may or may not be applied, even later.
    pub async fn delete_data(&self, key: &str) -> Result<(), BucketError> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BucketError::from_store("delete", key, error)),
        }
    }

    /// Removes many such objects, with as few requests as the store can do it. It is no error if some are not there.
    ///
    /// # Errors
    /// The first failure; the others are removed all the same, and any may be gone.
    ///
    /// # Cancel safety
    /// As for [`delete_data`](Self::delete_data).
    pub async fn delete_all(&self, keys: &[String]) -> Result<(), BucketError> {
        let paths = keys.iter().map(|key| self.path(key)).collect::<Result<Vec<_>, _>>()?;
        let mut deleted = self.store.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        let mut done = Ok(());
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) if done.is_ok() => done = Err(BucketError::from_store("delete", "data", error)),
                Err(_) => {}
            }
        }
        done
    }

    /// When the object of this key, written at `modified`, could be seen, or later. In a folder that is not when it was
    /// written.
    ///
    /// # Errors
    /// [`BucketErrorKind::NotFound`] if it is gone; otherwise what the store says.
    ///
    /// # Cancel safety
    /// Yes: reading changes nothing.
    pub async fn placed(&self, key: &str, modified: SystemTime) -> Result<SystemTime, BucketError> {
        let Some(files) = &self.files else { return Ok(modified) };
        let placed = files.placed(&self.path(key)?).await;
        placed.map_err(|error| BucketError::from_store("look up", key, error))
    }

    /// Copies an object to a name that nobody else uses, with the time of now.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// A dropped copy may or may not be there, even later.
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), BucketError> {
        let copied = self.store.copy(&self.path(from)?, &self.path(to)?).await;
        copied.map_err(|error| BucketError::from_store("copy", from, error))
    }

    /// Whether this is a folder: a request costs little, and one process can't overload it.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.files.is_some()
    }

    /// Removes the object of `version`: in a folder for real, elsewhere by putting a tombstone in its place. `Lost`
    /// also if nothing is there. `nonce` is random and makes the tombstone unlike any other.
    ///
    /// # Cancel safety
    /// As for [`put_create`](Self::put_create).
    pub async fn remove(&self, key: &str, version: &UpdateVersion, nonce: [u8; 16]) -> Conditional<()> {
        let Some(files) = &self.files else {
            return match self.put_update(key, tombstone(nonce), version).await {
                Conditional::Done(_) => Conditional::Done(()),
                Conditional::Lost => Conditional::Lost,
                Conditional::Unknown(error) => Conditional::Unknown(error),
            };
        };
        let path = match self.path(key) {
            Ok(path) => path,
            Err(error) => return Conditional::Unknown(error),
        };
        match files.delete_if(&path, version.clone()).await {
            Err(Error::NotFound { .. }) => Conditional::Lost,
            result => Conditional::from_result(result, "delete", key),
        }
    }

    fn path(&self, key: &str) -> Result<Path, BucketError> {
        let key = parse_key(key)?;
        Ok(if self.prefix.is_root() { key } else { self.prefix.parts().chain(key.parts()).collect() })
    }

    fn entry(&self, meta: ObjectMeta) -> Entry {
        let key = match meta.location.prefix_match(&self.prefix) {
            Some(parts) => parts.collect::<Path>().into(),
            None => meta.location.to_string(),
        };
        Entry { key, size: meta.size, last_modified: meta.last_modified.into(), version: version(&meta) }
    }
}

fn version(meta: &ObjectMeta) -> UpdateVersion {
    UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() }
}

fn parse_key(key: &str) -> Result<Path, BucketError> {
    Path::parse(key).map_err(|error| {
        BucketError::new(BucketErrorKind::Invalid, format!("{key:?} is not an object's name"))
            .with_source(error)
    })
}

/// `None` for an absent object, and an error for an absent bucket, where the store tells them apart.
fn absent<T>(error: Error, action: &str, key: &str) -> Result<Option<T>, BucketError> {
    match error {
        Error::NotFound { ref source, .. } => {
            let text = source.to_string();
            if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") {
                return Err(BucketError::from_store(action, key, error));
            }
            Ok(None)
        }
        error => Err(BucketError::from_store(action, key, error)),
    }
}

/// Names the store, as errors do.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)?;
        if self.prefix.is_root() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({self})")
    }
}

#[cfg(test)]
mod tests;
