//! Appending a batch: put-if-absent at the next number, read back after anything but a definite yes.

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::audit::{Action, Batch, Entry, audit_key};
use bulla_envelope::envelope::EnvelopeHeader;
use bytes::Bytes;

use crate::bucket::Conditional;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Outcome;
use crate::store::StoreInner;
use crate::unlock::Unlocked;

/// Failed requests, and batches of others, before a flush is given up for now.
const ATTEMPTS: usize = 5;
const MAX_OTHERS: usize = 10_000;

/// What this node knows of the log's end, and what it is about to write there.
#[derive(Debug, Default)]
pub(super) struct Appender {
    head: Option<Head>,
    /// Taken from the queue, and perhaps already in the log.
    leaves: Vec<Vec<u8>>,
    /// As it was last sent. As long as its number is the next one the very same object is sent again: it may be there
    /// already, or get there late, and must not get there twice.
    sent: Option<(u64, Bytes)>,
}

/// The newest batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) hash: [u8; 32],
    /// How many entries there are up to its end.
    pub(super) size: u64,
}

impl Head {
    /// Before the first batch.
    pub(super) const START: Self = Self { number: 0, hash: [0; 32], size: 0 };

    /// The batch at this place, and the head that it makes.
    pub(super) fn after(&self, batch: &Batch, object: &[u8]) -> Result<Self> {
        let previous = (self.number > 0).then_some(self.hash);
        if batch.number != self.number + 1 || batch.previous != previous || batch.first != self.size {
            return Err(Error::corrupt(format!(
                "batch {} of the audit log does not follow the one before it: the log was rolled back or forked; \
                 restore the newest state of the bucket",
                batch.number
            )));
        }
        let size = self.size.saturating_add(u64::try_from(batch.entries.len()).unwrap_or(u64::MAX));
        Ok(Self { number: batch.number, hash: Batch::hash_of(object), size })
    }
}

impl StoreInner {
    pub(super) async fn audit_began(&self) -> Result<bool> {
        Ok(self.bucket.head(&audit_key(1)).await?.is_some())
    }

    /// Writes everything that waits.
    pub(crate) async fn flush_audit(&self) -> Result<()> {
        let audit = self.parts.events.audit();
        let mut appender = audit.appender.lock().await;
        loop {
            if appender.leaves.is_empty() {
                let mut queue = audit.lock();
                if queue.is_empty() {
                    queue.emptied();
                    return Ok(());
                }
                appender.leaves = queue.take(|count| self.lost(count));
                if appender.leaves.is_empty() {
                    continue;
                }
            }
            if let Err(error) = self.append_audit(&mut appender).await {
                let now = self.parts.runtime.now();
                audit.lock().failed(now, self.gate.held_live(self).is_some());
                tracing::debug!(%error, "the audit log was not written");
                return Err(error);
            }
        }
    }

    fn lost(&self, count: u64) -> Entry {
        let at = self.parts.runtime.now().unix_ms();
        let event = self.parts.events.event(Action::AuditLost, Outcome::Done);
        Entry {
            first: at,
            last: at,
            count,
            node: event.node.to_string(),
            action: event.action,
            outcome: event.outcome,
            reason: None,
            identity: None,
            keys: Vec::new(),
            store_key: None,
            log: None,
            swept: None,
            latency_us: 0,
        }
    }

