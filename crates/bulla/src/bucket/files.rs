//! A folder as an object store with conditional updates, conditional deletes and durable writes.
//!
//! Reads and listings are [`LocalFileSystem`]'s. Writing is done here, since it has no conditional update, deletes
//! without syncing, and "copies" by a second name for the same file, with the old time.
//!
//! ## Why an ETag names one content only
//!
//! An ETag is inode ‖ time of last change in µs ‖ size, read from one open file, and a file never changes once it is
//! in its place. Two files that exist at once differ in the inode. An inode is used again only after its file was
//! replaced or removed; that is done under the folder's lock, and only after the file system's clock has passed the
//! old file's time ([`Locked::wait_past`](lock::Locked::wait_past)). So whatever gets the inode later has a later
//! time, and another ETag: a writer that read the old file can't mistake a new one for it (the "ABA" problem), however
//! fast they follow each other.
//!
//! ```text
//! create   stage ─ sync ─────────────────── link ──────────── sync folder
//! update   stage ─ sync ─ lock ─ compare ─ wait ─ rename ─ unlock ─ sync folder
//! delete                  lock ─ compare ─ wait ─ unlink ─ unlock ─ sync folder
//! ```
//!
//! Creating needs no lock: linking fails if anything is there, and the others only act on what is.
//!
//! A reader may see a file a moment before its folder is synced. Should the machine lose power in that moment, the file
//! can be gone although somebody acted on it; that what they wrote then goes with it is left to the file system's journal.

#![allow(
    clippy::disallowed_methods,
    reason = "no simulation runs on real files: their times and locks are the system's"
)]

mod lock;
mod staging;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UpdateVersion,
};

use self::lock::FileLock;
use self::staging::Staged;
pub(super) use self::staging::sync_dir;
use super::{BucketError, BucketErrorKind};
use crate::buffers::Buffers;

/// Names at the top of the folder that are ours and not objects.
const RESERVED: &str = ".bulla.";
/// A staging file that nobody has written to for this long belongs to nobody.
const STALE: Duration = Duration::from_secs(60 * 60);
/// How long one look for stale staging files lasts.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder as an [`ObjectStore`]; see the module's documentation for what it adds to [`LocalFileSystem`].
#[derive(Clone)]
pub struct FileStore {
    inner: LocalFileSystem,
    root: Arc<FsPath>,
    lock: Arc<FileLock>,
}

impl FileStore {
    /// Opens the folder `root`, which must be there.
    ///
    /// Staging files that crashed writers left behind more than an hour ago are removed in the background, at most
    /// once a day.
    ///
    /// # Errors
    /// [`BucketErrorKind::NotFound`] if there is no such folder; [`BucketErrorKind::Invalid`] if it is none.
    pub fn open(root: impl AsRef<FsPath>) -> std::result::Result<Self, BucketError> {
        let root = root.as_ref();
        let failed = |error| folder_error(root, error);
        let canonical = fs::canonicalize(root).map_err(failed)?;
        if !fs::metadata(&canonical).map_err(failed)?.is_dir() {
            return Err(BucketError::new(
                BucketErrorKind::Invalid,
                format!("{} is not a folder", root.display()),
            ));
        }
        let inner = LocalFileSystem::new_with_prefix(&canonical)
            .map_err(|error| BucketError::from_store("open", &root.display().to_string(), error))?
            .with_fsync(true);
        let lock = FileLock::at(canonical.join(".bulla.lock"));
        let store = Self { inner, root: canonical.into(), lock };
        store.sweep_in_background();
        Ok(store)
    }

    /// Opens the folder `root`, making it (for its owner only, mode 0700) if it is missing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and whatever keeps the folder from being made.
    pub fn create(root: impl AsRef<FsPath>) -> std::result::Result<Self, BucketError> {
        let root = root.as_ref();
        create_private(root).map_err(|error| folder_error(root, error))?;
        Self::open(root)
    }

    /// Removes the object if it still is the one of `version`, durably.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing is there, [`Error::Precondition`] if something else is.
    ///
    /// # Cancel safety
    /// Once polled it runs to its end, whether or not it is waited for.
    pub async fn delete_if(&self, location: &Path, version: UpdateVersion) -> Result<()> {
        let (store, place, location) = (self.clone(), self.place(location)?, location.clone());
        blocking(move || {
            let locked = store.lock.lock().map_err(generic)?;
            let meta = fs::metadata(&place).map_err(|error| store_error(&location, error))?;
            expect_version(&location, &meta, &version)?;
            locked.wait_past(modified(&meta)).map_err(generic)?;
            fs::remove_file(&place).map_err(|error| store_error(&location, error))?;
            drop(locked);
            sync_parent(&place).map_err(generic)
        })
        .await
    }

