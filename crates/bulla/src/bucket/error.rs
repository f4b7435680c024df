//! What can go wrong between the engine and an object store.

use std::error::Error as StdError;
use std::fmt;

/// Why a request to the bucket failed; each kind is handled differently by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BucketErrorKind {
    /// The folder, container or bucket does not exist (objects that are absent are `None`, not an error).
    NotFound,
    /// No definite answer: network, server error, disk error. Retry with backoff.
    Unavailable,
    /// The store asks for fewer requests. Retry more slowly.
    Throttled,
    /// The credentials are missing, wrong, or not allowed to do this.
    PermissionDenied,
    /// The object is larger than the reader was ready to accept; nothing of it was read.
    TooLarge,
    /// The object ends before the requested range does: it is not what was written.
    ShortObject,
    /// The store can't do something Bulla needs (conditional writes).
    Unsupported,
    /// The call can't work as it is: a malformed URL or key, a back end that was not built in.
    Invalid,
}

/// An error of a [`Bucket`](super::Bucket). Carries the object store's own error as its
/// [`source`](StdError::source); never a secret, since object stores redact the requests that carry one and
/// a [`StoreUrl`](super::StoreUrl) refuses credentials.
pub struct BucketError {
    kind: BucketErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

impl BucketError {
    /// Why it failed.
    #[must_use]
    pub fn kind(&self) -> BucketErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: BucketErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync + 'static>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// `action` is a verb phrase such as "read"; `key` the object's key, which is sealed and thus no secret.
    pub(crate) fn from_store(action: &str, key: &str, error: object_store::Error) -> Self {
        Self::new(classify(&error), format!("can't {action} {key}")).with_source(error)
    }
}

/// object_store keeps the HTTP status behind a type it does not export, so what it prints has to do.
fn classify(error: &object_store::Error) -> BucketErrorKind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => BucketErrorKind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => BucketErrorKind::PermissionDenied,
        E::NotSupported { .. } | E::NotImplemented { .. } => BucketErrorKind::Unsupported,
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => BucketErrorKind::Invalid,
        E::Generic { source, .. } => match io_kind(source.as_ref()) {
            Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                BucketErrorKind::PermissionDenied
            }
            Some(_) => BucketErrorKind::Unavailable,
            None => {
                let text = source.to_string();
                let says = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
                if says(&["status code: 429", "SlowDown", "ServerBusy", "TooManyRequests"]) {
                    BucketErrorKind::Throttled
                } else if says(&["NoSuchBucket", "ContainerNotFound"]) {
                    BucketErrorKind::NotFound
                } else if says(&["AccessDenied", "status code: 401", "status code: 403"]) {
                    // Of one object in a batch of deletions, whose answer as a whole is 200; of listings, whose status
                    // object_store looks at for some stores only.
                    BucketErrorKind::PermissionDenied
                } else {
                    BucketErrorKind::Unavailable
                }
            }
        },
        _ => BucketErrorKind::Unavailable,
    }
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<std::io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for BucketError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