    async fn append_audit(&self, appender: &mut Appender) -> Result<()> {
        let mut head = match appender.head {
            Some(head) => {
                // Numbers never vanish. Writing above a gap would make one log of two.
                if head.number > 0 && self.bucket.head(&audit_key(head.number)).await?.is_none() {
                    return Err(Error::corrupt(format!(
                        "batch {} of the audit log is gone, though it was seen before: the bucket was rolled back; \
                         restore its newest state",
                        head.number
                    )));
                }
                head
            }
            None => self.find_audit_head().await?,
        };
        if head.number == 0 && !self.parts.events.audit().lock().begins() {
            // The bucket did not say so when the store was opened: there is no log.
            self.parts.events.audit().lock().stop();
            *appender = Appender::default();
            return Ok(());
        }
        appender.head = Some(head);
        let (mut failures, mut others) = (0, 0);
        loop {
            let number = head.number + 1;
            let object = match &appender.sent {
                Some((sent, object)) if *sent == number => object.clone(),
                _ => self.seal_batch(&head, appender.leaves.clone())?,
            };
            appender.sent = Some((number, object.clone()));
            let key = audit_key(number);
            let failure = match self.bucket.put_create(&key, object.clone()).await {
                Conditional::Done(_) => None,
                Conditional::Lost => Some(None),
                Conditional::Unknown(error) => Some(Some(error)),
            };
            let Some(failure) = failure else {
                return appender.appended(&head, &object);
            };
            match self.bucket.get(&key, MAX_OBJECT_LEN).await? {
                Some(found) if found.bytes == object => return appender.appended(&head, &object),
                Some(found) => {
                    head = head.after(&self.open_batch(number, &found.bytes)?, &found.bytes)?;
                    appender.head = Some(head);
                    others += 1;
                }
                None => failures += 1,
            }
            if failures >= ATTEMPTS || others >= MAX_OTHERS {
                return Err(match failure {
                    Some(error) => error.into(),
                    None => {
                        Error::new(ErrorKind::Conflict, "the audit log did not take the batch; try again")
                    }
                });
            }
            if failures > 0 {
                self.back_off(failures).await;
            }
        }
    }

    fn seal_batch(&self, head: &Head, entries: Vec<Vec<u8>>) -> Result<Bytes> {
        let keys = self.audit_keys()?;
        let previous = (head.number > 0).then_some(head.hash);
        let batch = Batch { number: head.number + 1, first: head.size, previous, entries };
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let object = batch.seal(self.parts.crypto, &keys.root.audit_key(), header(&keys), salt);
        object.map(Bytes::from).map_err(|error| {
            Error::new(ErrorKind::Internal, "a batch of the audit log breaks the format's rules")
                .with_source(error)
        })
    }

    pub(super) fn open_batch(&self, number: u64, object: &[u8]) -> Result<Batch> {
        let keys = self.audit_keys()?;
        Batch::open(self.parts.crypto, &keys.root.audit_key(), header(&keys), number, object).map_err(|error| {
            Error::corrupt(format!(
                "batch {number} of the audit log does not authenticate: it was altered; restore it from a copy"
            ))
            .with_source(error)
        })
    }

    /// Under a live lease, and without prolonging it: an idle store's audit log keeps no key alive.
    fn audit_keys(&self) -> Result<std::sync::Arc<Unlocked>> {
        self.gate.held_live(self).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the audit log can't be written while the key can't be used")
        })
    }

    /// The newest batch, found by doubling and halving: numbers are contiguous.
    async fn find_audit_head(&self) -> Result<Head> {
        let (mut there, mut absent) = (0, 1);
        while self.bucket.head(&audit_key(absent)).await?.is_some() {
            there = absent;
            absent *= 2;
        }
        while there + 1 < absent {
            let middle = there + (absent - there) / 2;
            match self.bucket.head(&audit_key(middle)).await? {
                Some(_) => there = middle,
                None => absent = middle,
            }
        }
        if there == 0 {
            return Ok(Head::START);
        }
        let object = self.bucket.get(&audit_key(there), MAX_OBJECT_LEN).await?;
        let object =
            object.ok_or_else(|| Error::corrupt(format!("batch {there} of the audit log is gone")))?.bytes;
        let batch = self.open_batch(there, &object)?;
        let size = batch.first.saturating_add(u64::try_from(batch.entries.len()).unwrap_or(u64::MAX));
        Ok(Head { number: there, hash: Batch::hash_of(&object), size })
    }
}

impl Appender {
    fn appended(&mut self, head: &Head, object: &[u8]) -> Result<()> {
        let count = u64::try_from(self.leaves.len()).unwrap_or(u64::MAX);
        let size = head.size.saturating_add(count);
        self.head = Some(Head { number: head.number + 1, hash: Batch::hash_of(object), size });
        self.leaves.clear();
        self.sent = None;
        Ok(())
    }
}

fn header(keys: &Unlocked) -> EnvelopeHeader {
    EnvelopeHeader { store: keys.store(), root: keys.root_id }
}
