//! Pins: how who reuses a blob and gc, which removes it, keep out of each other's way.
//!
//! ```text
//! reuse   pin kept, written less than half of the grace ago ─► blob still there? ─► link
//! gc      no link anywhere, pin absent or a grace old
//!           ─► pin condemned ─► no link anywhere, again ─► pin deleting {put, written}, if it is still that pin
//!           ─► delete that envelope ─► pin gone
//! ```
//!
//! Who reuses a blob and comes before *condemned* has linked it when gc looks again; who comes after it makes the pin another
//! one. (Without *condemned* gc would count on a pin that is absent *still*, and it may be so *again*.) A blob that a put has
//! just created needs no pin: its envelope is young.
//!
//! A gc that died while it was at a blob leaves a pin that says so; whoever comes by finishes it. That is safe however late
//! the first one wakes up: all that anybody removes under a pin is the envelope it names, by its put and time, and that is
//! gone by then. (An upload that is committed again is the same put, at another time.)

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla::{BlobId, BlobInfo, Digest, MetaEntry, MetaVersion, MetaWrite};

use crate::error::Result;
use crate::facts::{PIN, PinFact, decode, encode};
use crate::registry::Registry;

/// A gc that is at a blob is done with it within this time, or dead.
const WAIT: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(100);

/// The envelope that a pin condemns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condemned {
    pub(crate) put: BlobId,
    /// In milliseconds since 1970.
    pub(crate) written: u64,
}

impl Condemned {
    pub(crate) fn of(blob: &BlobInfo) -> Self {
        let since = blob.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { put: blob.put, written: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn fact(self) -> PinFact {
        PinFact::Deleting { put: self.put, written: self.written }
    }

    fn modified(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.written)
    }
}

impl Registry {
    /// Keeps gc from removing the blob before it is linked, for at least half of the grace. It may be gone already: look
    /// for it afterwards.
    pub(crate) async fn pin(&self, digest: &Digest) -> Result<()> {
        let name = digest.to_string();
        let path = [name.as_str()];
        let meta = self.store().meta();
        let mut since = None;
        let mut found = meta.get(PIN, &path).await?;
        loop {
            let Some(entry) = found else {
                match meta.create(PIN, &path, encode(&PinFact::Kept)).await? {
                    MetaWrite::Done(_) => return Ok(()),
                    MetaWrite::Changed(other) => found = other,
                }
                continue;
            };
            match decode::<PinFact>(&entry)? {
                PinFact::Kept => match self.touch(PIN, &path, entry).await? {
                    Some(entry) if decode::<PinFact>(&entry)? == PinFact::Kept => return Ok(()),
                    other => found = other,
                },
                PinFact::Condemned => {
                    match meta.update(PIN, &path, encode(&PinFact::Kept), &entry.version).await? {
                        MetaWrite::Done(_) => return Ok(()),
                        MetaWrite::Changed(other) => found = other,
                    }
                }
                PinFact::Deleting { put, written } => {
                    let (version, first_seen) =
                        since.get_or_insert_with(|| (entry.version.clone(), self.boot()));
                    if *version != entry.version {
                        since = None;
                    } else if self.boot().saturating_sub(*first_seen) > WAIT {
                        self.take_over(digest, &entry, Condemned { put, written }).await?;
                        since = None;
                    } else {
                        self.store().runtime().sleep(POLL).await;
                    }
                    found = meta.get(PIN, &path).await?;
                }
            }
        }
    }

    /// Finishes the removal that a pin speaks of. Whether it was still this pin, and the blob was there.
    pub(crate) async fn take_over(
        &self,
        digest: &Digest,
        pin: &MetaEntry,
        condemned: Condemned,
    ) -> Result<bool> {
        let name = digest.to_string();
        let payload = encode(&condemned.fact());
        match self.store().meta().update(PIN, &[name.as_str()], payload, &pin.version).await? {
            MetaWrite::Done(version) => self.remove_pinned(digest, condemned, &version).await,
            MetaWrite::Changed(_) => Ok(false),
        }
    }

    /// Removes what is condemned, under the pin that says so. Whether it was there.
    pub(crate) async fn remove_pinned(
        &self,
        digest: &Digest,
        condemned: Condemned,
        pin: &MetaVersion,
    ) -> Result<bool> {
        let removed = self.store().delete_put(digest, &condemned.put, condemned.modified()).await?;
        // Whoever took over removes the pin.
        let _: MetaWrite<()> = self.store().meta().remove(PIN, &[digest.to_string().as_str()], pin).await?;
        Ok(removed)
    }
}
