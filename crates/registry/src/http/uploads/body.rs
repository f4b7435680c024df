//! Bodies of requests as streams.

use std::fmt;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::error::{ErrorCode, RegistryError};

/// A body that can't be read, or is of another length than was said.
#[derive(Debug)]
pub(super) struct BodyError(Option<axum::Error>);

/// The body, which fails unless it has `expected` bytes.
pub(super) fn of_length(
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

/// What a client is told whose body failed.
pub(in crate::http) fn broken() -> RegistryError {
    let message = "the body ended early, or has another length than it says";
    RegistryError::new(ErrorCode::SizeInvalid, message)
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
