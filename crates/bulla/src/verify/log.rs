//! The log: every record below the newest is there, and is what the newest remembers or a stub.

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::record::object_hash;
use bulla_envelope::record::{log_key, parse_log_key, stub};
use futures::{StreamExt, TryStreamExt, stream};

use super::Run;
use crate::bucket::BucketErrorKind;
use crate::error::Result;
use crate::log::LOG_PREFIX;

/// Records read at once.
const READS: usize = 16;

enum Older {
    Remembered,
    Stub,
    Wrong(&'static str),
}

impl Run<'_> {
    pub(super) async fn check_log(&self) -> Result<()> {
        // The newest authenticates, or else this is where it ends.
        let keys = self.inner.gate.refresh(&self.inner).await?;
        let record = &keys.view.record;
        let mut listing = self.inner.bucket.list(LOG_PREFIX);
        while let Some(entry) = listing.try_next().await? {
            if parse_log_key(&entry.key).is_none() {
                self.damaged(None, entry.key, "is no log record".to_owned());
            }
        }
        let looks = stream::iter(1..).zip(stream::iter(&record.history)).map(|(number, hash)| async move {
            Ok::<_, crate::Error>((number, self.look_at_record(number, hash).await?))
        });
        let mut looks = std::pin::pin!(looks.buffered(READS));
        while let Some((number, older)) = looks.try_next().await? {
            match older {
                Older::Remembered => {}
                Older::Stub => self.state().report.log_stubs += 1,
                Older::Wrong(what) => self.damaged(None, log_key(number), what.to_owned()),
            }
        }
        self.state().report.log_records = record.number;
        Ok(())
    }

    async fn look_at_record(&self, number: u64, hash: &[u8; 32]) -> Result<Older> {
        Ok(match self.inner.bucket.get(&log_key(number), MAX_OBJECT_LEN).await {
            Ok(None) => Older::Wrong("is missing from the log"),
            Ok(Some(object)) if object_hash(&object.bytes) == *hash => Older::Remembered,
            Ok(Some(object)) if object.bytes == stub() => Older::Stub,
            Ok(Some(_)) => Older::Wrong("is not the log record that later ones remember"),
            Err(error) if error.kind() == BucketErrorKind::TooLarge => {
                Older::Wrong("is larger than a log record may be")
            }
            Err(error) => return Err(error.into()),
        })
    }
}
