//! How many blobs are received at a time, and how many manifests: each of them takes memory, a stream's or its own length.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Who waited for so long comes back later. Nothing of the body is read meanwhile, so that the client waits as well.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Places(Semaphore);

/// No place became free.
pub(super) struct Full;

impl Places {
    pub(super) fn new(uploads: usize) -> Self {
        Self(Semaphore::new(uploads.clamp(1, Semaphore::MAX_PERMITS)))
    }

    /// A place, to be held until the request is answered.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>, Full> {
        match tokio::time::timeout(PATIENCE, self.0.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }
}
