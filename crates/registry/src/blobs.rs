//! Blobs of a repository: the store's, as far as the repository has a link to them.

use bulla::kek::Now;
use bulla::{Algorithm, Blob, Digest, ErrorKind, PutOptions, PutResult, Session, SessionId, SessionOptions};
use bytes::Bytes;
use futures::Stream;

use crate::error::{ErrorCode, RegistryError, Result};
use crate::name::RepositoryName;
use crate::registry::Repository;

/// What is known of a blob without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobStat {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Repository {
    /// What is known of a blob, for who then relies on it: it stays for at least half of gc's grace, as far as this node can
    /// write. A blob that is damaged is not there, so that it is pushed again, which repairs it.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stat_blob(&self, digest: &Digest) -> Result<Option<BlobStat>> {
        let size = match self.rely_on_linked(digest).await {
            // Nobody need be able to write here to pull, and nobody pushes then. Of what may pass, who pushes is told, for what
            // he was promised must stay.
            Err(error) if error.is_forbidden() => {
                let size = self.stat_linked(digest).await?;
                tracing::warn!(%error, %digest, "a blob that was asked for can't be kept from gc");
                size
            }
            size => size?,
        };
        Ok(size.map(|size| BlobStat { digest: digest.clone(), size }))
    }

    /// The blob's size, for who relies on it whatever becomes of this node: link and blob stay for at least half of the grace.
    pub(crate) async fn rely_on_linked(&self, digest: &Digest) -> Result<Option<u64>> {
        if !self.rely_on_link(digest).await? {
            return Ok(None);
        }
        self.registry().rely_on_blob(digest).await
    }

    /// The blob's size, if link and blob are there now.
    async fn stat_linked(&self, digest: &Digest) -> Result<Option<u64>> {
        if self.linked(digest).await?.is_none() {
            return Ok(None);
        }
        match self.store().stat(digest).await {
            Ok(blob) => Ok(Some(blob.size)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The blob to read from, if the repository has it.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now; `UNKNOWN` where the blob is damaged.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        if self.linked(digest).await?.is_none() {
            return Ok(None);
        }
        match self.store().get(digest).await {
            Ok(blob) => Ok(Some(blob)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a blob from one stream, and links it.
    ///
    /// # Errors
    /// `DIGEST_INVALID` where the bytes are not those; `UNAVAILABLE` where key or bucket can't be used now: put it again.
    ///
    /// # Cancel safety
    /// A dropped put may or may not have made the blob visible; it is never half visible.
    pub async fn put_blob<E>(
        &self,
        digest: &Digest,
        size: Option<u64>,
        stream: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<PutResult>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let kept = self.keep_if_there(digest).await?;
        let options = PutOptions { digest: Some(digest.clone()), size, ttl: None };
        let put = self.store().put(stream, options).await?;
        self.link_put(put, kept).await
    }

    /// As [`put_blob`](Self::put_blob), with bytes that are in memory.
    ///
    /// # Errors
    /// As [`put_blob`](Self::put_blob).
    ///
    /// # Cancel safety
    /// As [`put_blob`](Self::put_blob).
    pub async fn put_blob_bytes(&self, digest: &Digest, bytes: impl Into<Bytes> + Send) -> Result<PutResult> {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        let one = futures::stream::iter([Ok::<_, std::convert::Infallible>(bytes)]);
        self.put_blob(digest, Some(size), one).await
    }

    /// Links a blob that this or another repository has. Without `from`, only one that this repository has is found: knowing
    /// a digest gives nothing. The caller has checked that the client may pull from `from`. Whether it was done.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// A dropped mount may or may not have linked it.
    pub async fn mount_blob(&self, digest: &Digest, from: Option<&RepositoryName>) -> Result<bool> {
        let linked = match from {
            Some(from) if from != self.name() => {
                self.registry().repository(from.clone()).linked(digest).await?
            }
            _ => return Ok(self.rely_on_linked(digest).await?.is_some()),
        };
        Ok(linked.is_some() && self.link_existing(digest).await?)
    }

    /// Removes the blob from this repository; its bytes go with gc, once no repository has it. Whether it was there.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have removed it.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<bool> {
        self.unlink(digest).await
    }

    /// Begins an upload. Nobody gets at it through another repository.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now: begin another one.
    ///
    /// # Cancel safety
    /// A dropped call may leave an upload that nobody knows of; it expires.
    pub async fn start_upload(&self, algorithm: Algorithm) -> Result<Session> {
        let owner = self.name().as_str().as_bytes().to_vec();
        Ok(self.store().create_session(SessionOptions { algorithm, owner }).await?)
    }

    /// As [`start_upload`](Self::start_upload), under a name that was handed out before; or the upload of that name, if it
    /// has begun. `None` where it ended, or is another repository's.
    ///
    /// # Errors
    /// As [`start_upload`](Self::start_upload).
    ///
    /// # Cancel safety
    /// As [`start_upload`](Self::start_upload).
    pub async fn begin_upload(&self, id: &SessionId, algorithm: Algorithm) -> Result<Option<Session>> {
        let owner = self.name().as_str().as_bytes().to_vec();
        self.own(self.store().begin_session(id, SessionOptions { algorithm, owner }).await)
    }

    /// An upload that was begun, here or on another node; `None` where it ended, expired, or is another repository's.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn upload(&self, id: &SessionId) -> Result<Option<Session>> {
        self.own(self.store().resume_session(id).await)
    }

    fn own(&self, session: bulla::Result<Session>) -> Result<Option<Session>> {
        match session {
            Ok(session) => Ok((session.owner() == self.name().as_str().as_bytes()).then_some(session)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an upload the blob that it is claimed to be, and links it. It can be called again after any failure.
    ///
    /// # Errors
    /// `DIGEST_INVALID` where its bytes are not those: the upload stays as it is. `BLOB_UPLOAD_UNKNOWN` where it went
    /// meanwhile. `UNAVAILABLE` where key or bucket can't be used now, or another request is at this upload.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the blob visible; it is never half visible.
    pub async fn finish_upload(
        &self,
        session: &mut Session,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<PutResult> {
        let kept = self.keep_if_there(digest).await?;
        let was_marked = session.committing().is_some();
        let put = session.commit(digest, size).await.map_err(|error| {
            if error.kind() == ErrorKind::NotFound { unknown_upload() } else { error.into() }
        })?;
        // One that was marked before may have its envelope for long.
        self.link_put(PutResult { created: put.created && !was_marked, ..put }, kept).await
    }

    /// Puts bytes that a manifest's entry stands for, which is there and keeps them. Whether they were not removed meanwhile.
    pub(crate) async fn put_unlinked(&self, digest: &Digest, bytes: Bytes) -> Result<bool> {
        let options = PutOptions { digest: Some(digest.clone()), ..PutOptions::default() };
        self.store().put_bytes(bytes, options).await?;
        // They may have been there for long.
        self.registry().keep_blob(digest).await
    }

    /// Keeps gc from removing an old blob while the same is put again.
    async fn keep_if_there(&self, digest: &Digest) -> Result<Kept> {
        let since = self.registry().moment();
        let there = self.registry().keep_blob(digest).await?;
        Ok(Kept { since, there })
    }

    /// Links what a put has made, or what was kept before; what may be neither is looked for again.
    async fn link_put(&self, put: PutResult, kept: Kept) -> Result<PutResult> {
        if (put.created || kept.there) && self.in_time(kept) {
            self.link(&put.digest, put.size).await?;
            if self.in_time(kept) {
                return Ok(put);
            }
        }
        if !self.link_existing(&put.digest).await? {
            return Err(removed_meanwhile());
        }
        Ok(put)
    }

    fn in_time(&self, kept: Kept) -> bool {
        self.registry().elapsed(&kept.since) <= self.registry().patience()
    }
}

/// What is known of a blob before it is put.
#[derive(Clone, Copy)]
struct Kept {
    /// Before it was looked for.
    since: Now,
    /// It was, and stays for half of the grace.
    there: bool,
}

fn removed_meanwhile() -> RegistryError {
    RegistryError::busy("the same blob was removed at the same time; push it again")
}

pub(crate) fn unknown_upload() -> RegistryError {
    RegistryError::new(
        ErrorCode::BlobUploadUnknown,
        "there is no such upload: it ended or expired; begin another one",
    )
}
