//! How far an upload is, as its headers say.
//!
//! ```text
//! …/uploads/ID-sha256   announced by POST: in no bucket before something comes
//! …/uploads/ID          begun
//! ```
//!
//! Most clients send everything in the request after POST, and then nothing was written for nothing. The name is the same
//! in both forms and on all nodes, so that a client whose first PATCH broke off finds what was saved of it. The algorithm is
//! in the path, because some clients lose a query.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bulla::{Algorithm, Session, SessionId};

use super::super::answer::{Failure, empty, value};
use crate::error::{ErrorCode, RegistryError};
use crate::registry::Repository;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// An upload that a request is about.
pub(super) enum Upload {
    /// Nothing has come yet, and nothing of it is anywhere.
    Announced(SessionId, Algorithm),
    /// In the bucket.
    Begun(Box<Session>),
}

/// The name of an upload, and the algorithm that it was announced with.
pub(super) fn parse(segment: &str) -> Option<(SessionId, Option<Algorithm>)> {
    match segment.split_once('-') {
        Some((id, algorithm)) => Some((id.parse().ok()?, Some(algorithm.parse().ok()?))),
        None => Some((segment.parse().ok()?, None)),
    }
}

impl Upload {
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Announced(..) => 0,
            Self::Begun(session) => session.offset(),
        }
    }

    /// Nothing has come yet, and no commit has begun.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Announced(..) => true,
            Self::Begun(session) => session.offset() == 0 && session.committing().is_none(),
        }
    }

    pub(super) fn answer(&self, status: StatusCode, repository: &Repository) -> Response {
        let mut response = empty(status);
        response.headers_mut().extend(self.headers(repository));
        response
    }

    /// 416, with where to go on.
    pub(super) fn out_of_order(&self, repository: &Repository) -> Failure {
        let message = format!("the upload has {} bytes: go on there", self.offset());
        let error = RegistryError::new(ErrorCode::BlobUploadInvalid, message);
        let mut failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, error);
        for (name, value) in self.headers(repository) {
            failure = failure.with_header(name, value);
        }
        failure
    }

    fn headers(&self, repository: &Repository) -> [(HeaderName, HeaderValue); 3] {
        let (id, announced) = match self {
            Self::Announced(id, algorithm) => (id, format!("-{algorithm}")),
            Self::Begun(session) => (session.id(), String::new()),
        };
        // Docker's form, where no byte and the first byte look alike.
        let last = self.offset().saturating_sub(1);
        [
            (header::LOCATION, value(&format!("/v2/{}/blobs/uploads/{id}{announced}", repository.name()))),
            (header::RANGE, value(&format!("0-{last}"))),
            (UPLOAD_ID, value(&id.to_string())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Names come back from clients, who may make up any.
        #[test]
        fn a_name_is_read_as_it_was_written_or_not_at_all(segment in "[a-z2-7]{26}(-(sha256|sha512))?|.{0,40}") {
            let Some((id, announced)) = parse(&segment) else { return Ok(()) };
            let algorithm = announced.map(|algorithm| format!("-{algorithm}")).unwrap_or_default();
            prop_assert_eq!(format!("{id}{algorithm}"), segment);
        }
    }
}
