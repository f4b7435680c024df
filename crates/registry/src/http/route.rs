//! From paths to endpoints. Names have slashes in them, so that a path is read from its end.

use axum::http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use super::answer::Failure;
use crate::error::{ErrorCode, RegistryError};

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// As it is written: it may be no name of a repository.
    pub(super) name: Option<String>,
    pub(super) endpoint: Endpoint,
}

/// What is there. What the texts are is not checked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Base,
    Catalog,
    Tags,
    Manifest(String),
    Blob(String),
    Uploads,
    Upload(String),
    Referrers(String),
}

impl Route {
    /// # Errors
    /// 404 where there is nothing.
    pub(super) fn parse(path: &str) -> Result<Self, Failure> {
        let path = path.strip_prefix("/v2").unwrap_or_default();
        let segments: Option<Vec<String>> = path.split('/').skip(1).map(decode).collect();
        let segments = segments.ok_or_else(nothing)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (name, endpoint) = match segments.as_slice() {
            [] | [""] => return Ok(Self { name: None, endpoint: Endpoint::Base }),
            ["_catalog"] => return Ok(Self { name: None, endpoint: Endpoint::Catalog }),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                (name, Endpoint::Uploads)
            }
            [name @ .., "tags", "list"] => (name, Endpoint::Tags),
            [name @ .., "manifests", reference] => (name, Endpoint::Manifest((*reference).to_owned())),
            [name @ .., "referrers", digest] => (name, Endpoint::Referrers((*digest).to_owned())),
            [name @ .., "blobs", digest] => (name, Endpoint::Blob((*digest).to_owned())),
            [name @ .., "blobs", "uploads", id] => (name, Endpoint::Upload((*id).to_owned())),
            _ => return Err(nothing()),
        };
        if name.is_empty() {
            return Err(nothing());
        }
        Ok(Self { name: Some(name.join("/")), endpoint })
    }
}

impl Endpoint {
    /// # Errors
    /// 405, with what is allowed.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Failure> {
        let (allowed, text): (&[Method], &'static str) = match self {
            Self::Base | Self::Catalog | Self::Tags | Self::Referrers(_) => {
                (&[Method::GET, Method::HEAD], "GET, HEAD")
            }
            Self::Manifest(_) => {
                (&[Method::GET, Method::HEAD, Method::PUT, Method::DELETE], "GET, HEAD, PUT, DELETE")
            }
            Self::Blob(_) => (&[Method::GET, Method::HEAD, Method::DELETE], "GET, HEAD, DELETE"),
            Self::Uploads => (&[Method::POST], "POST"),
            Self::Upload(_) => (
                &[Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE],
                "GET, HEAD, PATCH, PUT, DELETE",
            ),
        };
        if allowed.contains(method) {
            return Ok(());
        }
        let error = RegistryError::new(ErrorCode::Unsupported, format!("only {text} can be done here"));
        Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, error)
            .with_header(header::ALLOW, HeaderValue::from_static(text)))
    }
}

/// A slash that is written as `%2F` would make other segments than everybody before us has seen.
fn decode(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    (!decoded.contains('/')).then(|| decoded.into_owned())
}

fn nothing() -> Failure {
    RegistryError::new(ErrorCode::NameUnknown, "there is nothing at this path").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(Option<String>, Endpoint)> {
        Route::parse(path).ok().map(|route| (route.name, route.endpoint))
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let text = |text: &str| Some(text.to_owned());
        for (path, name, endpoint) in [
            ("/v2", None, Endpoint::Base),
            ("/v2/", None, Endpoint::Base),
            ("/v2/_catalog", None, Endpoint::Catalog),
            ("/v2/a/tags/list", text("a"), Endpoint::Tags),
            ("/v2/a/b/c/manifests/v1", text("a/b/c"), Endpoint::Manifest("v1".into())),
            ("/v2/a/blobs/sha256%3Aabc", text("a"), Endpoint::Blob("sha256:abc".into())),
            ("/v2/a/blobs/uploads", text("a"), Endpoint::Uploads),
            ("/v2/a/blobs/uploads/", text("a"), Endpoint::Uploads),
            ("/v2/a/blobs/uploads/x", text("a"), Endpoint::Upload("x".into())),
            ("/v2/a/referrers/d", text("a"), Endpoint::Referrers("d".into())),
            // Repositories whose names look like paths.
            ("/v2/a/blobs/uploads/tags/list", text("a/blobs/uploads"), Endpoint::Tags),
            ("/v2/manifests/manifests/manifests", text("manifests"), Endpoint::Manifest("manifests".into())),
            ("/v2/UP/manifests/v1", text("UP"), Endpoint::Manifest("v1".into())),
        ] {
            assert_eq!(parse(path), Some((name, endpoint)), "{path}");
        }
        for path in
            ["/v2/a", "/v2/tags/list", "/v2/a%2Fb/tags/list", "/v2/a/tags", "/v2/%ff/tags/list", "/v2/a/"]
        {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
