//! Answers in Key Vault's shape.
//!
//! ```json
//! {"error":{"code":"Forbidden","message":"…","innererror":{"code":"KeyDisabled"}}}
//! ```

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bulla_kek::{DenyReason, KekError, KekErrorKind};
use bulla_vault::{VaultError, VaultErrorKind};
use serde::Serialize;
use serde_json::json;

/// What goes wrong with one request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) inner: Option<String>,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), inner: None, message: message.into(), retry_after: None }
    }

    pub(crate) fn forbidden(inner: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).inner(inner)
    }

    pub(crate) fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message)
    }

    /// Said alike of a key that never was and of one that is deleted, as Key Vault does.
    pub(crate) fn not_found(name: &str) -> Self {
        let message = format!(
            "A key with (name/id) {name} was not found in this key vault. If you recently deleted this key you may be \
             able to recover it using the correct recovery command."
        );
        Self::new(StatusCode::NOT_FOUND, "KeyNotFound", message)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "The vault could not do this.")
    }

    pub(crate) fn inner(mut self, code: &str) -> Self {
        self.inner = Some(code.into());
        self
    }

    pub(crate) fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// For the audit log: what tells refusals apart.
    pub(crate) fn outcome(&self) -> &str {
        self.inner.as_deref().unwrap_or(&self.code)
    }

    /// A use of a key that did not happen.
    pub(crate) fn of_use(operation: &str, name: &str, error: &KekError) -> Self {
        let reason = match error.kind() {
            KekErrorKind::Denied(reason) => reason,
            KekErrorKind::Invalid => return Self::bad_parameter(error.to_string()),
            _ => {
                tracing::warn!(%error, source = error.source().map(tracing::field::display), "the vault can't be used");
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.to_string());
            }
        };
        let refused = |what: &str| format!("Operation {operation} is not allowed on {what} key.");
        match reason {
            DenyReason::Disabled => Self::forbidden("KeyDisabled", refused("a disabled")),
            DenyReason::Expired => Self::forbidden("KeyExpired", refused("an expired")),
            DenyReason::NotYetValid => Self::forbidden("KeyNotYetValid", refused("a not yet valid")),
            DenyReason::OperationNotPermitted => Self::forbidden(
                "KeyOperationForbidden",
                format!("Operation {operation} is not permitted on this key."),
            ),
            DenyReason::NotFound | DenyReason::Deleted => Self::not_found(name),
            // Access was looked at before; it was taken away since.
            _ => Self::forbidden("ForbiddenByPolicy", error.to_string()),
        }
    }

    /// A change of a key that did not happen. Conflicts are told by the caller, who knows what they mean.
    pub(crate) fn of_change(name: &str, error: &VaultError) -> Self {
        match error.kind() {
            VaultErrorKind::NotFound => Self::not_found(name),
            VaultErrorKind::Conflict => {
                let message = format!(
                    "Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this \
                     state, the key can only be recovered or purged."
                );
                Self::new(StatusCode::CONFLICT, "Conflict", message).inner("ObjectIsDeletedButRecoverable")
            }
            VaultErrorKind::Refused => Self::new(
                StatusCode::FORBIDDEN,
                "Forbidden",
                "Operation \"purge\" is not enabled for this vault.",
            )
            .inner("PurgeProtectionEnabled"),
            VaultErrorKind::Invalid => Self::bad_parameter(error.to_string()),
            _ => {
                tracing::warn!(%error, source = error.source().map(tracing::field::display), "the vault failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(inner) = self.inner {
            error["innererror"] = json!({ "code": inner });
        }
        let mut response = json(self.status, &json!({ "error": error }));
        if let Some(after) = self.retry_after {
            // Whole seconds, and never "at once".
            let seconds = after.as_millis().div_ceil(1000).max(1);
            let value = HeaderValue::from_str(&seconds.to_string()).expect("digits are a header's value");
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}

/// A JSON body; nothing in between keeps it.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("answers are text, numbers and lists");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
