//! The specification's errors: a code that clients know, a sentence for people, and the engine's error where it was one.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bulla::ErrorKind;
use serde_json::Value;

/// What went wrong, in the specification's words. It knows no others in answers with 4xx; the last two are Docker's, and for
/// 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The repository does not have the blob.
    BlobUnknown,
    /// The upload can't go on like this.
    BlobUploadInvalid,
    /// There is no such upload: it ended, or never was.
    BlobUploadUnknown,
    /// A digest that is none, or not that of the content.
    DigestInvalid,
    /// A manifest names what the repository does not have.
    ManifestBlobUnknown,
    /// A manifest that breaks a rule.
    ManifestInvalid,
    /// The repository does not have the manifest.
    ManifestUnknown,
    /// A repository's name that is none.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// Not the announced length, too large, or bytes that are not there.
    SizeInvalid,
    /// Who are you?
    Unauthorized,
    /// You may not.
    Denied,
    /// Not a thing that this registry does.
    Unsupported,
    /// Fewer requests, please.
    TooManyRequests,
    /// Key or bucket can't be used now; later they can.
    Unavailable,
    /// Anything else: the operator's business.
    Unknown,
}

impl ErrorCode {
    /// As the error's body has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// An error of the registry. `Display` is one sentence; the engine's error, whose sentence it
/// may be, is in [`engine`](RegistryError::engine), and causes are behind [`source`](StdError::source).
#[derive(Debug)]
pub struct RegistryError {
    parts: Box<Parts>,
}

#[derive(Debug)]
struct Parts {
    code: ErrorCode,
    message: String,
    detail: Option<Value>,
    engine: Option<bulla::Error>,
}

/// The registry's results.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

impl RegistryError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { parts: Box::new(Parts { code, message: message.into(), detail: None, engine: None }) }
    }

    pub(crate) fn with_detail(mut self, detail: Value) -> Self {
        self.parts.detail = Some(detail);
        self
    }

    /// Something that other writers keep changing, or that takes too long: later it works.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// What the registry wrote into a meta object can't be read.
    pub(crate) fn damaged(what: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Unknown, format!("{what} is not as this registry writes it; push it again"))
    }

    /// The specification's code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.parts.code
    }

    /// What the error is about, for the body's `detail`.
    #[must_use]
    pub fn detail(&self) -> Option<&Value> {
        self.parts.detail.as_ref()
    }

    /// The engine's error, where it was one.
    #[must_use]
    pub fn engine(&self) -> Option<&bulla::Error> {
        self.parts.engine.as_ref()
    }

    /// The key was taken away.
    pub(crate) fn is_revoked(&self) -> bool {
        self.engine().is_some_and(|error| error.kind() == ErrorKind::Revoked)
    }

    /// The bucket refuses this node's requests of that kind, and will refuse the next.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.engine().is_some_and(|error| error.kind() == ErrorKind::Invalid)
    }

    /// The engine's error, or the registry's own.
    ///
    /// # Errors
    /// This error, where it did not come from the engine.
    pub fn into_engine(mut self) -> Result<bulla::Error, Self> {
        self.parts.engine.take().ok_or(self)
    }

    /// How long to wait before the next attempt, where somebody said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.engine().and_then(bulla::Error::retry_after)
    }
}

impl From<bulla::Error> for RegistryError {
    fn from(error: bulla::Error) -> Self {
        let (code, message) = match error.kind() {
            // What an operator has to repair is in the log; clients learn that it is temporary, and why.
            ErrorKind::Revoked => (
                ErrorCode::Unavailable,
                "the key of this registry is not available: its owner has withdrawn it".to_owned(),
            ),
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Conflict => {
                (ErrorCode::Unavailable, error.to_string())
            }
            ErrorKind::Invalid if error.is_mismatch() => (ErrorCode::DigestInvalid, error.to_string()),
            _ => (ErrorCode::Unknown, error.to_string()),
        };
        let mut new = Self::new(code, message);
        new.parts.engine = Some(error);
        new
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.message)
    }
}

impl StdError for RegistryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.engine().and_then(StdError::source)
    }
}
