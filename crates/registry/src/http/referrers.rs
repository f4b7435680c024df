//! `/v2/NAME/referrers/DIGEST`: an index of what has this manifest as its subject, there or not.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use serde_json::json;

use super::Call;
use super::answer::{Failure, json, next_page};
use super::query::encode;
use crate::facts::Descriptor;
use crate::manifest::OCI_INDEX;
use crate::name::parse_digest;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The longest page, and the one of who does not say.
const LONGEST: usize = 1000;

/// Clients read no more than 4 MiB of a manifest, and this is one.
const MAX_BYTES: usize = 3 << 20;

pub(super) async fn list(call: Call, digest: &str) -> Result<Response, Failure> {
    let subject = parse_digest(digest)?;
    let artifact_type = call.query.get("artifactType").filter(|text| !text.is_empty());
    let len = call.query.page_len()?.unwrap_or(LONGEST).clamp(1, LONGEST);
    let page = call.repository.referrers(&subject, artifact_type, call.query.get("last"), len).await?;
    let (mut items, mut more) = (page.items, page.more);
    let fitting = fitting(&items);
    more |= fitting < items.len();
    items.truncate(fitting);
    let mut response = json(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": items }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if artifact_type.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let (true, Some(last)) = (more, items.last()) {
        let (len, last) = (len.to_string(), last.digest.to_string());
        let mut parameters = vec![("n", len.as_str()), ("last", last.as_str())];
        parameters.extend(artifact_type.map(|text| ("artifactType", text)));
        let name = call.repository.name();
        next_page(headers, &format!("/v2/{name}/referrers/{subject}?{}", encode(&parameters)));
    }
    Ok(response)
}

/// How many of the first are of a length that clients take; one at least.
fn fitting(items: &[Descriptor]) -> usize {
    let mut bytes = 0;
    let fits = |item: &&Descriptor| {
        let annotations = item.annotations.iter().map(|(key, value)| key.len() + value.len() + 8);
        // Quotes and control characters take up to six bytes in JSON.
        bytes += 6 * annotations.sum::<usize>() / 4 + 1024;
        bytes <= MAX_BYTES
    };
    items.iter().take_while(fits).count().max(1).min(items.len())
}
