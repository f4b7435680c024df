//! `/v2/NAME/manifests/REFERENCE`

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use bulla::Digest;
use http_body_util::LengthLimitError;

use super::answer::{Failure, created, empty, value};
use super::uploads::body;
use super::{Call, conditional};
use crate::error::{ErrorCode, RegistryError};
use crate::manifests::{PutManifest, too_long};
use crate::name::{Reference, Tag};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Tags of one request.
const MAX_TAGS: usize = 64;

pub(super) async fn serve(
    call: Call,
    body: Body,
    method: &Method,
    reference: &str,
) -> Result<Response, Failure> {
    let parsed = reference.parse::<Reference>();
    if *method == Method::PUT {
        let reference = parsed?;
        check_write(&call, &reference).await?;
        return put(call, body, reference).await;
    }
    let reference = match parsed {
        Ok(reference) => reference,
        Err(error) if error.code() == ErrorCode::DigestInvalid => return Err(error.into()),
        // What can't be a tag is none.
        Err(_) => return Err(unknown(&call, reference).await),
    };
    match *method {
        Method::HEAD => head(&call, &reference).await,
        Method::DELETE => {
            check_write(&call, &reference).await?;
            delete(&call, &reference).await
        }
        _ => get(&call, &reference).await,
    }
}

/// Looks only for who asks with a condition.
async fn check_write(call: &Call, reference: &Reference) -> Result<(), Failure> {
    if conditional::conditions_write(&call.headers) {
        let current = call.repository.stat_manifest(reference).await?;
        conditional::check_write(&call.headers, current.as_ref().map(|stat| &stat.digest))?;
    }
    Ok(())
}

async fn head(call: &Call, reference: &Reference) -> Result<Response, Failure> {
    let Some(stat) = call.repository.stat_manifest(reference).await? else {
        return Err(unknown(call, &reference.to_string()).await);
    };
    if let Some(response) = conditional::check(&call.headers, &stat.digest)? {
        return Ok(response);
    }
    Ok(described(Body::empty(), &stat.digest, &stat.media_type, stat.size))
}

/// A manifest is served as what it was pushed as, whatever `Accept` says: nobody here could convert it, and who asked by
/// digest wants no other.
async fn get(call: &Call, reference: &Reference) -> Result<Response, Failure> {
    let Some(manifest) = call.repository.manifest(reference).await? else {
        return Err(unknown(call, &reference.to_string()).await);
    };
    if let Some(response) = conditional::check(&call.headers, &manifest.digest)? {
        return Ok(response);
    }
    let size = manifest.bytes.len() as u64;
    Ok(described(Body::from(manifest.bytes), &manifest.digest, &manifest.media_type, size))
}

async fn put(call: Call, body: Body, reference: Reference) -> Result<Response, Failure> {
    let Call { app, repository, query, headers } = call;
    let added: Vec<Tag> = query.all("tag").map(str::parse).collect::<Result<_, _>>()?;
    if added.len() > MAX_TAGS {
        let error = RegistryError::new(
            ErrorCode::ManifestInvalid,
            format!("at most {MAX_TAGS} tags can be set at once"),
        );
        return Err(Failure::new(StatusCode::URI_TOO_LONG, error));
    }
    let longest = app.registry.options().max_manifest;
    let announced = content_length(&headers);
    if announced.is_some_and(|len| len > longest as u64) {
        return Err(too_large(longest));
    }
    let media_type = match headers.get(header::CONTENT_TYPE) {
        Some(text) => Some(text.to_str().map_err(|_| bad_type())?.to_owned()),
        None => None,
    };
    let bytes = axum::body::to_bytes(body, longest).await.map_err(|error| {
        if std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>()) {
            return too_large(longest);
        }
        tracing::debug!(%error, "a manifest can't be read");
        body::broken().into()
    })?;
    let (digest, mut tags) = match reference {
        Reference::Digest(digest) => (Some(digest), Vec::new()),
        Reference::Tag(tag) => (None, vec![tag]),
    };
    tags.extend(added.iter().cloned());
    let put = repository.put_manifest(PutManifest { digest, tags, media_type, bytes }).await?;
    let location = format!("/v2/{}/manifests/{}", repository.name(), put.digest);
    let mut response = created(&location, &put.digest);
    let headers = response.headers_mut();
    if let Some(subject) = &put.subject {
        headers.insert(SUBJECT, value(&subject.to_string()));
    }
    for tag in &added {
        headers.append(TAG, value(tag.as_str()));
    }
    Ok(response)
}

async fn delete(call: &Call, reference: &Reference) -> Result<Response, Failure> {
    let removed = match reference {
        Reference::Tag(tag) => call.repository.delete_tag(tag).await?,
        Reference::Digest(digest) => call.repository.delete_manifest(digest).await?,
    };
    if removed { Ok(empty(StatusCode::ACCEPTED)) } else { Err(unknown(call, &reference.to_string()).await) }
}

fn described(body: Body, digest: &Digest, media_type: &str, size: u64) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    conditional::describe(headers, digest);
    headers.insert(header::CONTENT_TYPE, value(media_type));
    headers.insert(header::CONTENT_LENGTH, size.into());
    response
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(longest: usize) -> Failure {
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, too_long(longest))
}

fn bad_type() -> RegistryError {
    RegistryError::new(ErrorCode::ManifestInvalid, "the Content-Type header is no media type")
}

async fn unknown(call: &Call, reference: &str) -> Failure {
    call.unknown(ErrorCode::ManifestUnknown, format!("this repository has no manifest {reference}")).await
}
