//! Answers, and the specification's error body.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bulla::Digest;
use serde::Serialize;
use serde_json::json;

use crate::access::Refused;
use crate::error::{ErrorCode, RegistryError};

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A key that was taken away comes back when its owner wants; a node asks for it this often.
const RETRY_REVOKED: u64 = 15;
/// What can't be reached now.
const RETRY: u64 = 2;

/// An answer that says what went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: RegistryError,
    headers: HeaderMap,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: RegistryError) -> Self {
        Self { status, error, headers: HeaderMap::new() }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn into_response(self) -> Response {
        let Self { status, error, headers } = self;
        let engine = error.engine().map(tracing::field::debug);
        let code = error.code().as_str();
        // Why a key or bucket can't be used is told once, by the engine, and not for every request that waits for it.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code, %error, engine, "a request failed");
        } else {
            tracing::debug!(status = status.as_u16(), code, %error, engine, "a request was refused");
        }
        let mut entry = json!({ "code": error.code().as_str(), "message": error.to_string() });
        if let Some(detail) = error.detail() {
            entry["detail"] = detail.clone();
        }
        let mut response = json(&json!({ "errors": [entry] }));
        *response.status_mut() = status;
        response.headers_mut().extend(headers);
        response
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let status = match error.code() {
            ErrorCode::BlobUnknown
            | ErrorCode::BlobUploadUnknown
            | ErrorCode::ManifestUnknown
            | ErrorCode::NameUnknown => StatusCode::NOT_FOUND,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Denied => StatusCode::FORBIDDEN,
            ErrorCode::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let revoked = error.is_revoked();
        let wait = error.retry_after().map(|wait| wait.as_secs().max(1));
        let wait = wait.unwrap_or(if revoked { RETRY_REVOKED } else { RETRY });
        let failure = Self::new(status, error);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return failure.with_header(header::RETRY_AFTER, wait.into());
        }
        failure
    }
}

impl From<bulla::Error> for Failure {
    fn from(error: bulla::Error) -> Self {
        RegistryError::from(error).into()
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unauthorized { challenge } => {
                let message = "this needs credentials that hold: log in to this registry (docker login, skopeo login), or again";
                Self::from(RegistryError::new(ErrorCode::Unauthorized, message))
                    .with_header(header::WWW_AUTHENTICATE, challenge)
            }
            Refused::Denied => {
                let message = "these credentials do not allow this: log in as somebody who may, or ask who runs this registry";
                RegistryError::new(ErrorCode::Denied, message).into()
            }
            Refused::TooMany { retry_after } => Self::from(RegistryError::new(
                ErrorCode::TooManyRequests,
                "too many attempts; try again later",
            ))
            .with_header(header::RETRY_AFTER, retry_after.into()),
        }
    }
}

/// 200 with JSON.
pub(super) fn json(body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers have string keys only");
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
    }
    response
}

/// A header's value made of what is ASCII in any case: names, digests, numbers.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("invalid"))
}

/// `Location` and `Docker-Content-Digest` of something that was made.
pub(super) fn created(location: &str, digest: &Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(location));
    headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
    response
}

/// `Link` to the next page.
pub(super) fn next_page(headers: &mut HeaderMap, target: &str) {
    headers.insert(header::LINK, value(&format!("<{target}>; rel=\"next\"")));
}
