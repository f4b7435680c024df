//! How the vault fails, told apart by what the caller does next.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

/// A call to the vault failed. `Display` names the fix and does not repeat [`source`](Error::source); no secret is in it.
#[derive(Debug)]
pub struct VaultError {
    kind: VaultErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VaultErrorKind {
    /// There is no such vault, key or version.
    NotFound,
    /// It exists already, or is not in the state that the call is for (a deleted key's name is taken until it is
    /// purged).
    Conflict,
    /// The vault is protected from this: purge protection.
    Refused,
    /// The passphrase is not this vault's.
    WrongPassphrase,
    /// The call needs the passphrase, and the vault was opened without.
    PassphraseMissing,
    /// An argument is wrong.
    Invalid,
    /// A file is not what the vault wrote.
    Damaged,
    /// The folder can't be read or written.
    Io,
}

impl VaultError {
    pub(crate) fn new(kind: VaultErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(VaultErrorKind::Invalid, message)
    }

    pub(crate) fn damaged(path: &Path, what: &str) -> Self {
        Self::new(VaultErrorKind::Damaged, format!("{} is damaged: {what}", path.display()))
    }

    pub(crate) fn io(what: &str, path: &Path, source: io::Error) -> Self {
        Self::new(VaultErrorKind::Io, format!("can't {what} {}", path.display())).with_source(source)
    }

    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What to do next.
    pub fn kind(&self) -> VaultErrorKind {
        self.kind
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for VaultError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn Error + 'static) = source.as_ref();
            source
        })
    }
}
