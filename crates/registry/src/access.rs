//! Who may do what.

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue};

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

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "every request needs one of these")]
pub enum Needs<'a> {
    /// Nothing but to be somebody: `GET /v2/`.
    Login,
    /// An action on a repository; a mount needs two, one after the other.
    Repository {
        /// Its name.
        name: &'a str,
        /// The action.
        action: Action,
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
pub trait Access: Send + Sync {
    /// Whether the sender of `headers` may do what needs `needs`.
    ///
    /// # Errors
    /// [`Refused`] is the answer that the request gets.
    async fn check(&self, headers: &HeaderMap, needs: Needs<'_>) -> Result<(), Refused>;
}

/// Everybody may do everything: for the loopback interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

#[async_trait]
impl Access for Open {
    async fn check(&self, _: &HeaderMap, _: Needs<'_>) -> Result<(), Refused> {
        Ok(())
    }
}
