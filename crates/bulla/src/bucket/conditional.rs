//! The outcome of a conditional write.

use object_store::{Error, UpdateVersion};

use super::BucketError;

/// What a conditional write came to.
///
/// After anything but [`Done`](Self::Done) the caller re-reads the object before it decides: object stores retry
/// inside, so that `Lost` may be the second answer to a request of which the first one was applied and its answer
/// lost. Our own bytes there = success; nothing there = try again; something else there = really lost
/// (FORMAT-P4).
#[derive(Debug)]
#[must_use = "a conditional write that was not looked at may have been lost"]
#[non_exhaustive]
pub enum Conditional<T = UpdateVersion> {
    /// Written, durably, and here is the version to make the next write conditional on.
    Done(T),
    /// The store answered that the condition does not hold (or, on S3, that a conflicting request was in flight).
    Lost,
    /// No definite answer: the write may or may not have been applied, or may yet be.
    Unknown(BucketError),
}

impl<T> Conditional<T> {
    pub(super) fn from_result(result: Result<T, Error>, action: &str, key: &str) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            // `AlreadyExists` is also S3's 409: a concurrent conditional request.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => {
                Self::Lost
            }
            Err(error) => Self::Unknown(BucketError::from_store(action, key, error)),
        }
    }

    /// Whether the write is known to have been applied.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}
