//! One opaque error for callers; what to do next is in its [`ErrorKind`].

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bulla_kek::{DenyReason, KekError, KekErrorKind};

use crate::bucket::{BucketError, BucketErrorKind};

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such blob or store: check the name.
    NotFound,
    /// The key's owner has taken the key away: do not retry; restore the key (access policy, enabled, not deleted).
    Revoked,
    /// Key vault or bucket can't be reached: retry with backoff.
    Unavailable,
    /// Key vault or bucket asks for fewer requests: retry after [`Error::retry_after`].
    Throttled,
    /// Somebody else was first, or it took too long: read the new state and decide, or simply do it again.
    Conflict,
    /// The call can't succeed as it is: fix the call or the configuration.
    Invalid,
    /// Something stored fails to authenticate or is missing: quarantine it, restore it from a copy or put it again.
    Corrupt,
    /// A bug in Bulla: report it.
    Internal,
}

impl ErrorKind {
    /// The kind in lower case, as `--json` output and metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }
}

/// An error of the engine. `Display` is one sentence, with the fix where there is one; causes are behind
/// [`source`](StdError::source) and never repeated. No secret is ever in it.
pub struct Error {
    parts: Box<Parts>,
}

struct Parts {
    kind: ErrorKind,
    message: String,
    denied: Option<DenyReason>,
    mismatch: bool,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The engine's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let parts = Parts { kind, message, denied: None, mismatch: false, retry_after: None, source: None };
        Self { parts: Box::new(parts) }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.parts.source = Some(source.into());
        self
    }

    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.parts.retry_after = wait;
        self
    }

    pub(crate) fn revoked(reason: DenyReason, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Revoked, message);
        error.parts.denied = Some(reason);
        error
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The bytes that came are not those that were claimed.
    pub(crate) fn mismatch(message: impl Into<String>) -> Self {
        let mut error = Self::invalid(message);
        error.parts.mismatch = true;
        error
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.parts.kind
    }

    /// Why the key provider denied the key; set for [`ErrorKind::Revoked`].
    #[must_use]
    pub fn denied(&self) -> Option<DenyReason> {
        self.parts.denied
    }

    /// Whether the bytes that came have another digest or length than was claimed; only with [`ErrorKind::Invalid`].
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.parts.mismatch
    }

    /// How long to wait before the next attempt, where the other side said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.parts.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.parts.kind)
            .field("message", &self.parts.message)
            .field("retry_after", &self.parts.retry_after)
            .field("source", &self.parts.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.parts.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<KekError> for Error {
    fn from(error: KekError) -> Self {
        let retry_after = error.retry_after();
        let message = error.to_string();
        match error.kind() {
            KekErrorKind::Denied(reason) => Self::revoked(reason, message).with_source(error),
            KekErrorKind::Throttled => {
                Self::new(ErrorKind::Throttled, message).with_retry_after(retry_after).with_source(error)
            }
            KekErrorKind::Invalid => Self::new(ErrorKind::Invalid, message).with_source(error),
            _ => Self::new(ErrorKind::Unavailable, message).with_retry_after(retry_after).with_source(error),
        }
    }
}

impl From<BucketError> for Error {
    fn from(error: BucketError) -> Self {
        let (kind, message) = match error.kind() {
            BucketErrorKind::Unavailable => (ErrorKind::Unavailable, "the object store can't be reached"),
            BucketErrorKind::Throttled => (ErrorKind::Throttled, "the object store asks for fewer requests"),
            BucketErrorKind::PermissionDenied => {
                (ErrorKind::Invalid, "the object store refuses these credentials; grant read, write and list")
            }
            BucketErrorKind::TooLarge => (ErrorKind::Corrupt, "an object is larger than its kind may be"),
            BucketErrorKind::NotFound => (ErrorKind::NotFound, "not found in the object store"),
            _ => (ErrorKind::Invalid, "the object store refuses the request"),
        };
        Self::new(kind, message).with_source(error)
    }
}
