//! `multipart/byteranges` (RFC 9110 §14.6): several parts of a blob in one answer.

use std::ops::Range;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bulla::{Blob, Digest};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::answer::{Failure, value};

/// RFC 2046 §5.1.1 allows 70.
const BOUNDARY: usize = 64;

/// The answer with these parts of a blob, which are in it and not empty; without the headers that every blob has.
pub(super) async fn serve(blob: Blob, parts: Vec<Range<u64>>) -> Result<Response, Failure> {
    let size = blob.size();
    let boundary = boundary(blob.digest());
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let heads: Vec<Bytes> = parts.iter().map(|part| head(&boundary, part, size)).collect();
    let len = heads.iter().map(|head| head.len() as u64).sum::<u64>()
        + parts.iter().map(|part| part.end - part.start).sum::<u64>()
        + end.len() as u64;
    // One after the other: a part is read when its turn comes.
    let mut bytes = stream::iter(heads.into_iter().zip(parts))
        .map(move |(head, part)| {
            let bytes = blob.clone().range(part).unwrap_or_else(|error| stream::iter([Err(error)]).boxed());
            stream::iter([Ok(head)]).chain(bytes)
        })
        .flatten()
        .chain(stream::iter([Ok(end)]))
        .boxed();
    // What fails at once is an answer of its own, not one that breaks off.
    let first = [bytes.try_next().await?, bytes.try_next().await?];
    let mut response =
        Response::new(Body::from_stream(stream::iter(first.into_iter().flatten().map(Ok)).chain(bytes)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(&format!("multipart/byteranges; boundary={boundary}")));
    headers.insert(header::CONTENT_LENGTH, len.into());
    Ok(response)
}

/// What no part has in it: nobody can make a blob that contains its own digest.
fn boundary(digest: &Digest) -> String {
    let name = digest.to_string();
    let (_, hex) = name.split_once(':').expect("a digest is ALGORITHM:HEX");
    hex.chars().take(BOUNDARY).collect()
}

fn head(boundary: &str, part: &Range<u64>, size: u64) -> Bytes {
    let (first, last) = (part.start, part.end - 1);
    Bytes::from(format!(
        "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
    ))
}
