//! Blobs that no repository has: they go, unless somebody used them since.

use std::collections::HashSet;
use std::time::SystemTime;

use bulla::{BlobInfo, Digest, ErrorKind, Store};
use futures::{StreamExt, TryStreamExt, stream};

use super::{CollectProgress, REQUESTS, Run};
use crate::error::{RegistryError, Result};

/// What becomes of a blob that no repository has.
enum Fate {
    Removed(BlobInfo),
    /// Somebody used it within the grace, or another gc removed it.
    NotOurs,
    Damaged,
}

impl Run<'_> {
    /// Removes the blobs of `unneeded`, but for those that were written since they were listed.
    pub(super) async fn blobs(&mut self, unneeded: HashSet<Digest>) -> Result<()> {
        let (store, before, dry_run) = (self.registry.store().clone(), self.before, self.dry_run);
        let fates = stream::iter(unneeded).map(|digest| {
            let store = &store;
            async move {
                let fate = fate(store, &digest, before, dry_run).await?;
                Ok::<_, RegistryError>((digest, fate))
            }
        });
        let mut fates = fates.buffer_unordered(REQUESTS);
        let mut done = 0;
        while let Some((digest, fate)) = fates.try_next().await? {
            match fate {
                Fate::Removed(blob) => {
                    self.report.removed_blobs.objects += 1;
                    self.report.removed_blobs.bytes += blob.size;
                }
                Fate::NotOurs => self.report.too_young += 1,
                Fate::Damaged => self.damaged(format!("the blob {digest}")),
            }
            done += 1;
            (self.progress)(CollectProgress::Blobs(done));
        }
        Ok(())
    }
}

async fn fate(store: &Store, digest: &Digest, before: SystemTime, dry_run: bool) -> Result<Fate> {
    let removed = if dry_run {
        store.stat(digest).await.map(|blob| (blob.modified <= before).then_some(blob))
    } else {
        store.delete_older(digest, before).await
    };
    match removed {
        Ok(Some(blob)) => Ok(Fate::Removed(blob)),
        Ok(None) => Ok(Fate::NotOurs),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Fate::NotOurs),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Fate::Damaged),
        Err(error) => Err(error.into()),
    }
}
