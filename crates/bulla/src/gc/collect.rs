//! Collecting: data that is not named and older than the horizon is removed, in batches.

use bulla_envelope::names::extent_of_key;
use futures::TryStreamExt;

use super::mark::Mark;
use super::{GcProgress, GcReport, Tally};
use crate::error::Result;
use crate::horizon::Horizon;
use crate::store::StoreInner;

pub(crate) const DATA: &str = "data";

/// Objects removed between two looks at the log.
const BATCH: usize = 256;

/// How many foreign objects a report names.
const NAMES: usize = 20;

impl StoreInner {
    pub(super) async fn collect(
        &self,
        mark: &Mark,
        before: Horizon,
        dry_run: bool,
        report: &mut GcReport,
        progress: &mut (dyn FnMut(GcProgress) + Send),
    ) -> Result<()> {
        let mut batch = Vec::new();
        let mut listing = self.bucket.list(DATA);
        while let Some(entry) = listing.try_next().await? {
            let one = Tally::one(entry.size);
            report.data += one;
            match extent_of_key(&entry.key) {
                None => {
                    report.foreign += one;
                    if report.foreign_names.len() < NAMES {
                        report.foreign_names.push(entry.key);
                    }
                }
                Some(extent) if mark.names(&extent) => {}
                Some(_) if !before.is_after(entry.last_modified) => report.too_young += one,
                Some(_) => {
                    report.removed += one;
                    if !dry_run {
                        batch.push(entry.key);
                    }
                }
            }
            if batch.len() == BATCH {
                self.remove_data(&std::mem::take(&mut batch)).await?;
            }
            progress(GcProgress::Collecting { seen: report.data, removed: report.removed });
        }
        self.remove_data(&batch).await
    }

    /// Removes data, under a live lease and a log that was read just now.
    async fn remove_data(&self, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.patiently(|| async {
            self.gate.refresh(self).await?;
            Ok(self.bucket.delete_all(keys).await?)
        })
        .await
    }
}
