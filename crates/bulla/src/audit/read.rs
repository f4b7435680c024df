//! Reading a whole audit log, and holding it against a checkpoint.

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::audit::{
    AUDIT_PREFIX, Checkpoint, Entry, StoreLogMark, audit_key, parse_audit_key, root_of,
};
use futures::{StreamExt, TryStreamExt};

use super::append::Head;
use crate::error::{Error, ErrorKind, Result};
use crate::log::RecordMark;
use crate::store::StoreInner;

/// Batches read ahead.
const AHEAD: usize = 16;

/// A store's audit log, whole and in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditLog {
    /// The entries' bytes: leaves of the tree.
    pub leaves: Vec<Vec<u8>>,
    /// How many objects they are in.
    pub batches: u64,
    /// The newest record of the store's own log.
    pub log: RecordMark,
}

impl AuditLog {
    /// The entries.
    ///
    /// # Errors
    /// `Internal` if one can't be decoded, which reading the log has checked.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let decode = |leaf: &Vec<u8>| {
            Entry::decode(leaf)
                .map_err(|error| Error::new(ErrorKind::Internal, "not an entry").with_source(error))
        };
        self.leaves.iter().map(decode).collect()
    }

    /// Whether the log begins with what was signed.
    pub(super) fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        let signed = usize::try_from(checkpoint.size).ok().and_then(|size| self.leaves.get(..size));
        let Some(signed) = signed else {
            return Err(Error::corrupt(format!(
                "the audit log has {} entries, and the checkpoint {}: the bucket was rolled back; restore its newest state",
                self.leaves.len(),
                checkpoint.size
            )));
        };
        if root_of(signed.iter().map(Vec::as_slice)) != checkpoint.root {
            return Err(Error::corrupt(
                "the audit log does not begin with the entries that the checkpoint signed: the bucket was forked; \
                 restore its newest state",
            ));
        }
        Ok(())
    }
}

impl StoreInner {
    pub(super) async fn read_audit(&self) -> Result<AuditLog> {
        // The lease is prolonged: reading is a use.
        let log = self.gate.secrets(self).await?.view.mark;
        let last = self.last_batch().await?;
        let objects = futures::stream::iter(1..=last)
            .map(|number| async move {
                let object = self.bucket.get(&audit_key(number), MAX_OBJECT_LEN).await?;
                let object = object
                    .ok_or_else(|| Error::corrupt(format!("batch {number} of the audit log is gone")))?;
                Ok::<_, Error>((number, object.bytes))
            })
            .buffered(AHEAD);
        let mut objects = std::pin::pin!(objects);
        let mut head = Head::START;
        let mut leaves = Vec::new();
        while let Some((number, object)) = objects.try_next().await? {
            self.gate.secrets(self).await?;
            let mut batch = self.open_batch(number, &object)?;
            head = head.after(&batch, &object)?;
            leaves.append(&mut batch.entries);
        }
        Ok(AuditLog { leaves, batches: last, log })
    }

    /// The newest batch by the listing, which must have no gap.
    async fn last_batch(&self) -> Result<u64> {
        let mut numbers = Vec::new();
        let mut listing = self.bucket.list(AUDIT_PREFIX);
        while let Some(entry) = listing.try_next().await? {
            let number = parse_audit_key(&entry.key)
                .ok_or_else(|| Error::corrupt(format!("`{}` does not belong in the audit log", entry.key)))?;
            numbers.push(number);
        }
        numbers.sort_unstable();
        let Some(&last) = numbers.last() else {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the store has no audit log; begin one with `bulla audit start STORE`",
            ));
        };
        if let Some((gap, _)) = (1..=last).zip(&numbers).find(|(expected, found)| expected != *found) {
            return Err(Error::corrupt(format!(
                "batch {gap} of the audit log is missing: it was removed; restore it from a copy"
            )));
        }
        Ok(last)
    }
}

impl From<StoreLogMark> for RecordMark {
    fn from(mark: StoreLogMark) -> Self {
        Self { number: mark.number, hash: mark.hash }
    }
}

impl From<RecordMark> for StoreLogMark {
    fn from(mark: RecordMark) -> Self {
        Self { number: mark.number, hash: mark.hash }
    }
}
