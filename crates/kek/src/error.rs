//! How a provider fails, told apart by what the caller does next.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An operation on a key-encryption key failed.
///
/// [`kind`](Self::kind) says what to do next; `Display` says what happened, without repeating
/// [`source`](Error::source). No secret is ever in it.
#[derive(Debug, Clone)]
pub struct KekError {
    kind: KekErrorKind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KekErrorKind {
    /// The provider answered, and the answer is no: wipe what the key opened and report; do not retry at once.
    /// The key's owner undoes it.
    Denied(DenyReason),
    /// No answer, or no useful one (network, timeout, 5xx, an unreadable vault): go on until the lease ends, retry
    /// with backoff.
    Unavailable,
    /// Too many requests: as `Unavailable`, after [`KekError::retry_after`].
    Throttled,
    /// The call or its data is wrong (a damaged wrap, another key's wrap, an unsupported algorithm): retrying does
    /// not help, and it says nothing about the key.
    Invalid,
}

/// Why a provider refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenyReason {
    /// The identity may not do this with the key.
    Forbidden,
    /// The key, or this version of it, is disabled.
    Disabled,
    /// The key is deleted, and can perhaps be recovered.
    Deleted,
    /// There is no such key, or no such version.
    NotFound,
    /// The key is past its expiry. It still unwraps; it wraps nothing new.
    Expired,
    /// The key's validity has not begun. It still unwraps; it wraps nothing new.
    NotYetValid,
    /// The key's own list of operations (`key_ops`) does not have this one.
    OperationNotPermitted,
    /// The identity does not exist or could not prove itself (401).
    IdentityUnknown,
    /// The provider does not accept requests from this network.
    Firewall,
}

impl KekError {
    /// The provider refused, and said why.
    pub fn denied(reason: DenyReason) -> Self {
        Self::new(KekErrorKind::Denied(reason), reason.to_string())
    }

    /// No answer, or no useful one.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(KekErrorKind::Unavailable, message.into())
    }

    /// Too many requests; `retry_after` if the provider said when to come back.
    pub fn throttled(retry_after: Option<Duration>) -> Self {
        let mut error = Self::new(KekErrorKind::Throttled, "the key provider has too many requests".into());
        error.retry_after = retry_after;
        error
    }

    /// The call or its data is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(KekErrorKind::Invalid, message.into())
    }

    fn new(kind: KekErrorKind, message: String) -> Self {
        Self { kind, message, retry_after: None, source: None }
    }

    /// Says it in other words: which key, which version.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What to do next.
    pub fn kind(&self) -> KekErrorKind {
        self.kind
    }

    /// The reason, if the provider refused.
    pub fn deny_reason(&self) -> Option<DenyReason> {
        match self.kind {
            KekErrorKind::Denied(reason) => Some(reason),
            _ => None,
        }
    }

    /// When the provider asked to be tried again; `None` if it did not say.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for KekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for KekError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn Error + 'static) = source.as_ref();
            source
        })
    }
}

impl DenyReason {
    /// A stable word for scripts and JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::Forbidden => "Forbidden",
            Self::Disabled => "Disabled",
            Self::Deleted => "Deleted",
            Self::NotFound => "NotFound",
            Self::Expired => "Expired",
            Self::NotYetValid => "NotYetValid",
            Self::OperationNotPermitted => "OperationNotPermitted",
            Self::IdentityUnknown => "IdentityUnknown",
            Self::Firewall => "Firewall",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "the identity has no permission to use the key",
            Self::Disabled => "the key is disabled",
            Self::Deleted => "the key is deleted",
            Self::NotFound => "the key does not exist",
            Self::Expired => "the key has expired",
            Self::NotYetValid => "the key is not valid yet",
            Self::OperationNotPermitted => "the key does not permit this operation",
            Self::IdentityUnknown => "the identity is unknown to the key provider",
            Self::Firewall => "the key provider's firewall refused the request",
        })
    }
}
