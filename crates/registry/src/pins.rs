//! Pins: how who reuses a blob and gc, which removes it, keep out of each other's way.
//!
//! ```text
//! reuse   pin kept, written less than half of the grace ago ─► blob still there? ─► link
//! gc      no link anywhere, pin absent or a grace old ─► pin deleting, if it is still that one ─► delete ─► pin gone
//! ```
//!
//! A blob that a put has just created needs none: its envelope is young.

use std::time::Duration;

use bulla::{Digest, MetaWrite};

use crate::error::{RegistryError, Result};
use crate::facts::{PIN, PinFact, PinState, decode, encode};
use crate::registry::Registry;

/// A gc that is at a blob is done with it within this time, or dead.
const WAIT: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(100);

impl Registry {
    /// Keeps gc from removing the blob before it is linked, for at least half of the grace. It may be gone already: look
    /// for it afterwards.
    pub(crate) async fn pin(&self, digest: &Digest) -> Result<()> {
        let name = digest.to_string();
        let path = [name.as_str()];
        let meta = self.store().meta();
        let started = self.boot();
        let mut found = meta.get(PIN, &path).await?;
        loop {
            let Some(entry) = found else {
                match meta.create(PIN, &path, encode(&PinFact { state: PinState::Kept })).await? {
                    MetaWrite::Done(_) => return Ok(()),
                    MetaWrite::Changed(other) => found = other,
                }
                continue;
            };
            if decode::<PinFact>(&entry)?.state == PinState::Kept {
                let kept = self.touch(PIN, &path, entry).await?;
                match kept {
                    Some(entry) if decode::<PinFact>(&entry)?.state == PinState::Kept => return Ok(()),
                    other => found = other,
                }
                continue;
            }
            if self.boot().saturating_sub(started) > WAIT {
                return Err(RegistryError::busy("a gc is removing this blob; try again"));
            }
            self.store().runtime().sleep(POLL).await;
            found = meta.get(PIN, &path).await?;
        }
    }
}
