//! Upload sessions: a blob that comes in pieces, from one request to the next, on any node.
//!
//! ```text
//! create ─► append ─► append ─► commit        each step ends with a conditional write of the session object
//!             │ small rest: the session's tail      │ marked with its digest, then the envelope is created (commit.rs),
//!             └ else extents in data/               └ then the session removed
//! ```
//!
//! What an append acknowledged is in the session object: extents that are stored, a tail that is too short for one, the hash
//! up to there. So it survives the node, and another one goes on without reading it again. No sealer's state is kept: who
//! goes on begins new extents. Of two nodes that go on at once, one's conditional write is refused, and what it stored is
//! named by nobody.

mod list;
mod saved;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bulla_envelope::cobblestone::Opener;
use bulla_envelope::context::extent_context;
use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use bulla_envelope::ids::{BlobId, SessionId};
use bulla_envelope::secret::Dek;
use bulla_envelope::session::{MAX_OWNER_LEN, MAX_TAIL_LEN, SessionRecord, StoredExtent};
use bulla_kek::{Now, compute};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};

pub use self::list::SessionEntry;
use self::saved::Saved;
use crate::commit::Draft;
use crate::envelopes::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::extents::{ExtentWriter, PlacedExtent};
use crate::sealing::{Begun, Sealing};
use crate::store::{Store, StoreInner};
use crate::upload::PutResult;

/// How many extents a session object of at most 1 MiB has room for, beside the longest tail.
const MAX_EXTENTS: usize = 10_000;

/// A long append writes its session whenever so much came since the last time. With what is in flight and what fills an
/// extent, no more than 64 MiB are lost with the node.
const SAVE_EVERY: u64 = 32 << 20;

/// How much of one append is taken before it is asked whether to write the session.
const SLICE: usize = 4 << 20;

/// Extents read ahead where a blob is hashed again.
const READ_AHEAD: usize = 3;

/// Clocks of nodes may be so far apart before one's times say nothing to another.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// How a session begins.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The hash that is computed as the bytes come. A commit by a digest of another algorithm reads them again.
    pub algorithm: Algorithm,
    /// Whose session it is, in the caller's words, to be compared when it is resumed: at most 1,024 bytes. Sealed.
    pub owner: Vec<u8>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { algorithm: Algorithm::Sha256, owner: Vec::new() }
    }
}

/// An upload session as it was when it was last read or written. Keeps no key.
pub struct Session {
    store: Store,
    saved: Saved,
}

impl Store {
    /// Begins an upload session: one request.
    ///
    /// # Errors
    /// `Invalid` where the owner is too long or the KEK has expired; `Revoked`, `Unavailable`, `Throttled` as everywhere:
    /// begin another one.
    ///
    /// # Cancel safety
    /// A dropped call may leave a session that nobody knows of; it expires.
    pub async fn create_session(&self, options: SessionOptions) -> Result<Session> {
        let inner = self.inner();
        if options.owner.len() > MAX_OWNER_LEN {
            return Err(Error::invalid(format!("a session's owner has at most {MAX_OWNER_LEN} bytes")));
        }
        let keys = inner.gate.secrets(inner).await?;
        inner.refuse_expired_kek()?;
        let random = inner.parts.runtime.random();
        let now = inner.parts.runtime.now().unix_ms();
        let dek = Dek::random(random);
        let record = SessionRecord {
            wraps: vec![keys.wrap_dek(&dek)],
            blob: BlobId::random(random),
            dek_root: keys.root_id,
            extents: Vec::new(),
            tail: Vec::new(),
            hash: Hasher::new(options.algorithm).state(),
            created: now,
            touched: now,
            revision: inner.nonce(),
            owner: options.owner,
            committing: None,
        };
        let saved = inner.create_session(SessionId::random(random), record, &dek, &keys).await?;
        Ok(Session { store: self.clone(), saved })
    }

    /// A session that another request, or another node, began: one request.
    ///
    /// # Errors
    /// `NotFound` where there is none: it was committed or cancelled, it expired, or never was; `Corrupt` where it does not
    /// authenticate; `Revoked`, `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn resume_session(&self, id: &SessionId) -> Result<Session> {
        let saved = self.inner().read_session(id).await?.ok_or_else(|| gone(id))?;
        Ok(Session { store: self.clone(), saved })
    }
}