    /// When the file came to its place, or later. Its own time is earlier: it is written, synced, and only then linked or
    /// renamed, which the file system notes as a change of the file.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing is there.
    ///
    /// # Cancel safety
    /// Yes: it changes nothing.
    pub async fn placed(&self, location: &Path) -> Result<SystemTime> {
        let (place, location) = (self.place(location)?, location.clone());
        blocking(move || {
            let meta = fs::metadata(&place).map_err(|error| store_error(&location, error))?;
            Ok(changed(&meta).max(modified(&meta)))
        })
        .await
    }

    /// Reads exactly the bytes `range` of an object, into one of `buffers`. [`LocalFileSystem`] would zero a new buffer for
    /// each, and go to another thread twice.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing is there; [`Error::Generic`] also if the object ends before the range does.
    ///
    /// # Cancel safety
    /// Yes: it changes nothing.
    pub(crate) async fn read(&self, location: &Path, range: Range<u64>, buffers: &Buffers) -> Result<Bytes> {
        let (place, location) = (self.place(location)?, location.clone());
        let len = range.end.checked_sub(range.start).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or_else(|| generic(io::ErrorKind::InvalidInput.into()))?;
        let buffers = buffers.clone();
        blocking(move || {
            let read = || {
                let mut file = fs::File::open(&place)?;
                file.seek(SeekFrom::Start(range.start))?;
                let mut buffer = buffers.take(len);
                file.read_exact(&mut buffer[..len])?;
                Ok(buffers.lend(buffer).slice(..len))
            };
            read().map_err(|error| store_error(&location, error))
        })
        .await
    }

    /// The folder, absolute and without links.
    #[must_use]
    pub fn root(&self) -> &FsPath {
        &self.root
    }

    fn place(&self, location: &Path) -> Result<PathBuf> {
        if is_reserved(location) {
            return Err(Error::NotSupported { source: format!("{location} is reserved").into() });
        }
        self.inner.path_to_filesystem(location)
    }

    fn sweep_in_background(&self) {
        let root = Arc::clone(&self.root);
        let sweep = move || {
            let mark = root.join(".bulla.swept");
            let recent = |time: SystemTime| time.elapsed().map_or(true, |age| age < SWEEP_EVERY);
            if !fs::metadata(&mark).and_then(|meta| meta.modified()).is_ok_and(recent)
                && fs::write(&mark, b"").is_ok()
            {
                let removed = staging::sweep(&root, STALE);
                if removed > 0 {
                    tracing::info!(removed, folder = %root.display(), "removed files of writers that were killed");
                }
            }
        };
        // Best effort: without a thread it is done another day.
        let _ = std::thread::Builder::new().name("bulla-sweep".into()).spawn(sweep);
    }

    /// Puts a staged file in its place and returns its ETag.
    fn publish(&self, location: &Path, place: &FsPath, staged: Staged, mode: PutMode) -> Result<String> {
        let etag = etag(&staged.metadata().map_err(generic)?);
        match mode {
            PutMode::Create => staged.link(place).map_err(|error| store_error(location, error))?,
            PutMode::Overwrite | PutMode::Update(_) => {
                let locked = self.lock.lock().map_err(generic)?;
                match (fs::metadata(place), &mode) {
                    (Ok(meta), mode) => {
                        if let PutMode::Update(version) = mode {
                            expect_version(location, &meta, version)?;
                        }
                        locked.wait_past(modified(&meta)).map_err(generic)?;
                    }
                    (Err(error), PutMode::Overwrite) if error.kind() == io::ErrorKind::NotFound => {}
                    (Err(error), PutMode::Update(_)) if error.kind() == io::ErrorKind::NotFound => {
                        return Err(precondition(location, error));
                    }
                    (Err(error), _) => return Err(store_error(location, error)),
                }
                staged.rename(place).map_err(|error| store_error(location, error))?;
            }
        }
        sync_parent(place).map_err(generic)?;
        Ok(etag)
    }

    fn delete_all(&self, locations: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let locked = match self.lock.lock() {
            Ok(locked) => locked,
            Err(error) => return vec![Err(generic(error))],
        };
        let places: Vec<_> =
            locations.into_iter().map(|location| location.and_then(|l| Ok((self.place(&l)?, l)))).collect();
        // One wait for all of them.
        let newest =
            places.iter().flatten().filter_map(|(place, _)| fs::metadata(place).ok()).map(|m| modified(&m));
        if let Err(error) = newest.max().map_or(Ok(()), |mtime| locked.wait_past(mtime)) {
            return vec![Err(generic(error))];
        }
        let mut parents = BTreeSet::new();
        let mut results = Vec::with_capacity(places.len());
        for place in places {
            results.push(place.and_then(|(place, location)| {
                fs::remove_file(&place).map_err(|error| store_error(&location, error))?;
                parents.extend(place.parent().map(FsPath::to_path_buf));
                Ok(location)
            }));
        }
        drop(locked);
        match parents.iter().try_for_each(|parent| sync_dir(parent)) {
            Ok(()) => results,
            Err(error) => vec![Err(generic(error))],
        }
    }
}

