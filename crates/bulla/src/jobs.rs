//! Job objects: what nodes that share a sweep know of each other, changed by compare-and-swap.
//!
//! A job holds nothing that can't be found out again. So one that can't be read is begun anew, with a warning; whoever wrote
//! it can cost work and nothing else, because what a sweep came to is *counted* afterwards ([`crate::count`]).

use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::job::{Job, OpenJobError, Sweep};
use bulla_envelope::{DecodeError, MAX_OBJECT_LEN};
use bytes::Bytes;

use crate::bucket::{BucketErrorKind, Conditional, UpdateVersion};
use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreInner;
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 32;

/// What is in a job's place.
struct Stored {
    sweep: Sweep,
    /// `None`: there is no object.
    version: Option<UpdateVersion>,
    bytes: Bytes,
}

impl StoreInner {
    /// Changes a sweep's job, which begins where there is none. `change` says whether there is anything to write, and may be
    /// called more than once: others change it too.
    ///
    /// # Errors
    /// `Conflict` where others always were faster; the bucket's and the gate's.
    pub(crate) async fn change_sweep<T>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Sweep) -> (bool, T),
    ) -> Result<T> {
        let mut failure = None;
        let mut sent: Option<(Bytes, T)> = None;
        for attempt in 0..ATTEMPTS {
            let stored = self.patiently(|| self.read_sweep(name)).await?;
            // After any failed conditional write: our own bytes there are success.
            if let Some((bytes, result)) = sent.take()
                && bytes == stored.bytes
            {
                return Ok(result);
            }
            let mut sweep = stored.sweep;
            let (write, result) = change(&mut sweep);
            if !write {
                return Ok(result);
            }
            let keys = self.gate.secrets(self).await?;
            let bytes = self.seal_sweep(&keys, name, sweep)?;
            let key = keys.job_names.job_key(name);
            let outcome = match &stored.version {
                Some(version) => self.bucket.put_update(&key, bytes.clone(), version).await,
                None => self.bucket.put_create(&key, bytes.clone()).await,
            };
            match outcome {
                Conditional::Done(_) => return Ok(result),
                Conditional::Lost => {}
                Conditional::Unknown(error) => failure = Some(error),
            }
            sent = Some((bytes, result));
            self.back_off(attempt).await;
        }
        Err(failure.map_or_else(
            || Error::new(ErrorKind::Conflict, "other nodes keep changing the job; run the command again"),
            Error::from,
        ))
    }

    /// Removes a job that is over. Best effort: it is one small object.
    pub(crate) async fn remove_job(&self, name: &str) {
        let Ok(keys) = self.gate.secrets(self).await else { return };
        if let Err(error) = self.bucket.delete_data(&keys.job_names.job_key(name)).await {
            tracing::debug!(%error, "a job that is over stays");
        }
    }

    async fn read_sweep(&self, name: &str) -> Result<Stored> {
        let keys = self.gate.secrets(self).await?;
        let key = keys.job_names.job_key(name);
        let object = self.bucket.get(&key, MAX_OBJECT_LEN).await.map_err(|error| match error.kind() {
            BucketErrorKind::TooLarge => Error::corrupt(format!(
                "`{key}` is no job, which is smaller; remove it and run the command again: a job holds nothing that \
                 can't be found out again"
            ))
            .with_source(error),
            _ => error.into(),
        })?;
        let Some(object) = object else {
            return Ok(Stored { sweep: Sweep::new(), version: None, bytes: Bytes::new() });
        };
        let opened = Job::open(self.parts.crypto, &keys.meta_key, header(&keys), name, &object.bytes);
        let sweep = match opened {
            Ok(Job::Sweep(sweep)) => *sweep,
            Err(OpenJobError::Decode(DecodeError::UnknownVersion(version))) => {
                return Err(Error::invalid(format!(
                    "`{key}` is a job of format version {version}: a newer Bulla is at it; use that one"
                )));
            }
            opened => {
                if !object.is_tombstone() {
                    tracing::warn!(%key, ?opened, "a job that can't be read is begun anew");
                }
                Sweep::new()
            }
        };
        Ok(Stored { sweep, version: Some(object.version), bytes: object.bytes })
    }

    fn seal_sweep(&self, keys: &Unlocked, name: &str, sweep: Sweep) -> Result<Bytes> {
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let job = Job::Sweep(Box::new(sweep));
        let sealed = job.seal(self.parts.crypto, &keys.meta_key, header(keys), name, salt);
        let bytes = sealed.map_err(|error| {
            Error::new(ErrorKind::Internal, "a job that breaks the format's rules").with_source(error)
        })?;
        Ok(bytes.into())
    }

    /// Repeats what failed for want of an answer: long work does not end at the first hiccup.
    pub(crate) async fn patiently<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        const PATIENCE: usize = 8;
        const LONGEST: std::time::Duration = std::time::Duration::from_secs(10);
        let mut attempt = 0;
        loop {
            match work().await {
                Err(error)
                    if attempt < PATIENCE
                        && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Throttled) =>
                {
                    if let Some(wait) = error.retry_after() {
                        self.parts.runtime.sleep(wait.min(LONGEST)).await;
                    }
                    self.back_off(attempt).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}

fn header(keys: &Unlocked) -> EnvelopeHeader {
    EnvelopeHeader { store: keys.store(), root: keys.root_id }
}
