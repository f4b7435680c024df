//! How far an upload is, as its headers say.
//!
//! An upload is announced by POST and is in no bucket before something comes, because most clients send everything in the
//! request after it. Until then its `Location` says how it begins; the name in it is the same on all nodes, so that a
//! client whose first PATCH broke off finds what was saved of it.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bulla::{Algorithm, Session, SessionId};

use super::super::answer::{Failure, empty, value};
use crate::error::{ErrorCode, RegistryError};
use crate::registry::Repository;

/// The parameter of an announced upload's location: the algorithm of its digest.
pub(super) const BEGIN: &str = "begin";

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// An upload that a request is about.
pub(super) enum Upload {
    /// Nothing has come yet, and nothing of it is anywhere.
    Announced(SessionId, Algorithm),
    /// In the bucket.
    Begun(Box<Session>),
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
        let mut failure = Failure::from(RegistryError::new(ErrorCode::RangeInvalid, message));
        for (name, value) in self.headers(repository) {
            failure = failure.with_header(name, value);
        }
        failure
    }

    fn headers(&self, repository: &Repository) -> [(HeaderName, HeaderValue); 3] {
        let (id, query) = match self {
            Self::Announced(id, algorithm) => (id, format!("?{BEGIN}={algorithm}")),
            Self::Begun(session) => (session.id(), String::new()),
        };
        // Docker's form, where no byte and the first byte look alike.
        let last = self.offset().saturating_sub(1);
        [
            (header::LOCATION, value(&format!("/v2/{}/blobs/uploads/{id}{query}", repository.name()))),
            (header::RANGE, value(&format!("0-{last}"))),
            (UPLOAD_ID, value(&id.to_string())),
        ]
    }
}