#[async_trait]
impl ObjectStore for FileStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if !opts.attributes.is_empty() {
            return Err(self.not_implemented("`put_opts` with attributes"));
        }
        let (store, place, location) = (self.clone(), self.place(location)?, location.clone());
        let etag = blocking(move || {
            let staged = Staged::write(&place, &payload).map_err(|error| store_error(&location, error))?;
            store.publish(&location, &place, staged, opts.mode)
        })
        .await?;
        Ok(PutResult { e_tag: Some(etag), version: None, extensions: Default::default() })
    }

    /// Not implemented: the engine's objects are as large as its buffers, and written in one piece.
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(self.not_implemented("`put_multipart_opts`"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.place(location)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.place(location)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        const BATCH: usize = 256;
        let store = self.clone();
        locations
            .ready_chunks(BATCH)
            .then(move |batch| {
                let store = store.clone();
                async move { blocking(move || Ok(store.delete_all(batch))).await.unwrap_or_else(|e| vec![Err(e)]) }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        visible(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        visible(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects.retain(|meta| !is_reserved(&meta.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (store, source, place) = (self.clone(), self.place(from)?, self.place(to)?);
        let (from, to) = (from.clone(), to.clone());
        blocking(move || {
            let staged = Staged::copy(&source, &place).map_err(|error| store_error(&from, error))?;
            let mode = match options.mode {
                CopyMode::Overwrite => PutMode::Overwrite,
                CopyMode::Create => PutMode::Create,
            };
            store.publish(&to, &place, staged, mode).map(drop)
        })
        .await
    }
}

impl FileStore {
    fn not_implemented(&self, operation: &str) -> Error {
        Error::NotImplemented { operation: operation.into(), implementer: self.to_string() }
    }
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({})", self.root.display())
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("root", &self.root).finish_non_exhaustive()
    }
}

fn visible(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    listed.try_filter(|meta| std::future::ready(!is_reserved(&meta.location))).boxed()
}

fn is_reserved(location: &Path) -> bool {
    location.parts().next().is_some_and(|part| part.as_ref().starts_with(RESERVED))
}

/// The ETag that [`LocalFileSystem`] gives to a file.
fn etag(meta: &Metadata) -> String {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(meta);
    #[cfg(not(unix))]
    let inode = 0;
    format!("\"{inode:x}-{:x}-{:x}\"", micros(modified(meta)), meta.len())
}

fn modified(meta: &Metadata) -> SystemTime {
    // Fails only on systems that have no file times.
    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When its data, names or attributes last changed.
fn changed(meta: &Metadata) -> SystemTime {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (seconds, nanos) = (u64::try_from(meta.ctime()), u32::try_from(meta.ctime_nsec()));
        SystemTime::UNIX_EPOCH + Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
    }
    // Windows has no such time; a rename there is a moment after the write.
    #[cfg(not(unix))]
    modified(meta)
}

fn micros(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros()
}

fn expect_version(location: &Path, meta: &Metadata, version: &UpdateVersion) -> Result<()> {
    match &version.e_tag {
        None => Err(generic(io::Error::other("a conditional write needs an ETag"))),
        Some(expected) if *expected == etag(meta) => Ok(()),
        Some(_) => Err(precondition(location, io::Error::other("the object has changed"))),
    }
}

fn sync_parent(place: &FsPath) -> io::Result<()> {
    place.parent().map_or(Ok(()), sync_dir)
}

fn create_private(root: &FsPath) -> io::Result<()> {
    let root = std::path::absolute(root)?;
    if root.is_dir() {
        return Ok(());
    }
    let parent = root.parent().unwrap_or(&root);
    staging::create_dirs(parent)?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(&root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(parent),
    }
}

fn folder_error(root: &FsPath, error: io::Error) -> BucketError {
    let (kind, what) = match error.kind() {
        io::ErrorKind::NotFound => (BucketErrorKind::NotFound, "there is no folder"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (BucketErrorKind::PermissionDenied, "no permission for the folder")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
            (BucketErrorKind::Invalid, "not a folder:")
        }
        _ => (BucketErrorKind::Unavailable, "can't open the folder"),
    };
    BucketError::new(kind, format!("{what} {}", root.display())).with_source(error)
}

pub(super) fn generic(source: io::Error) -> Error {
    Error::Generic { store: "FileStore", source: source.into() }
}

fn precondition(location: &Path, source: io::Error) -> Error {
    Error::Precondition { path: location.to_string(), source: source.into() }
}

fn store_error(location: &Path, source: io::Error) -> Error {
    let path = location.to_string();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => generic(source),
    }
}

/// Runs blocking file work off the runtime's threads, or right here without one. It is not stopped by dropping the
/// future.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests;
