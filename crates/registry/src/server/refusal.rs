//! What is answered where the registry itself is not asked, in the body that its clients read.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

/// The store is not open, or its key can't be used.
pub(super) fn unavailable(message: &str) -> Response {
    later(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, 5)
}

pub(super) fn too_many(message: &str) -> Response {
    later(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message, 1)
}

/// Not the registry's, and no page of operators.
pub(super) fn no_page() -> Response {
    json_body(StatusCode::NOT_FOUND, &json!({ "pages": ["/healthz", "/readyz", "/metrics"] }))
}

fn later(status: StatusCode, code: &str, message: &str, seconds: u32) -> Response {
    let mut response = json_body(status, &json!({ "errors": [{ "code": code, "message": message }] }));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

pub(super) fn json_body(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
