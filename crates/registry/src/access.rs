//! Who may do what: everybody ([`Open`]), users with passwords ([`Htpasswd`]), bearers of tokens (`Bearer`, with the feature
//! `aws-lc`).

mod authorization;
#[cfg(feature = "aws-lc")]
mod bearer;
mod htpasswd;
#[cfg(feature = "aws-lc")]
mod keys;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue};

#[cfg(feature = "aws-lc")]
pub use self::bearer::{Bearer, BearerOptions};
pub use self::htpasswd::Htpasswd;

/// How often files of users and keys are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What a request does to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the actions of Docker's token specification")]
pub enum Action {
    /// Reads blobs, manifests, tags, referrers.
    Pull,
    /// Writes them.
    Push,
    /// Removes them.
    Delete,
}

impl Action {
    /// As tokens have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "every request needs one of these")]
pub enum Needs<'a> {
    /// Nothing but to be somebody: `GET /v2/`.
    Login,
    /// An action on a repository.
    Repository {
        /// Its name.
        name: &'a str,
        /// The action.
        action: Action,
    },
    /// To push to one repository. Pulling from the other is asked for after it, and then nobody is refused: so who brings
    /// credentials for the one is told here that both are wanted.
    Mount {
        /// The name of where it goes.
        name: &'a str,
        /// The name of where it is.
        from: &'a str,
    },
    /// The list of all repositories.
    Catalog,
}

/// Why a request may not be done.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_enums, reason = "RFC 9110 knows these")]
pub enum Refused {
    /// 401: without credentials that hold, and how to bring them.
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// 403: somebody known who may not.
    Denied,
    /// 429: too many attempts; come back later.
    TooMany {
        /// Seconds.
        retry_after: u64,
    },
}

/// Decides about every request before it is served.
#[async_trait]
pub trait Access: Send + Sync + fmt::Debug {
    /// Whether the sender of `headers` may do what needs `needs`.
    ///
    /// # Errors
    /// [`Refused`] is the answer that the request gets.
    async fn check(&self, headers: &HeaderMap, needs: Needs<'_>) -> Result<(), Refused>;

    /// Whether everybody may do everything: then only this machine may come, unless an operator says otherwise.
    fn is_open(&self) -> bool {
        false
    }
}

/// Everybody may do everything: for the loopback interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

#[async_trait]
impl Access for Open {
    async fn check(&self, _: &HeaderMap, _: Needs<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// Users or keys can't be used. `Display` names the fix and does not repeat the source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct AccessError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl AccessError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}
