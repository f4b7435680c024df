//! `/v2/NAME/blobs/uploads/…`: a blob in one request, or in as many as the client likes, on any node.
//!
//! ```text
//! POST ?mount=…&from=…   201, or else as without           POST ?digest=…   the blob is the body: 201
//! POST                   202, Location ─► PATCH … ─► PUT ?digest=…: 201
//! ```
//!
//! A body that is appended is read in a task of its own: where the client goes away, what came is saved all the same.

pub(super) mod body;
mod mount;
mod state;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bulla::{Algorithm, Digest, ErrorKind, Session, SessionId};

use self::body::BodyError;
use self::state::Upload;
use super::Call;
use super::answer::{Failure, created, empty};
use super::manifests::content_length;
use super::range::chunk;
use crate::blobs::unknown_upload;
use crate::error::{ErrorCode, RegistryError};
use crate::name::{RepositoryName, parse_digest};
use crate::registry::Repository;

/// `POST …/uploads/`
pub(super) async fn begin(call: Call, body: Body) -> Result<Response, Failure> {
    let Call { app, repository, query, headers } = call;
    if let Some(text) = query.get("mount") {
        let digest = parse_digest(text)?;
        let from = query.get("from").filter(|name| !name.is_empty());
        let from = from.map(str::parse::<RepositoryName>).transpose()?;
        if mount::mount(&app, &repository, &headers, &digest, from).await? {
            return Ok(made(&repository, &digest));
        }
    } else if let Some(text) = query.get("digest") {
        let digest = parse_digest(text)?;
        let size = content_length(&headers);
        let body = Box::pin(body::of_length(body, None));
        repository.put_blob(&digest, size, body).await.map_err(put_failure)?;
        return Ok(made(&repository, &digest));
    }
    let algorithm = match query.get("digest-algorithm") {
        Some(text) => text.parse().map_err(|_| {
            RegistryError::new(ErrorCode::DigestInvalid, "the algorithm of a digest is sha256 or sha512 here")
        })?,
        None => Algorithm::Sha256,
    };
    // Who can't finish it now need not begin.
    app.registry.store().check_writable().await?;
    let id = SessionId::random(app.registry.store().runtime().random());
    Ok(Upload::Announced(id, algorithm).answer(StatusCode::ACCEPTED, &repository))
}

/// `…/uploads/ID`
pub(super) async fn serve(call: Call, body: Body, method: &Method, id: &str) -> Result<Response, Failure> {
    let Call { app, repository, query, headers } = call;
    let (id, announced) = state::parse(id).ok_or_else(unknown_upload)?;
    let upload = match (repository.upload(&id).await?, announced) {
        (Some(session), _) => Upload::Begun(Box::new(session)),
        (None, Some(algorithm)) if app.ended.get(&id).is_none() => Upload::Announced(id, algorithm),
        (None, _) => return Err(unknown_upload().into()),
    };
    match *method {
        Method::PATCH => {
            let session = append(&repository, upload, &headers, body).await?;
            Ok(Upload::Begun(session).answer(StatusCode::ACCEPTED, &repository))
        }
        Method::PUT => {
            let digest = query.get("digest").ok_or_else(|| {
                RegistryError::new(
                    ErrorCode::DigestInvalid,
                    "an upload ends with ?digest=… of the whole blob",
                )
            })?;
            let made = finish(&repository, upload, &parse_digest(digest)?, &headers, body).await?;
            app.ended.insert(id, ());
            Ok(made)
        }
        Method::DELETE => {
            if let Upload::Begun(session) = upload {
                session.cancel().await?;
            }
            app.ended.insert(id, ());
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Ok(upload.answer(StatusCode::NO_CONTENT, &repository)),
    }
}

/// Appends the body of a request, which must go where the upload is.
async fn append(
    repository: &Repository,
    upload: Upload,
    headers: &HeaderMap,
    body: Body,
) -> Result<Box<Session>, Failure> {
    let expected = check_place(repository, &upload, headers)?;
    let mut session = match upload {
        Upload::Begun(session) => session,
        Upload::Announced(id, algorithm) => {
            Box::new(repository.begin_upload(&id, algorithm).await?.ok_or_else(unknown_upload)?)
        }
    };
    let offset = session.offset();
    let mut body = Box::pin(body::of_length(body, expected));
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
    upload: Upload,
    digest: &Digest,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let expected = check_place(repository, &upload, headers)?;
    if upload.is_empty() {
        // All of it in one request: a put is cheaper, and hashes by the digest's own algorithm.
        let size = content_length(headers);
        let body = Box::pin(body::of_length(body, expected));
        repository.put_blob(digest, size, body).await.map_err(put_failure)?;
        if let Upload::Begun(session) = upload
            && let Err(error) = session.cancel().await
        {
            tracing::debug!(%error, "an upload that is done stays until it expires");
        }
        return Ok(made(repository, digest));
    }
    let has_body = expected.is_some() || !body.is_end_stream();
    let mut session = match upload {
        Upload::Begun(session) if !has_body => session,
        upload => append(repository, upload, headers, body).await?,
    };
    repository.finish_upload(&mut session, digest, None).await?;
    Ok(made(repository, digest))
}

/// The length that the body must have, where `Content-Range` says so.
///
/// # Errors
/// 416 where the chunk does not go where the upload is, with where that is; 400 where its length is another one.
fn check_place(
    repository: &Repository,
    upload: &Upload,
    headers: &HeaderMap,
) -> Result<Option<u64>, Failure> {
    let mut all = headers.get_all(header::CONTENT_RANGE).iter();
    let Some(text) = all.next() else { return Ok(None) };
    let only = all.next().is_none().then_some(text);
    let range = only.and_then(|text| chunk(text.to_str().ok()?)).ok_or_else(|| {
        RegistryError::new(
            ErrorCode::BlobUploadInvalid,
            "Content-Range of a chunk is its first and last byte: 0-99",
        )
    })?;
    if range.start != upload.offset() {
        return Err(upload.out_of_order(repository));
    }
    let len = range.end - range.start;
    if content_length(headers).is_some_and(|announced| announced != len) {
        let error = RegistryError::new(ErrorCode::SizeInvalid, "Content-Range and Content-Length differ");
        return Err(error.into());
    }
    Ok(Some(len))
}

/// What became of an append that failed.
async fn explain(repository: &Repository, session: &Session, error: bulla::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => unknown_upload().into(),
        // Another request went on with it. Where it is now, the client may go on.
        ErrorKind::Conflict => match repository.upload(session.id()).await {
            Ok(Some(now)) if now.committing().is_none() => {
                Upload::Begun(Box::new(now)).out_of_order(repository)
            }
            Ok(Some(_)) => RegistryError::new(ErrorCode::BlobUploadInvalid, error.to_string()).into(),
            Ok(None) => unknown_upload().into(),
            Err(error) => error.into(),
        },
        _ => put_failure(error.into()),
    }
}

/// A body that failed is the client's, who may not be there any more.
fn put_failure(error: RegistryError) -> Failure {
    if std::error::Error::source(&error).is_some_and(|cause| cause.is::<BodyError>()) {
        return body::broken().into();
    }
    error.into()
}

/// 201 with where a blob is.
fn made(repository: &Repository, digest: &Digest) -> Response {
    created(&format!("/v2/{}/blobs/{digest}", repository.name()), digest)
}

fn shutting_down() -> RegistryError {
    RegistryError::busy("the server is shutting down; go on with this upload on another node")
}
