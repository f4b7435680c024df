//! `/v2/NAME/tags/list` and `/v2/_catalog`: pages by `n` and `last`, ascending by the names' bytes.

use axum::response::Response;
use serde_json::json;

use super::answer::{Failure, json, next_page};
use super::query::{Query, encode};
use super::{App, Call};
use crate::error::ErrorCode;

/// The longest page, and the one of who does not say.
const LONGEST: usize = 10_000;

pub(super) async fn tags(call: Call) -> Result<Response, Failure> {
    if !call.repository.exists().await? {
        return Err(call.unknown(ErrorCode::NameUnknown, String::new()).await);
    }
    let name = call.repository.name();
    let len = page_len(&call.query)?;
    if len == 0 {
        return Ok(json(&json!({ "name": name.as_str(), "tags": [] })));
    }
    let page = call.repository.tags(call.query.get("last"), len).await?;
    let tags: Vec<&str> = page.items.iter().map(crate::Tag::as_str).collect();
    let mut response = json(&json!({ "name": name.as_str(), "tags": tags }));
    if let (true, Some(last)) = (page.more, tags.last()) {
        link(&mut response, &format!("/v2/{name}/tags/list"), len, last);
    }
    Ok(response)
}

pub(super) async fn catalog(app: &App, query: &Query) -> Result<Response, Failure> {
    let len = page_len(query)?;
    if len == 0 {
        return Ok(json(&json!({ "repositories": [] })));
    }
    let page = app.registry.repositories(query.get("last"), len).await?;
    let names: Vec<&str> = page.items.iter().map(crate::RepositoryName::as_str).collect();
    let mut response = json(&json!({ "repositories": names }));
    if let (true, Some(last)) = (page.more, names.last()) {
        link(&mut response, "/v2/_catalog", len, last);
    }
    Ok(response)
}

fn page_len(query: &Query) -> Result<usize, Failure> {
    Ok(query.page_len()?.unwrap_or(LONGEST).min(LONGEST))
}

fn link(response: &mut Response, path: &str, len: usize, last: &str) {
    let parameters = encode(&[("n", &len.to_string()), ("last", last)]);
    next_page(response.headers_mut(), &format!("{path}?{parameters}"));
}
