//! What is asked and answered, in numbers: by route, method and status, never by a name.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use metrics::{Counter, Unit};

const REQUESTS: &str = "bulla_registry_requests_total";
const SECONDS: &str = "bulla_registry_request_seconds";
const UNDER_WAY: &str = "bulla_registry_requests_under_way";
const RECEIVED: &str = "bulla_registry_received_bytes_total";
const SENT: &str = "bulla_registry_sent_bytes_total";

/// Says to the installed recorder of [`metrics`] what the server's metrics are, for those that show it.
pub fn describe_metrics() {
    metrics::describe_counter!(REQUESTS, Unit::Count, "Requests answered, by route, method and status");
    metrics::describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "From the head of a request to the head of its answer, by route and method, in seconds"
    );
    metrics::describe_gauge!(UNDER_WAY, Unit::Count, "Requests that are not answered yet");
    metrics::describe_counter!(RECEIVED, Unit::Bytes, "Bytes of requests' bodies, by route");
    metrics::describe_counter!(SENT, Unit::Bytes, "Bytes of answers' bodies, by route");
}

/// A request that is not answered yet.
pub(super) struct Count {
    route: &'static str,
    method: &'static str,
    started: Instant,
}

impl Count {
    /// Counts what is received from now on.
    pub(super) fn begin(request: Request) -> (Self, Request) {
        let (route, method) = (route(request.uri().path()), method(request.method()));
        metrics::gauge!(UNDER_WAY).increment(1);
        let bytes = metrics::counter!(RECEIVED, "route" => route);
        let request = request.map(|body| Body::new(Counted { body, bytes }));
        (Self { route, method, started: Instant::now() }, request)
    }

    /// Counts the request, and what is sent from now on.
    pub(super) fn end(self, response: Response) -> Response {
        let (route, method) = (self.route, self.method);
        let status = response.status().as_u16().to_string();
        metrics::histogram!(SECONDS, "route" => route, "method" => method).record(self.started.elapsed());
        metrics::counter!(REQUESTS, "route" => route, "method" => method, "status" => status).increment(1);
        let bytes = metrics::counter!(SENT, "route" => route);
        response.map(|body| Body::new(Counted { body, bytes }))
    }
}

/// Also where the client goes away first.
impl Drop for Count {
    fn drop(&mut self) {
        metrics::gauge!(UNDER_WAY).decrement(1);
    }
}

/// The kind of thing that a path is about. Names of repositories may have any of these words in them, so the end of the path
/// decides.
fn route(path: &str) -> &'static str {
    let Some(path) = path.strip_prefix("/v2") else { return "other" };
    match path {
        "" | "/" => return "base",
        "/_catalog" => return "catalog",
        _ => {}
    }
    let mut parts = path.rsplit('/');
    match (parts.next(), parts.next(), parts.next()) {
        (_, Some("uploads"), Some("blobs")) | (Some("uploads"), Some("blobs"), _) => "uploads",
        (_, Some("blobs"), _) => "blobs",
        (_, Some("manifests"), _) => "manifests",
        (Some("list"), Some("tags"), _) => "tags",
        (_, Some("referrers"), _) => "referrers",
        _ => "other",
    }
}

/// Methods are the client's to invent; these are counted.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

struct Counted {
    body: Body,
    bytes: Counter,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.bytes.increment(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_by_their_end() {
        for (path, is) in [
            ("/v2/", "base"),
            ("/v2", "base"),
            ("/v2/_catalog", "catalog"),
            ("/v2/a/b/tags/list", "tags"),
            ("/v2/a/manifests/latest", "manifests"),
            ("/v2/blobs/manifests/blobs", "manifests"),
            ("/v2/a/blobs/sha256:00", "blobs"),
            ("/v2/a/blobs/uploads/", "uploads"),
            ("/v2/a/blobs/uploads", "uploads"),
            ("/v2/a/blobs/uploads/0123", "uploads"),
            ("/v2/a/referrers/sha256:00", "referrers"),
            ("/v2/a", "other"),
            ("/favicon.ico", "other"),
        ] {
            assert_eq!(route(path), is, "{path}");
        }
    }
}
