//! Marking: which data objects are named, as a sorted list of their ids.

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::ids::ExtentName;
use futures::TryStreamExt;

use super::GcProgress;
use crate::bucket::Entry;
use crate::envelopes::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreInner;

pub(crate) const BLOBS: &str = "blobs";

/// Envelopes opened at once, of at most 1 MiB each.
const OPEN_AT_ONCE: usize = 16;

/// How many unreadable envelopes an error names.
const NAMES: usize = 10;

/// What envelopes and sessions say. 16 bytes for each extent and each envelope.
#[derive(Debug, Default)]
pub(super) struct Mark {
    pub(super) envelopes: u64,
    pub(super) uploads: u64,
    pub(super) expired: Vec<Digest>,
    /// Sorted.
    named: Vec<ExtentName>,
}

/// What an object below `blobs/` is, by its name and size.
#[derive(Debug)]
pub(crate) enum Named {
    Tombstone,
    Blob(Digest),
    /// No name that was sealed under this store's root.
    Foreign,
}

/// One envelope, looked at.
enum Marked {
    Blob {
        extents: Vec<ExtentName>,
        expired: Option<Digest>,
    },
    /// The first look saw it as well.
    Known,
    /// Deleted.
    Gone,
    Unreadable(String),
}

impl Mark {
    pub(super) fn names(&self, extent: &ExtentName) -> bool {
        self.named.binary_search(extent).is_ok()
    }
}

/// Tells an envelope from another of the same name.
type Print = [u8; 16];

impl StoreInner {
    /// Opens every session and every envelope. `began`: when the gc did, by the bucket's clock, in ms since 1970.
    ///
    /// A listing may miss an object that is replaced while it runs (in a folder: a rename), so there are two; what the second
    /// shows as the first did is not opened again. Sessions come before envelopes each time: who commits creates the envelope
    /// first and then removes the session, so what was in neither of the earlier look is in one of the later.
    pub(super) async fn mark(
        &self,
        began: u64,
        progress: &mut (dyn FnMut(GcProgress) + Send),
    ) -> Result<Mark> {
        // An envelope that appears from here on is not looked for: its writer knows the horizon.
        self.gate.refresh(self).await?;
        let mut mark = Mark::default();
        self.look_at_sessions(&mut mark).await?;
        let (first, _) = self.look(&[], &mut mark, began, progress).await?;
        self.look_at_sessions(&mut mark).await?;
        let (_, unreadable) = self.look(&first, &mut mark, began, progress).await?;
        // Those of the first look count only if the second shows them as well.
        unreadable.into_result()?;
        mark.named.sort_unstable();
        mark.named.dedup();
        Ok(mark)
    }

    /// Lists the envelopes and opens those that are not among `known`. What was opened, sorted, and what does not open.
    async fn look(
        &self,
        known: &[Print],
        mark: &mut Mark,
        began: u64,
        progress: &mut (dyn FnMut(GcProgress) + Send),
    ) -> Result<(Vec<Print>, Unreadable)> {
        let looks = self.bucket.list(BLOBS).map_err(Error::from).map_ok(|entry| async move {
            let print = print(&entry);
            let is_known = known.binary_search(&print).is_ok();
            let looked = if is_known { Marked::Known } else { self.look_at(&entry, began).await? };
            Ok((print, looked))
        });
        let mut looks = std::pin::pin!(looks.try_buffer_unordered(OPEN_AT_ONCE));
        let (mut prints, mut unreadable) = (Vec::new(), Unreadable::default());
        mark.envelopes = 0;
        while let Some((print, looked)) = looks.try_next().await? {
            match looked {
                Marked::Known => {}
                Marked::Blob { extents, expired } => {
                    mark.named.extend(extents);
                    mark.expired.extend(expired);
                    prints.push(print);
                }
                Marked::Gone => continue,
                Marked::Unreadable(what) => unreadable.add(what),
            }
            mark.envelopes += 1;
            progress(GcProgress::Marking(mark.envelopes));
        }
        prints.sort_unstable();
        Ok((prints, unreadable))
    }

    async fn look_at_sessions(&self, mark: &mut Mark) -> Result<()> {
        let sessions = self.session_keys();
        let sessions = sessions.map_ok(|key| async move {
            let read = self.patiently(|| self.session_entry(&key)).await;
            read.map_err(|error| match error.kind() {
                ErrorKind::Corrupt => unreadable_session(&key).with_source(error),
                _ => error,
            })
        });
        let mut sessions = std::pin::pin!(sessions.try_buffer_unordered(OPEN_AT_ONCE));
        mark.uploads = 0;
        while let Some(session) = sessions.try_next().await? {
            let Some(session) = session else { continue };
            mark.uploads += 1;
            mark.named.extend(session.extents().map(|extent| extent.name));
        }
        Ok(())
    }

    async fn look_at(&self, entry: &Entry, began: u64) -> Result<Marked> {
        let digest = match self.named(entry).await? {
            Named::Blob(digest) => digest,
            Named::Tombstone => return Ok(Marked::Gone),
            Named::Foreign => {
                let what = format!("`{}` (no envelope of this store; move it away)", entry.key);
                return Ok(Marked::Unreadable(what));
            }
        };
        if entry.size > MAX_OBJECT_LEN as u64 {
            return Ok(Marked::Unreadable(digest.to_string()));
        }
        Ok(match self.patiently(|| self.read_envelope(&digest)).await? {
            Found::Blob(found) => Marked::Blob {
                extents: found.record.extents.iter().map(|extent| extent.name).collect(),
                expired: self.has_expired(found.record.expires, began).then_some(digest),
            },
            Found::Nothing | Found::Tombstone(_) => Marked::Gone,
            Found::Damaged(..) => Marked::Unreadable(digest.to_string()),
        })
    }

    /// What an object below `blobs/` is. Names are secrets under the lease as well.
    pub(crate) async fn named(&self, entry: &Entry) -> Result<Named> {
        if entry.is_tombstone() {
            return Ok(Named::Tombstone);
        }
        let keys = self.gate.secrets(self).await?;
        Ok(match keys.blob_names.digest_of_blob_key(&keys.root_id, &entry.key) {
            Ok(digest) => Named::Blob(digest),
            Err(_) => Named::Foreign,
        })
    }
}

#[derive(Default)]
struct Unreadable {
    names: Vec<String>,
    count: usize,
}

impl Unreadable {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.names.len() < NAMES {
            self.names.push(what);
        }
    }

    fn into_result(mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let more = match self.count - self.names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.names.sort_unstable();
        Err(Error::corrupt(format!(
            "{} of the envelopes can't be opened, so what they name is not known and no data was removed: {}{more}; put \
             these blobs again or remove them (`bulla rm`), then run gc again",
            self.count,
            self.names.join(", ")
        )))
    }
}

fn unreadable_session(key: &str) -> Error {
    Error::corrupt(format!(
        "`{key}` is an upload session that can't be opened, so what it names is not known and no data was removed: it goes \
         by itself after seven days, or remove it, and run gc again"
    ))
}

fn print(entry: &Entry) -> Print {
    let text = format!("{} {:?} {:?} {}", entry.key, entry.version, entry.last_modified, entry.size);
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    let mut print = Print::default();
    print.copy_from_slice(&digest.as_bytes()[..16]);
    print
}
