//! How the server itself fails: before it serves, or because it can't go on.

use std::error::Error;
use std::fmt;

use bulla_listener::TlsError;
use bulla_vault::VaultError;

/// The server can't start or go on. `Display` names the fix and does not repeat [`source`](Error::source).
#[derive(Debug)]
pub struct ServerError {
    kind: ServerErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerErrorKind {
    /// An option is wrong: another one.
    Invalid,
    /// The vault can't be opened; the source says why.
    Vault,
    /// An address or file can't be used: free it, or choose another.
    Io,
}

impl ServerError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ServerErrorKind::Invalid, message: message.into(), source: None }
    }

    pub(crate) fn io(message: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self { kind: ServerErrorKind::Io, message: message.into(), source: Some(Box::new(source)) }
    }

    #[cfg(any(feature = "aws-lc", feature = "ring"))]
    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What to do next.
    pub fn kind(&self) -> ServerErrorKind {
        self.kind
    }
}

impl From<VaultError> for ServerError {
    fn from(error: VaultError) -> Self {
        Self {
            kind: ServerErrorKind::Vault,
            message: "the vault can't be served".into(),
            source: Some(Box::new(error)),
        }
    }
}

impl From<TlsError> for ServerError {
    fn from(error: TlsError) -> Self {
        Self { kind: ServerErrorKind::Invalid, message: error.to_string(), source: error.into_source() }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn Error + 'static) = source.as_ref();
            source
        })
    }
}
