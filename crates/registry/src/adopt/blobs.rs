//! Blobs: one that is there is linked, another is sealed from the source.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bulla::bucket::BucketError;
use bulla::{Digest, ErrorKind};
use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::copy::{Adopted, Copying, add, locked};
use super::report::{AdoptProgress, Refusal};
use super::tree;
use crate::error::Result;
use crate::registry::Repository;

/// What became of a blob.
pub(super) enum Blob {
    Present(u64),
    Sealed(u64),
    /// The source does not have it either.
    Dangling,
}

impl<'a> Copying<'a> {
    pub(super) async fn blob(&self, repository: &Repository, digest: &Digest) -> Adopted<Blob> {
        if let Some(size) = self.linked(repository, digest).await? {
            return Ok(Ok(Blob::Present(size)));
        }
        let _only = self.lock(digest).await;
        // Another repository may have it, or a run that was killed: its content was compared with the digest then.
        if let Some(size) = self.stored(digest).await?
            && (self.options.dry_run || repository.link_existing(digest).await?)
        {
            return Ok(Ok(Blob::Present(size)));
        }
        let Some(&size) = self.inventory.data.get(digest) else { return Ok(Ok(Blob::Dangling)) };
        if self.options.dry_run {
            return Ok(Ok(Blob::Sealed(size)));
        }
        // It is never closed; were it, more at once would be no harm.
        let _permit = self.seals.acquire().await.ok();
        let unread = Mutex::default();
        let put = repository.put_blob(digest, Some(size), self.content(digest, size, &unread)).await;
        if let Some(refusal) = locked(&unread).take() {
            return Ok(Err(refusal));
        }
        put.map(|put| Ok(if put.created { Blob::Sealed(size) } else { Blob::Present(size) }))
    }

    /// The content as it is in the source. Why it can't be read is in `unread` then: that is no failure of the store.
    fn content<'s>(
        &'s self,
        digest: &Digest,
        size: u64,
        unread: &'s Mutex<Option<Refusal>>,
    ) -> impl Stream<Item = Result<Bytes, BucketError>> + Unpin + 's {
        self.source.stream(&tree::data_key(digest), size).inspect(move |read| match read {
            Ok(bytes) => self.read(bytes.len() as u64),
            Err(error) => *locked(unread) = Some(Refusal::of_source(error)),
        })
    }

    /// The size of a blob that the repository has. A dry run touches nothing.
    async fn linked(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        if !self.options.dry_run {
            return repository.rely_on_linked(digest).await;
        }
        match repository.linked(digest).await? {
            Some(_) => self.stored(digest).await,
            None => Ok(None),
        }
    }

    /// The size of a blob that the store has, and is sound as far as that shows.
    async fn stored(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.registry.store().stat(digest).await {
            Ok(info) => Ok(Some(info.size)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn count(&self, digest: &'a Digest, blob: Option<Blob>) {
        let new = || locked(&self.counted).insert(digest);
        match blob {
            Some(Blob::Present(size)) if new() => {
                self.log.write(|report| add(&mut report.present, size));
                self.read(size);
            }
            Some(Blob::Sealed(size)) if new() => {
                self.log.write(|report| add(&mut report.sealed, size));
                if self.options.dry_run {
                    self.read(size);
                }
            }
            Some(Blob::Dangling) => self.log.write(|report| report.dangling += 1),
            Some(Blob::Present(_) | Blob::Sealed(_)) | None => {}
        }
    }

    fn read(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.log.progress(AdoptProgress::Sealing { bytes, of_bytes: self.of_bytes.max(bytes) });
    }
}
