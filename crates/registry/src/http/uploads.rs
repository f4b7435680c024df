//! `/v2/NAME/blobs/uploads/…`: a blob in one request, or in as many as the client likes, on any node.
//!
//! ```text
//! POST ?mount=…&from=…   201, or else as without           POST ?digest=…   the blob is the body: 201
//! POST                   202, Location ─► PATCH … ─► PUT ?digest=…: 201
//! ```
//!
//! A body that is appended is read in a task of its own: where the client goes away, what came is saved all the same.

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bulla::{Algorithm, Digest, ErrorKind, Session, SessionId};
use futures::{StreamExt, TryStreamExt, stream};

use super::answer::{Failure, created, empty, value};
use super::manifests::content_length;
use super::range::chunk;
use super::{App, Call};
use crate::access::{Action, Needs};
use crate::blobs::unknown_upload;
use crate::error::{ErrorCode, RegistryError};
use crate::name::{RepositoryName, parse_digest};
use crate::registry::Repository;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Repositories that are looked through for a blob to mount from anywhere, and how many at once.
const MAX_SOURCES: usize = 256;
const READS: usize = 16;

/// `POST …/uploads/`
pub(super) async fn begin(call: Call, body: Body) -> Result<Response, Failure> {
    let Call { app, repository, query, headers } = call;
    if let Some(text) = query.get("mount") {
        let digest = parse_digest(text)?;
        let from = query.get("from").filter(|name| !name.is_empty());
        let from = from.map(str::parse::<RepositoryName>).transpose()?;
        if mount(&app, &repository, &headers, &digest, from).await? {
            return Ok(made(&repository, &digest));
        }
    } else if let Some(text) = query.get("digest") {
        let digest = parse_digest(text)?;
        let size = content_length(&headers);
        repository.put_blob(&digest, size, body.into_data_stream()).await?;
        return Ok(made(&repository, &digest));
    }
    let algorithm = match query.get("digest-algorithm") {
        Some(text) => text.parse().map_err(|_| {
            RegistryError::new(ErrorCode::DigestInvalid, "the algorithm of a digest is sha256 or sha512 here")
        })?,
        None => Algorithm::Sha256,
    };
    let session = repository.start_upload(algorithm).await?;
    Ok(state(StatusCode::ACCEPTED, &repository, &session))
}

/// `…/uploads/ID`
pub(super) async fn serve(call: Call, body: Body, method: &Method, id: &str) -> Result<Response, Failure> {
    let Call { repository, query, headers, .. } = call;
    let id: SessionId = id.parse().map_err(|_| unknown_upload())?;
    let session = repository.upload(&id).await?.ok_or_else(unknown_upload)?;
    match *method {
        Method::PATCH => {
            let session = append(&repository, session, &headers, body).await?;
            Ok(state(StatusCode::ACCEPTED, &repository, &session))
        }
        Method::PUT => {
            let digest = query.get("digest").ok_or_else(|| {
                RegistryError::new(
                    ErrorCode::DigestInvalid,
                    "an upload ends with ?digest=… of the whole blob",
                )
            })?;
            finish(&repository, session, &parse_digest(digest)?, &headers, body).await
        }
        Method::DELETE => {
            session.cancel().await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Ok(state(StatusCode::NO_CONTENT, &repository, &session)),
    }
}

/// Whether the blob could be taken from another repository. Who may not read it there learns nothing but that.
async fn mount(
    app: &App,
    repository: &Repository,
    headers: &HeaderMap,
    digest: &Digest,
    from: Option<RepositoryName>,
) -> Result<bool, Failure> {
    if let Some(from) = from {
        return Ok(may_pull(app, headers, &from).await && repository.mount_blob(digest, Some(&from)).await?);
    }
    if repository.mount_blob(digest, None).await? {
        return Ok(true);
    }
    let mut sources = Vec::new();
    for name in app.registry.repositories(None, MAX_SOURCES).await?.items {
        if may_pull(app, headers, &name).await {
            sources.push(name);
        }
    }
    let found = stream::iter(sources).map(|name| {
        let (source, digest) = (app.registry.repository(name), digest.clone());
        async move {
            let linked = source.linked(&digest).await?;
            Ok::<_, RegistryError>(linked.map(|_| source.name().clone()))
        }
    });
    let mut found = found.buffer_unordered(READS);
    while let Some(name) = found.try_next().await? {
        if let Some(name) = name {
            return Ok(repository.mount_blob(digest, Some(&name)).await?);
        }
    }
    Ok(false)
}

async fn may_pull(app: &App, headers: &HeaderMap, name: &RepositoryName) -> bool {
    let needs = Needs::Repository { name: name.as_str(), action: Action::Pull };
    app.access.check(headers, needs).await.is_ok()
}

/// Appends the body of a request, which must go where the upload is.
async fn append(
    repository: &Repository,
    mut session: Session,
    headers: &HeaderMap,
    body: Body,
) -> Result<Session, Failure> {
    let expected = check_place(repository, &session, headers)?;
    let offset = session.offset();
    let mut body = Box::pin(measured::limit(body, expected));
    let appended = tokio::spawn(async move {
        let appended = session.append(offset, &mut body).await;
        (session, appended)
    });
    let (session, appended) = appended.await.map_err(|_| shutting_down())?;
    match appended {
        Ok(_) => Ok(session),
        Err(error) => Err(explain(repository, &session, error).await),
    }
}

async fn finish(
    repository: &Repository,
    session: Session,
    digest: &Digest,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let expected = check_place(repository, &session, headers)?;
    let size = content_length(headers);
    if session.offset() == 0 && session.committing().is_none() {
        // All of it in one request: a put is cheaper, and hashes by the digest's own algorithm.
        let body = Box::pin(measured::limit(body, expected));
        repository.put_blob(digest, size, body).await?;
        if let Err(error) = session.cancel().await {
            tracing::debug!(%error, "an upload that is done stays until it expires");
        }
        return Ok(made(repository, digest));
    }
    let has_body = expected.is_some() || !body.is_end_stream();
    let mut session = if has_body { append(repository, session, headers, body).await? } else { session };
    repository.finish_upload(&mut session, digest, None).await?;
    Ok(made(repository, digest))
}

/// The length that the body must have, where `Content-Range` says so.
///
/// # Errors
/// 416 where the chunk does not go where the upload is, with where that is; 400 where its length is another one.
fn check_place(
    repository: &Repository,
    session: &Session,
    headers: &HeaderMap,
) -> Result<Option<u64>, Failure> {
    let Some(text) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let range = text.to_str().ok().and_then(chunk).ok_or_else(|| {
        RegistryError::new(
            ErrorCode::BlobUploadInvalid,
            "Content-Range of a chunk is its first and last byte: 0-99",
        )
    })?;
    if range.start != session.offset() {
        return Err(out_of_order(repository, session));
    }
    let len = range.end - range.start;
    if content_length(headers).is_some_and(|announced| announced != len) {
        let error = RegistryError::new(ErrorCode::SizeInvalid, "Content-Range and Content-Length differ");
        return Err(error.into());
    }
    Ok(Some(len))
}

fn out_of_order(repository: &Repository, session: &Session) -> Failure {
    let offset = session.offset();
    let error =
        RegistryError::new(ErrorCode::RangeInvalid, format!("the upload has {offset} bytes: go on there"));
    let mut failure = Failure::from(error);
    for (name, value) in state_headers(repository, session) {
        failure = failure.with_header(name, value);
    }
    failure
}

/// What became of an append that failed.
async fn explain(repository: &Repository, session: &Session, error: bulla::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => unknown_upload().into(),
        // Another request went on with it. Where it is now, the client may go on.
        ErrorKind::Conflict => match repository.upload(session.id()).await {
            Ok(Some(now)) if now.committing().is_none() => out_of_order(repository, &now),
            Ok(Some(_)) => RegistryError::new(ErrorCode::BlobUploadInvalid, error.to_string()).into(),
            Ok(None) => unknown_upload().into(),
            Err(error) => error.into(),
        },
        ErrorKind::Invalid
            if std::error::Error::source(&error).is_some_and(|cause| cause.is::<measured::BodyError>()) =>
        {
            RegistryError::new(
                ErrorCode::SizeInvalid,
                "the body ended early, or has another length than it says",
            )
            .into()
        }
        _ => error.into(),
    }
}

