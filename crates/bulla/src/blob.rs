//! Reading a blob: ranged GETs of whole chunks, opened, and released only after they authenticated.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bulla_envelope::cobblestone::{CHUNK_LEN, Opener};
use bulla_envelope::context::extent_context;
use bulla_envelope::digest::{Digest, Hasher};
use bulla_envelope::envelope::BlobRecord;
use bulla_envelope::names::extent_key;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::bucket::BucketErrorKind;
use crate::buffers::Buffers;
use crate::envelopes::OpenedBlob;
use crate::error::{Error, Result};
use crate::range::{Piece, plan};
use crate::store::{Store, StoreInner};

/// Ranged GETs on their way at once in one stream.
const READ_AHEAD: usize = 3;

/// A blob that is there. Reading starts with the streams; a handle keeps nothing open.
#[derive(Clone)]
pub struct Blob {
    store: Store,
    opened: Arc<OpenedBlob>,
}

/// What is known of a blob without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobInfo {
    /// The blob's name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was put, in milliseconds since 1970.
    pub created: u64,
    /// When its envelope was last written, by the bucket's clock: when it was put, renewed or its key re-wrapped.
    pub modified: SystemTime,
    /// When it goes, in milliseconds since 1970; `None`: when it is deleted.
    pub expires: Option<u64>,
    /// The number of data objects it is in; 0 for a blob inside its envelope.
    pub extents: usize,
    /// The store key that wraps its DEK.
    pub wrapped_by: String,
}

impl Blob {
    pub(crate) fn new(store: Store, opened: Arc<OpenedBlob>) -> Self {
        Self { store, opened }
    }

    /// The blob's name.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.opened.record.digest
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.opened.record.size
    }

    /// What is known of the blob without reading it.
    #[must_use]
    pub fn info(&self) -> BlobInfo {
        info(&self.opened)
    }

    /// The whole blob. The digest was checked when it was put and is bound by the envelope; see
    /// [`Blob::into_verified_stream`] to hash again.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        let size = self.size();
        self.stream(0..size)
    }

    /// The whole blob, hashed on the way: the stream ends with an error where the digest is not the blob's name.
    #[must_use]
    pub fn into_verified_stream(self) -> BoxStream<'static, Result<Bytes>> {
        let digest = self.digest().clone();
        let hasher = Hasher::new(digest.algorithm());
        let state = (self.into_stream(), Some((hasher, digest)));
        stream::try_unfold(state, |(mut stream, mut hashing)| async move {
            if let Some(bytes) = stream.try_next().await? {
                if let Some((hasher, _)) = &mut hashing {
                    hasher.update(&bytes);
                }
                return Ok(Some((bytes, (stream, hashing))));
            }
            let Some((hasher, digest)) = hashing else { return Ok(None) };
            if hasher.finish() == digest {
                return Ok(None);
            }
            Err(Error::corrupt(format!("the content of {digest} has another digest")))
        })
        .boxed()
    }

    /// The bytes `range.start..range.end`.
    ///
    /// # Errors
    /// `Invalid` where the range does not lie within the blob. The stream's own errors: `Revoked` and `Unavailable` where
    /// the key can't be used any more; `Corrupt` where data is missing or does not authenticate (put the blob again).
    pub fn range(self, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let size = self.size();
        if range.start > range.end || range.end > size {
            return Err(Error::invalid(format!(
                "bytes {}..{} are not within the blob's {size}",
                range.start, range.end
            )));
        }
        Ok(self.stream(range))
    }

    /// The whole blob in memory: for manifests and other small ones.
    ///
    /// # Errors
    /// As the streams of [`Blob::range`].
    pub async fn bytes(self) -> Result<Bytes> {
        let parts: Vec<Bytes> = self.into_stream().try_collect().await?;
        match <[Bytes; 1]>::try_from(parts) {
            Ok([only]) => Ok(only),
            Err(parts) => Ok(Bytes::from(parts.concat())),
        }
    }

    fn stream(self, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let Self { store, opened } = self;
        let at = range.start;
        // A cached envelope may be older than its data: another node replaced the blob and gc removed the old extents. The
        // digest binds the content, so reading goes on from a fresh envelope at the same byte.
        let state = Reading {
            inner: Arc::clone(store.inner()),
            opened,
            at,
            end: range.end,
            stream: None,
            may_retry: true,
        };
        stream::try_unfold(state, |mut reading| async move {
            Ok(reading.next().await?.map(|bytes| (bytes, reading)))
        })
        .boxed()
    }
}

