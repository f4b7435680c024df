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

mod append;
mod commit;
mod list;
mod rewrap;
mod saved;

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use bulla_envelope::ids::{BlobId, SessionId};
use bulla_envelope::secret::Dek;
use bulla_envelope::session::{MAX_OWNER_LEN, SessionRecord, StoredExtent};
use bulla_kek::Now;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

pub use self::list::SessionEntry;
use self::saved::Saved;
use crate::error::{Error, ErrorKind, Result};
use crate::extents::{ExtentWriter, PlacedExtent};
use crate::store::{Store, StoreInner};
use crate::upload::PutResult;

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
        let id = SessionId::random(self.inner().parts.runtime.random());
        self.begin_session(&id, options).await
    }

    /// Begins the session `id`, or resumes it if it has begun: one request where it has not. So a caller may hand out names of
    /// sessions that are in no bucket before something comes; such a name is [random](SessionId::random), and handed out once.
    ///
    /// # Errors
    /// As [`create_session`](Self::create_session); `NotFound` where it has ended, as far as that is known: a folder does not
    /// remember it.
    ///
    /// # Cancel safety
    /// As [`create_session`](Self::create_session).
    pub async fn begin_session(&self, id: &SessionId, options: SessionOptions) -> Result<Session> {
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
            wraps: vec![inner.wrap_dek(&keys, &dek).await?],
            blob: BlobId::random(random),
            dek_root: keys.root_id,
            extents: Vec::new(),
            tail: Vec::new(),
            hash: Hasher::new(options.algorithm).state(),
            created: now,
            touched: now,
            revision: inner.nonce(),
            owner: options.owner,
            horizon: 0,
            committing: None,
        };
        let saved = inner.create_session(*id, record, &dek, &keys).await?;
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
        let result = match result {
            // Another node may have committed it to the end.
            Err(error) if error.kind() == ErrorKind::NotFound => self.confirm(digest).await?.ok_or(error),
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

    /// Data that is missing is no damage where another request went on with the session and replaced it.
    async fn explain<T>(&self, result: Result<T>) -> Result<T> {
        let Err(error) = &result else { return result };
        if error.kind() != ErrorKind::Corrupt {
            return result;
        }
        // Where that can't be read, damage is not certain.
        match self.store.inner().read_session(self.id()).await? {
            None => Err(gone(self.id())),
            Some(found) if found.record.revision != self.saved.record.revision => Err(moved()),
            Some(_) => result,
        }
    }

    /// Writes the session with the first `count` extents of `writer`, and again if a gc made it copy them meanwhile.
    async fn save_stored(
        &mut self,
        writer: &mut ExtentWriter,
        count: usize,
        mut next: SessionRecord,
    ) -> Result<()> {
        let before = self.saved.record.clone();
        loop {
            next.extents = stored(&writer.extents()[..count]);
            next.horizon = writer.horizon().0;
            self.save(next.clone(), writer.dek()?).await?;
            writer.named(count);
            match writer.outrun_gc().await {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                // What is new was collected, and what was acknowledged before was not: gc has seen the session name it.
                // Once it is marked it stays so, as another node may have read that.
                Err(error) if error.kind() == ErrorKind::Conflict && next.committing.is_none() => {
                    self.save(before, writer.dek()?).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the session, if it is still as it was read; with a revision of its own and the time of now.
    async fn save(&mut self, next: SessionRecord, dek: &Dek) -> Result<()> {
        self.store.inner().save_session(&mut self.saved, next, dek).await
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", self.id())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}
