//! Committing: the claim is checked, the session marked, the envelope created by the protocol of [`crate::commit`].

use std::sync::Arc;

use bulla_envelope::cobblestone::Opener;
use bulla_envelope::context::extent_context;
use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use bulla_envelope::envelope::Extent;
use bulla_envelope::secret::Dek;
use bulla_envelope::session::{SessionRecord, StoredExtent};
use bulla_kek::compute;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Session, gone};
use crate::commit::Draft;
use crate::envelopes::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::extents::PlacedExtent;
use crate::horizon::Horizon;
use crate::upload::PutResult;

/// Extents read ahead where a blob is hashed again.
const READ_AHEAD: usize = 3;

impl Session {
    pub(super) async fn try_commit(&mut self, digest: &Digest, size: Option<u64>) -> Result<PutResult> {
        let inner = Arc::clone(self.store.inner());
        let dek = inner.session_dek(&self.saved.record.wraps).await?;
        if self.committing() == Some(digest) {
            // Killed, or still under way somewhere: what an envelope names by now is what counts.
            if let Some(result) = self.confirm(digest).await? {
                return Ok(result);
            }
        } else {
            self.refuse_marked()?;
            self.check_claims(&dek, digest, size).await?;
            self.mark(&dek, digest).await?;
        }
        self.renew_old_extents().await?;
        let record = &self.saved.record;
        let extents: Vec<PlacedExtent> = record.extents.iter().map(|stored| inner.placed(stored)).collect();
        let draft = Draft {
            blob: record.blob,
            digest: digest.clone(),
            size: record.offset(),
            dek,
            dek_root: Some(record.dek_root),
            inline: extents.is_empty().then(|| record.tail.clone()),
            extents,
            horizon: Horizon(record.horizon),
            ttl: None,
        };
        inner.commit_shared(draft).await
    }

    /// If the blob was made from this session, does for it what its maker may not have come to: the end of the commit.
    pub(super) async fn confirm(&self, digest: &Digest) -> Result<Option<PutResult>> {
        let inner = self.store.inner();
        let Found::Blob(found) = inner.read_envelope(digest).await? else { return Ok(None) };
        let record = &found.record;
        if record.blob != self.saved.record.blob {
            return Ok(None);
        }
        // How old they are the bucket says: this horizon is below any other.
        let horizon = Horizon::default();
        let started = inner.parts.runtime.now();
        let placed = |extent: &Extent| PlacedExtent { extent: extent.clone(), started };
        let draft = Draft {
            blob: record.blob,
            digest: digest.clone(),
            size: record.size,
            dek: inner.session_dek(&self.saved.record.wraps).await?,
            dek_root: Some(record.dek_root),
            inline: record.inline.clone(),
            extents: record.extents.iter().map(placed).collect(),
            horizon,
            ttl: None,
        };
        inner.commit_shared(draft).await.map(Some)
    }

    async fn check_claims(&self, dek: &Dek, digest: &Digest, size: Option<u64>) -> Result<()> {
        if let Some(size) = size
            && size != self.offset()
        {
            return Err(Error::mismatch(format!("{} bytes came where {size} were announced", self.offset())));
        }
        let computed = if digest.algorithm() == self.algorithm() {
            self.hasher()?.finish()
        } else {
            self.hash_again(dek, digest.algorithm()).await?
        };
        if computed == *digest {
            return Ok(());
        }
        Err(Error::mismatch(format!("the bytes have digest {computed}, not {digest} as claimed")))
    }

    /// Reads everything again, for the digest of an algorithm that nobody announced.
    async fn hash_again(&self, dek: &Dek, algorithm: Algorithm) -> Result<Digest> {
        let inner = self.store.inner();
        let record = &self.saved.record;
        let context = extent_context(&inner.store_id, &record.blob);
        let mut hasher = Hasher::new(algorithm);
        let mut pieces = stream::iter(record.extents.clone())
            .map(|StoredExtent { extent, .. }| {
                let opener = Opener::new(inner.parts.crypto, dek.expose(), &context, &extent.header);
                async move {
                    let opener = opener.map_err(|error| {
                        Error::corrupt("data of this upload does not authenticate").with_source(error)
                    })?;
                    inner.read_extent(opener, &extent).await
                }
            })
            .buffered(READ_AHEAD);
        while let Some(bytes) = pieces.try_next().await? {
            let hashed = compute(&*inner.parts.runtime, move || {
                hasher.update(&bytes);
                hasher
            });
            hasher = hashed.await.ok_or_else(shutting_down)?;
        }
        hasher.update(&record.tail);
        Ok(hasher.finish())
    }

    /// Says in the session what it is being committed as: from here on no append on any node is acknowledged, so what the
    /// envelope will name stays as it is. A tail becomes an extent, if the blob has others.
    async fn mark(&mut self, dek: &Dek, digest: &Digest) -> Result<()> {
        let mut next = SessionRecord { committing: Some(digest.clone()), ..self.saved.record.clone() };
        if next.extents.is_empty() || next.tail.is_empty() {
            let marked = self.save(next, dek).await;
            return self.marked(digest, marked).await;
        }
        let mut writer = self.writer().await?;
        writer.take_nothing_back();
        let marked = async {
            writer.write_rest().await?;
            next.tail.clear();
            let count = writer.extents().len();
            self.save_stored(&mut writer, count, next).await
        };
        let marked = marked.await;
        let marked = self.settle(writer, marked).await;
        self.marked(digest, marked).await
    }

    /// Another node that commits by the same digest is welcome to have marked it first.
    async fn marked(&mut self, digest: &Digest, marked: Result<()>) -> Result<()> {
        match marked {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let found = self.store.inner().read_session(self.id()).await?;
                self.saved = found.ok_or_else(|| gone(self.id()))?;
                if self.committing() == Some(digest) { Ok(()) } else { Err(error) }
            }
            marked => marked,
        }
    }

    /// Copies extents that gc could soon look at. Their old objects stay: an envelope may name them already.
    async fn renew_old_extents(&mut self) -> Result<()> {
        let inner = self.store.inner();
        if !self.saved.record.extents.iter().any(|stored| inner.is_old(&inner.placed(stored))) {
            return Ok(());
        }
        let mut writer = self.writer().await?;
        let renewed = async {
            writer.renew_old_extents().await?;
            let count = writer.extents().len();
            self.save_stored(&mut writer, count, self.saved.record.clone()).await
        };
        let renewed = renewed.await;
        self.settle(writer, renewed).await
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the process is shutting down")
}