struct Reading {
    inner: Arc<StoreInner>,
    opened: Arc<OpenedBlob>,
    at: u64,
    end: u64,
    stream: Option<BoxStream<'static, Result<Bytes>>>,
    /// Since the last bytes.
    may_retry: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.at < self.end {
            let (inner, opened) = (&self.inner, &self.opened);
            let (from, to) = (self.at, self.end);
            let stream =
                self.stream.get_or_insert_with(|| pieces(Arc::clone(inner), Arc::clone(opened), from..to));
            match stream.try_next().await {
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.may_retry = true;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Err(Error::corrupt("an envelope does not cover its blob")),
                Err(error) if error.kind() == crate::ErrorKind::Corrupt && self.may_retry => {
                    self.reopen(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn reopen(&mut self, error: Error) -> Result<()> {
        self.may_retry = false;
        let digest = &self.opened.record.digest;
        self.inner.cache.remove(digest);
        let fresh = self.inner.find(digest).await?;
        if fresh.record.blob == self.opened.record.blob && fresh.record.extents == self.opened.record.extents
        {
            return Err(error);
        }
        self.opened = fresh;
        self.stream = None;
        Ok(())
    }
}

pub(crate) fn pieces(
    inner: Arc<StoreInner>,
    opened: Arc<OpenedBlob>,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    if let Some(inline) = &opened.record.inline {
        let (Ok(from), Ok(to)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return stream::empty().boxed();
        };
        let bytes = Bytes::copy_from_slice(&inline[from..to]);
        return stream::once(async move {
            inner.gate.secrets(&inner).await?;
            Ok(bytes)
        })
        .boxed();
    }
    let lens: Vec<u64> = opened.record.extents.iter().map(|extent| extent.len).collect();
    let piece_len = inner.piece_len();
    let pieces = plan(&lens, range, (piece_len / CHUNK_LEN) as u64);
    let fetcher = (Arc::clone(&inner), Arc::clone(&opened), Buffers::default());
    let fetched = stream::iter(pieces).map(move |piece| {
        let (inner, opened, buffers) = fetcher.clone();
        async move {
            let sealed = inner.fetch(&opened.record, &piece, &buffers).await?;
            Ok::<_, Error>((piece, sealed))
        }
    });
    let opener: Option<(usize, Opener)> = None;
    let state = (fetched.buffered(READ_AHEAD).boxed(), inner, opened, opener, Buffers::default());
    stream::try_unfold(state, |(mut fetched, inner, opened, mut opener, buffers)| async move {
        let Some((piece, sealed)) = fetched.try_next().await? else { return Ok(None) };
        // The lease before use of the key, and again after opening and before release: a denial stops streams too.
        inner.gate.secrets(&inner).await?;
        if opener.as_ref().is_none_or(|(extent, _)| *extent != piece.extent) {
            opener = Some((piece.extent, inner.opener(&opened, piece.extent)?));
        }
        let mut plain = buffers.take(piece.plaintext_len);
        if let Some((_, opener)) = &opener {
            opener
                .open_chunks(piece.first_chunk, &sealed, piece.last, &mut plain[..piece.plaintext_len])
                .map_err(|error| {
                    Error::corrupt(format!("data of {} does not authenticate", opened.record.digest))
                        .with_source(error)
                })?;
        }
        while !inner.gate.is_live(&inner) {
            inner.gate.secrets(&inner).await?;
        }
        let bytes = buffers.lend(plain).slice(piece.wanted);
        Ok(Some((bytes, (fetched, inner, opened, opener, buffers))))
    })
    .boxed()
}

impl StoreInner {
    /// How many plaintext bytes one ranged GET brings: a request costs more than a byte on a network, and less than a
    /// cache miss in a folder.
    fn piece_len(&self) -> usize {
        let wanted = if self.bucket.is_folder() { 1 << 20 } else { 4 << 20 };
        // Read ahead, plus the piece being opened from and into.
        wanted.min(self.parts.memory_per_stream / (READ_AHEAD + 2)).max(CHUNK_LEN)
    }

    async fn fetch(&self, record: &BlobRecord, piece: &Piece, buffers: &Buffers) -> Result<Bytes> {
        let key = extent_key(&record.extents[piece.extent].name);
        let expected = piece.sealed.end - piece.sealed.start;
        match self.bucket.get_range_with(buffers, &key, piece.sealed.clone()).await {
            Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
            Ok(_) => Err(Error::corrupt(format!("data of {} is cut short", record.digest))),
            Err(error)
                if matches!(error.kind(), BucketErrorKind::NotFound | BucketErrorKind::ShortObject) =>
            {
                Err(Error::corrupt(format!("data of {} is missing", record.digest)).with_source(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn opener(&self, opened: &OpenedBlob, extent: usize) -> Result<Opener> {
        let record = &opened.record;
        let context = extent_context(&self.store_id, &record.blob);
        // Salt and commitment come from the envelope, so an old or foreign data object is refused.
        Opener::new(self.parts.crypto, opened.dek.expose(), &context, &record.extents[extent].header).map_err(
            |error| {
                Error::corrupt(format!("data of {} does not belong to its envelope", record.digest))
                    .with_source(error)
            },
        )
    }
}

pub(crate) fn info(opened: &OpenedBlob) -> BlobInfo {
    let record = &opened.record;
    BlobInfo {
        digest: record.digest.clone(),
        size: record.size,
        created: record.created,
        modified: opened.modified,
        expires: record.expires,
        extents: record.extents.len(),
        wrapped_by: opened.wrapped_by.clone(),
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("digest", self.digest())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
