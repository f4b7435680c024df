//! `/v2/NAME/blobs/DIGEST`

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bulla::Digest;
use futures::{StreamExt, TryStreamExt, stream};

use super::answer::{Failure, empty, value};
use super::range::{Selected, select};
use super::{Call, conditional, parts};
use crate::error::{ErrorCode, RegistryError};
use crate::name::parse_digest;

pub(super) async fn serve(call: Call, method: &Method, digest: &str) -> Result<Response, Failure> {
    let digest = parse_digest(digest)?;
    match *method {
        Method::HEAD => head(&call, &digest).await,
        Method::DELETE => delete(&call, &digest).await,
        _ => get(&call, &digest).await,
    }
}

async fn head(call: &Call, digest: &Digest) -> Result<Response, Failure> {
    let Some(stat) = call.repository.stat_blob(digest).await? else {
        return Err(unknown(call, digest).await);
    };
    if let Some(response) = conditional::check(&call.headers, digest)? {
        return Ok(response);
    }
    Ok(described(Body::empty(), digest, stat.size))
}

async fn get(call: &Call, digest: &Digest) -> Result<Response, Failure> {
    let Some(blob) = call.repository.open_blob(digest).await? else {
        return Err(unknown(call, digest).await);
    };
    let headers = &call.headers;
    if let Some(response) = conditional::check(headers, digest)? {
        return Ok(response);
    }
    let size = blob.size();
    let selected = match headers.get(header::RANGE).and_then(|text| text.to_str().ok()) {
        Some(text) if conditional::range_applies(headers, digest) => select(text, size),
        _ => Selected::Whole,
    };
    let (range, status) = match selected {
        Selected::Whole => (0..size, StatusCode::OK),
        Selected::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
        Selected::Parts(of) => {
            let mut response = parts::serve(blob, of).await?;
            describe(&mut response, digest);
            return Ok(response);
        }
        Selected::Nothing => {
            let error = RegistryError::new(ErrorCode::SizeInvalid, format!("the blob has {size} bytes"));
            let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, error);
            return Err(failure.with_header(header::CONTENT_RANGE, value(&format!("bytes */{size}"))));
        }
    };
    let len = range.end - range.start;
    let mut bytes = blob.range(range.clone())?;
    // What fails at once is an answer of its own, not one that breaks off.
    let first = bytes.try_next().await?;
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(bytes));
    let mut response = described(body, digest, len);
    if status == StatusCode::PARTIAL_CONTENT {
        *response.status_mut() = status;
        let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, value(&text));
    }
    Ok(response)
}

async fn delete(call: &Call, digest: &Digest) -> Result<Response, Failure> {
    if call.repository.delete_blob(digest).await? {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    Err(unknown(call, digest).await)
}

fn described(body: Body, digest: &Digest, len: u64) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, len.into());
    describe(&mut response, digest);
    response
}

/// What is said of a blob whichever part of it is asked for.
fn describe(response: &mut Response, digest: &Digest) {
    let headers = response.headers_mut();
    conditional::describe(headers, digest);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

async fn unknown(call: &Call, digest: &Digest) -> Failure {
    call.unknown(ErrorCode::BlobUnknown, format!("this repository has no blob {digest}")).await
}

impl Call {
    /// 404: what is missing is this, or the repository itself.
    pub(super) async fn unknown(&self, code: ErrorCode, message: String) -> Failure {
        match self.repository.exists().await {
            Ok(true) => RegistryError::new(code, message).into(),
            Ok(false) => RegistryError::new(
                ErrorCode::NameUnknown,
                "there is no such repository; the first push makes it",
            )
            .into(),
            Err(error) => error.into(),
        }
    }
}