/// 201 with where a blob is.
fn made(repository: &Repository, digest: &Digest) -> Response {
    created(&format!("/v2/{}/blobs/{digest}", repository.name()), digest)
}

/// How far an upload is.
fn state(status: StatusCode, repository: &Repository, session: &Session) -> Response {
    let mut response = empty(status);
    response.headers_mut().extend(state_headers(repository, session));
    response
}

fn state_headers(repository: &Repository, session: &Session) -> [(HeaderName, HeaderValue); 3] {
    let id = session.id();
    // Docker's form, where no byte and the first byte look alike.
    let last = session.offset().saturating_sub(1);
    [
        (header::LOCATION, value(&format!("/v2/{}/blobs/uploads/{id}", repository.name()))),
        (header::RANGE, value(&format!("0-{last}"))),
        (UPLOAD_ID, value(&id.to_string())),
    ]
}

fn shutting_down() -> RegistryError {
    RegistryError::busy("the server is shutting down; go on with this upload on another node")
}

/// Bodies of a length that was announced.
mod measured {
    use std::fmt;

    use axum::body::Body;
    use bytes::Bytes;
    use futures::{Stream, StreamExt, stream};

    /// A body that can't be read, or is of another length than was said.
    #[derive(Debug)]
    pub(super) struct BodyError(Option<axum::Error>);

    /// The request's body, which fails unless it has `expected` bytes.
    pub(super) fn limit(
        body: Body,
        expected: Option<u64>,
    ) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + use<> {
        let body = body.into_data_stream();
        stream::try_unfold((body, expected), |(mut body, mut left)| async move {
            match body.next().await {
                Some(Ok(bytes)) => {
                    if let Some(left) = &mut left {
                        *left = left.checked_sub(bytes.len() as u64).ok_or(BodyError(None))?;
                    }
                    Ok(Some((bytes, (body, left))))
                }
                Some(Err(error)) => Err(BodyError(Some(error))),
                None if left.is_some_and(|left| left > 0) => Err(BodyError(None)),
                None => Ok(None),
            }
        })
    }

    impl fmt::Display for BodyError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match &self.0 {
                Some(_) => f.write_str("the body can't be read"),
                None => f.write_str("the body has another length than Content-Range says"),
            }
        }
    }

    impl std::error::Error for BodyError {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.0.as_ref().map(|error| error as &(dyn std::error::Error + 'static))
        }
    }
}