impl Session {
    /// Its name, for [`Store::resume_session`].
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.saved.id
    }

    /// How many bytes have been acknowledged.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.saved.record.offset()
    }

    /// The hash that is computed as the bytes come.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.saved.record.hash.algorithm()
    }

    /// Whose session it is, as its maker said.
    #[must_use]
    pub fn owner(&self) -> &[u8] {
        &self.saved.record.owner
    }

    /// When it began, in milliseconds since 1970.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.saved.record.created
    }

    /// When it was last written, in milliseconds since 1970.
    #[must_use]
    pub fn touched(&self) -> u64 {
        self.saved.record.touched
    }

    /// The digest that a commit has begun with and perhaps not ended: only a commit by the same one goes on.
    #[must_use]
    pub fn committing(&self) -> Option<&Digest> {
        self.saved.record.committing.as_ref()
    }

    /// Appends what `stream` gives, from byte `offset` on, which is [`offset`](Self::offset). What it returns is the new
    /// offset: so much is durable, and goes on after a crash, here or on another node.
    ///
    /// A long stream is saved every 32 MiB. If it fails, what came before is saved, and the error comes back then.
    ///
    /// # Errors
    /// `Conflict` where `offset` is not the session's, where another node went on with it, or where it is being committed:
    /// resume it and read its offset. `NotFound` where it went meanwhile. `Invalid` where the stream fails, or the blob is
    /// larger than 10,000 extents can hold (39 GiB with 16 MiB of memory per stream). `Unavailable` or `Throttled` where the
    /// object store does not take data, `Revoked` where the key was taken away meanwhile: what
    /// [`offset`](Self::offset) says is durable.
    ///
    /// # Cancel safety
    /// What was saved stays; at most 64 MiB are lost. Resume the session.
    pub async fn append<E>(
        &mut self,
        offset: u64,
        mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<u64>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.refuse_marked()?;
        if offset != self.offset() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the upload is at byte {}, not {offset}", self.offset()),
            ));
        }
        let mut writer = self.writer().await?;
        let mut end = Ok(());
        let written = async {
            loop {
                match stream.next().await {
                    Some(Ok(bytes)) => self.write(&mut writer, bytes).await?,
                    None => break,
                    Some(Err(error)) => {
                        end = Err(Error::invalid("the bytes to append can't be read").with_source(error));
                        break;
                    }
                }
            }
            self.save_rest(&mut writer).await
        };
        let written = written.await;
        let written = self.settle(writer, written).await;
        self.explain(written).await?;
        end.map(|()| self.offset())
    }

    /// As [`append`](Self::append), with bytes that are in memory.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    ///
    /// # Cancel safety
    /// As [`append`](Self::append).
    pub async fn append_bytes(&mut self, offset: u64, bytes: impl Into<Bytes> + Send) -> Result<u64> {
        let one = stream::iter([Ok::<_, std::convert::Infallible>(bytes.into())]);
        self.append(offset, one).await
    }

    /// Makes the blob visible and durable, and removes the session. Killed in between, it can be called again with the same
    /// digest, on any node.
    ///
    /// # Errors
    /// `Invalid` where digest or size are not as claimed: the session stays as it is. `Conflict` where another node went on
    /// with it, or commits it by another digest. `NotFound` where it went meanwhile. `Corrupt` where stored data is missing:
    /// cancel it and begin anew. `Revoked`, `Unavailable`, `Throttled` as everywhere: the blob may or may not be there.
    ///
    /// # Cancel safety
    /// A dropped `commit` may or may not have made the blob visible; it is never half visible.
    pub async fn commit(&mut self, digest: &Digest, size: Option<u64>) -> Result<PutResult> {
        let result = self.try_commit(digest, size).await;
        let result = self.explain(result).await;
        // Another node may have committed it to the end.
        let result = match result {
            Err(error) if error.kind() == ErrorKind::NotFound => self.committed(digest).await?.ok_or(error),
            result => result,
        }?;
        self.store.inner().remove_committed(&mut self.saved, digest).await;
        Ok(result)
    }

    /// Gives up. What was uploaded is removed, unless a commit has begun: then it is gc's.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled`, `Conflict` as everywhere: the session may or may not be there. It is no error if it
    /// is gone already.
    ///
    /// # Cancel safety
    /// A dropped `cancel` may or may not have removed it.
    pub async fn cancel(self) -> Result<()> {
        self.store.inner().cancel_session(self.saved).await
    }

    async fn try_commit(&mut self, digest: &Digest, size: Option<u64>) -> Result<PutResult> {
        let inner = Arc::clone(self.store.inner());
        let dek = inner.session_dek(&self.saved.record.wraps).await?;
        if self.committing() != Some(digest) {
            self.refuse_marked()?;
            self.check_claims(&dek, digest, size).await?;
            self.mark(&dek, digest).await?;
        }
        self.renew_old_extents(&dek).await?;
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
            ttl: None,
        };
        inner.commit_shared(&draft).await
    }

    /// Whether the blob was made from this session.
    async fn committed(&self, digest: &Digest) -> Result<Option<PutResult>> {
        let found = self.store.inner().read_envelope(digest).await?;
        let Found::Blob(blob) = found else { return Ok(None) };
        let ours = blob.record.blob == self.saved.record.blob;
        let result = PutResult { digest: digest.clone(), size: blob.record.size, created: true };
        Ok(ours.then_some(result))
    }

    async fn check_claims(&self, dek: &Dek, digest: &Digest, size: Option<u64>) -> Result<()> {
        if let Some(size) = size
            && size != self.offset()
        {
            return Err(Error::invalid(format!("{} bytes came where {size} were announced", self.offset())));
        }
        let computed = if digest.algorithm() == self.algorithm() {
            self.hasher()?.finish()
        } else {
            self.hash_again(dek, digest.algorithm()).await?
        };
        if computed == *digest {
            return Ok(());
        }
        Err(Error::invalid(format!("the bytes have digest {computed}, not {digest} as claimed")))
    }

    /// Reads everything again, for the digest of an algorithm that nobody announced.
    async fn hash_again(&self, dek: &Dek, algorithm: Algorithm) -> Result<Digest> {
        let inner = self.store.inner();
        let record = &self.saved.record;
        let context = extent_context(&inner.store_id, &record.blob);
        let mut hasher = Hasher::new(algorithm);
        let mut pieces = stream::iter(&record.extents)
            .map(|stored| {
                let opener = Opener::new(inner.parts.crypto, dek.expose(), &context, &stored.extent.header);
                async move {
                    let opener = opener.map_err(|error| {
                        Error::corrupt("data of this upload does not authenticate").with_source(error)
                    })?;
                    inner.read_extent(opener, &stored.extent).await
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
            next.extents = stored(writer.extents());
            next.tail.clear();
            self.save(next, dek).await
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

    /// Data that is missing is no damage where another request went on with the session and replaced it.
    async fn explain<T>(&self, result: Result<T>) -> Result<T> {
        let Err(error) = &result else { return result };
        if error.kind() != ErrorKind::Corrupt {
            return result;
        }
        match self.store.inner().read_session(self.id()).await {
            Ok(None) => Err(gone(self.id())),
            Ok(Some(found)) if found.record.revision != self.saved.record.revision => Err(moved()),
            _ => result,
        }
    }

    /// Copies extents that gc could soon look at. Their old objects stay: an envelope may name them already.
    async fn renew_old_extents(&mut self, dek: &Dek) -> Result<()> {
        let inner = self.store.inner();
        if !self.saved.record.extents.iter().any(|stored| inner.is_old(&inner.placed(stored))) {
            return Ok(());
        }
        let mut writer = self.writer().await?;
        writer.renew_old_extents().await?;
        let next = SessionRecord { extents: stored(writer.extents()), ..self.saved.record.clone() };
        let saved = self.save(next, dek).await;
        self.settle(writer, saved).await
    }

    fn refuse_marked(&self) -> Result<()> {
        match self.committing() {
            Some(digest) => Err(Error::new(
                ErrorKind::Conflict,
                format!("the upload is being committed as {digest}; commit it again by that digest"),
            )),
            None => Ok(()),
        }
    }

    fn hasher(&self) -> Result<Hasher> {
        // Checked when the record was decoded.
        Hasher::resume(&self.saved.record.hash)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a session's hash state can't be resumed"))
    }

    /// A writer that goes on after what is saved.
    async fn writer(&self) -> Result<ExtentWriter> {
        let inner = self.store.inner();
        let record = &self.saved.record;
        let dek = inner.session_dek(&record.wraps).await?;
        inner.refuse_expired_kek()?;
        let begun = Begun { blob: record.blob, dek, hasher: self.hasher()?, extents: record.extents.len() };
        let parts = &inner.parts;
        let sealing = Sealing::go_on(
            parts.crypto,
            inner.store_id,
            begun,
            parts.memory_per_stream,
            parts.buffers.clone(),
        );
        let extents = record.extents.iter().map(|stored| inner.placed(stored)).collect();
        let tail = Bytes::from(record.tail.clone());
        Ok(ExtentWriter::go_on(Arc::clone(inner), sealing, extents, tail, MAX_EXTENTS))
    }

    async fn write(&mut self, writer: &mut ExtentWriter, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            writer.write(bytes.split_to(bytes.len().min(SLICE))).await?;
            let saved = self.offset();
            if let Some((extents, hash)) = writer.stored_prefix(saved, SAVE_EVERY).await? {
                let count = extents.len();
                let extents = stored(&extents);
                let next = SessionRecord { extents, tail: Vec::new(), hash, ..self.saved.record.clone() };
                self.save(next, writer.dek()?).await?;
                writer.named(count);
                writer.drop_replaced().await;
            }
        }
        Ok(())
    }

    /// Stores what is not stored, or keeps it in the session if it is little, and writes the session.
    async fn save_rest(&mut self, writer: &mut ExtentWriter) -> Result<()> {
        let tail = match writer.hash_short_rest(MAX_TAIL_LEN)? {
            Some(tail) => {
                writer.land_all().await?;
                tail
            }
            None => {
                writer.write_rest().await?;
                Vec::new()
            }
        };
        let (extents, hash) = (stored(writer.extents()), writer.hash()?);
        let next = SessionRecord { extents, tail, hash, ..self.saved.record.clone() };
        self.save(next, writer.dek()?).await
    }

    /// Writes the session, if it is still as it was read; with a revision of its own and the time of now.
    async fn save(&mut self, next: SessionRecord, dek: &Dek) -> Result<()> {
        self.store.inner().save_session(&mut self.saved, next, dek).await
    }

    /// Tidies up behind a write of the session that may have failed.
    async fn settle(&self, mut writer: ExtentWriter, outcome: Result<()>) -> Result<()> {
        match &outcome {
            Ok(()) => {
                // A marked session's extents may be named by an envelope, also under their old names.
                if self.committing().is_none() {
                    writer.drop_replaced().await;
                }
            }
            // A write that names them was sent: whoever read it may have gone on from there.
            Err(error) if self.saved.in_doubt => {
                tracing::debug!(%error, "data of a session whose state is in doubt stays until gc");
            }
            Err(_) => writer.abandon().await,
        }
        outcome
    }
}

impl StoreInner {
    /// An extent that was stored at a time of another node's clock.
    fn placed(&self, stored: &StoredExtent) -> PlacedExtent {
        let now = self.parts.runtime.now();
        let wall = UNIX_EPOCH + Duration::from_millis(stored.stored);
        // A little later than now is a clock that differs; much later is none to go by, and counts as old.
        let wall = if wall > now.wall && wall <= now.wall + CLOCK_SKEW { now.wall } else { wall };
        let age = now.wall.duration_since(wall).unwrap_or_default();
        let started = Now { boot: now.boot.saturating_sub(age), wall };
        PlacedExtent { extent: stored.extent.clone(), started }
    }
}

fn stored(placed: &[PlacedExtent]) -> Vec<StoredExtent> {
    let stored = |placed: &PlacedExtent| StoredExtent {
        extent: placed.extent.clone(),
        stored: placed.started.unix_ms(),
    };
    placed.iter().map(stored).collect()
}

fn gone(id: &SessionId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no upload {id}: it ended or expired; begin another one"),
    )
}

fn moved() -> Error {
    Error::new(ErrorKind::Conflict, "another request went on with this upload; resume it and read its offset")
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the process is shutting down")
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", self.id())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}
