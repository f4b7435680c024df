//! Conditional requests (RFC 9110 §13). An entity tag is the digest, so it is strong and the same on all nodes.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use bulla::Digest;

use super::answer::{CONTENT_DIGEST, Failure, empty, value};
use crate::error::{ErrorCode, RegistryError};

/// The answer instead of the content, where the client has it already or wants another one.
///
/// # Errors
/// 412 where `If-Match` does not.
pub(super) fn check(headers: &HeaderMap, digest: &Digest) -> Result<Option<Response>, Failure> {
    let tag = tag(digest);
    if headers.contains_key(header::IF_MATCH) && !lists(headers, &header::IF_MATCH, &tag, false) {
        let error = RegistryError::new(ErrorCode::Denied, format!("this is {digest}, not what If-Match has"));
        return Err(Failure::new(StatusCode::PRECONDITION_FAILED, error));
    }
    if lists(headers, &header::IF_NONE_MATCH, &tag, true) {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        describe(response.headers_mut(), digest);
        return Ok(Some(response));
    }
    Ok(None)
}

/// Before what a request names is written or removed: `current` is what it names now, and must still name when it is written.
///
/// # Errors
/// 412 where it is not what the client wants to replace.
pub(super) fn check_write(headers: &HeaderMap, current: Option<&Digest>) -> Result<(), Failure> {
    let names = |name, weak| current.is_some_and(|digest| lists(headers, name, &tag(digest), weak));
    let other = headers.contains_key(header::IF_MATCH) && !names(&header::IF_MATCH, false);
    if other || names(&header::IF_NONE_MATCH, true) {
        let now = current.map_or_else(|| "nothing".to_owned(), Digest::to_string);
        let message =
            format!("{now} is there, which is not what the request's condition has (quoted, as in ETag)");
        let error = RegistryError::new(ErrorCode::Denied, message);
        return Err(Failure::new(StatusCode::PRECONDITION_FAILED, error));
    }
    Ok(())
}

/// Whether a write has conditions.
pub(super) fn conditions_write(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH)
}

/// Whether a range may be served: `If-Range` is absent or has this very entity. Dates never match, for there are none.
pub(super) fn range_applies(headers: &HeaderMap, digest: &Digest) -> bool {
    match headers.get(header::IF_RANGE) {
        Some(wanted) => wanted.as_bytes() == tag(digest).as_bytes(),
        None => true,
    }
}

/// What a client needs to ask conditionally. Content is not served from caches without asking here first: its key may have
/// been withdrawn.
pub(super) fn describe(headers: &mut HeaderMap, digest: &Digest) {
    headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
    headers.insert(header::ETAG, value(&tag(digest)));
    headers.insert(header::CACHE_CONTROL, value("private, no-cache"));
}

fn tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Digests have no commas, so that a list can be split at them.
fn lists(headers: &HeaderMap, name: &HeaderName, tag: &str, weak: bool) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|item| {
        let item = if weak { item.strip_prefix("W/").unwrap_or(item) } else { item };
        item == "*" || item == tag
    })
}
