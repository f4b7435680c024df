//! How a command ends: one error line that names the fix, and an exit code that scripts can tell apart.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bulla::bucket::{BucketError, BucketErrorKind};
use bulla_kek::{DenyReason, InvalidKeyId, KekError};
use bulla_vault::{VaultError, VaultErrorKind};
use serde_json::json;

/// What a caller does next. The engine's kinds, and what only a command can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal,
    Invalid,
    NotFound,
    Revoked,
    Unavailable,
    Throttled,
    Conflict,
    Corrupt,
    Interrupted,
    Terminated,
    BrokenPipe,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Corrupt => "corrupt",
            Self::Interrupted | Self::Terminated => "interrupted",
            Self::BrokenPipe => "broken_pipe",
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Revoked => 4,
            Self::Unavailable => 5,
            Self::Throttled => 6,
            Self::Conflict => 7,
            Self::Corrupt => 8,
            // 128 + the signal's number, as shells have it.
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::BrokenPipe => 141,
        }
    }
}

impl From<bulla::ErrorKind> for Kind {
    fn from(kind: bulla::ErrorKind) -> Self {
        use bulla::ErrorKind as Engine;
        match kind {
            Engine::NotFound => Self::NotFound,
            Engine::Revoked => Self::Revoked,
            Engine::Unavailable => Self::Unavailable,
            Engine::Throttled => Self::Throttled,
            Engine::Conflict => Self::Conflict,
            Engine::Invalid => Self::Invalid,
            Engine::Corrupt => Self::Corrupt,
            _ => Self::Internal,
        }
    }
}

/// A command failed. The message is one line and says what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// Why the key provider said no; only for `Revoked`.
    pub(crate) denied: Option<DenyReason>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What commands return.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), denied: None, retry_after: None, source: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// A file or folder that can't be used: `what` is `read`, `write` and the like.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                Kind::Invalid
            }
            _ => Kind::Unavailable,
        };
        Self::new(kind, format!("can't {what} {}: {error}", path.display())).with_source(error)
    }

    /// An error that says half of it, and its cause the other half.
    pub(crate) fn caused(kind: Kind, error: impl StdError + Send + Sync + 'static) -> Self {
        let message = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self::new(kind, message).with_source(error)
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do.
    pub(crate) fn with_fix(mut self, fix: impl fmt::Display) -> Self {
        self.message = format!("{}; {fix}", self.message);
        self
    }

    /// Prints the error to stderr, with its causes if `causes`, and gives the exit code.
    pub(crate) fn report(&self, json: bool, causes: bool) -> ExitCode {
        // Whoever closed stderr does not want to know.
        let _ = self.print(&mut io::stderr().lock(), json, causes);
        ExitCode::from(self.kind.code())
    }

    fn print(&self, to: &mut impl Write, json: bool, causes: bool) -> io::Result<()> {
        if self.kind == Kind::BrokenPipe {
            return Ok(());
        }
        if json {
            let mut error = json!({ "kind": self.kind.as_str(), "message": one_line(&self.message) });
            if let Some(wait) = self.retry_after {
                error["retryAfter"] = json!(wait.as_secs_f64());
            }
            return writeln!(to, "{}", json!({ "error": error }));
        }
        writeln!(to, "error: {}", self.line())?;
        if causes {
            let mut said = self.line();
            let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
            while let Some(error) = cause {
                let line = one_line(&error.to_string());
                // Layers that only pass an error on add nothing.
                if !said.contains(&line) {
                    writeln!(to, "  caused by: {line}")?;
                    said = line;
                }
                cause = error.source();
            }
        }
        Ok(())
    }

    /// The message, in one line, whatever somebody put into it.
    fn line(&self) -> String {
        let named = if self.kind == Kind::Revoked { "Revoked: " } else { "" };
        let wait = match self.retry_after {
            Some(wait) => format!("; retry after {}", humantime::format_duration(wait)),
            None => String::new(),
        };
        format!("{named}{}{wait}", one_line(&self.message))
    }
}

pub(crate) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl From<bulla::Error> for Failure {
    fn from(error: bulla::Error) -> Self {
        let mut failure = Self::new(error.kind().into(), error.to_string());
        failure.denied = error.denied();
        failure.retry_after = error.retry_after();
        failure.with_source(error)
    }
}

impl From<BucketError> for Failure {
    fn from(error: BucketError) -> Self {
        let kind = match error.kind() {
            BucketErrorKind::NotFound => Kind::NotFound,
            BucketErrorKind::Unavailable => Kind::Unavailable,
            BucketErrorKind::Throttled => Kind::Throttled,
            _ => Kind::Invalid,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        let kind = match error.kind() {
            VaultErrorKind::NotFound => Kind::NotFound,
            VaultErrorKind::Conflict | VaultErrorKind::Refused => Kind::Conflict,
            VaultErrorKind::Damaged => Kind::Corrupt,
            VaultErrorKind::Io => Kind::Unavailable,
            _ => Kind::Invalid,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<KekError> for Failure {
    fn from(error: KekError) -> Self {
        bulla::Error::from(error).into()
    }
}

impl From<InvalidKeyId> for Failure {
    fn from(error: InvalidKeyId) -> Self {
        Self::invalid(error.to_string())
    }
}

/// For what is printed: a reader that went away is no error worth a line.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::BrokenPipe => Kind::BrokenPipe,
            _ => Kind::Unavailable,
        };
        Self::new(kind, format!("can't write the output: {error}")).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(failure: &Failure, json: bool, causes: bool) -> String {
        let mut text = Vec::new();
        failure.print(&mut text, json, causes).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn an_error_is_one_line_and_causes_are_asked_for() {
        let failure = Failure::invalid("two\nlines").with_fix("do this").with_source("deep");
        assert_eq!(printed(&failure, false, false), "error: two lines; do this\n");
        assert_eq!(printed(&failure, false, true), "error: two lines; do this\n  caused by: deep\n");
    }

    #[test]
    fn json_errors_are_one_object() {
        let mut failure = Failure::new(Kind::Throttled, "slow down");
        failure.retry_after = Some(Duration::from_millis(1500));
        let value: serde_json::Value = serde_json::from_str(&printed(&failure, true, true)).unwrap();
        assert_eq!(value["error"]["kind"], "throttled");
        assert_eq!(value["error"]["retryAfter"], 1.5);
    }
}
