//! Google Cloud Storage on loopback: fake-gcs-server keeps the objects, their generations and the conditions.
//!
//! object_store speaks the XML API, of which fake-gcs-server has reading, listing and deleting. [`Gateway`] stands before it,
//! passes these on, and says writes and copies in the API that it has, JSON. Whether a generation matches is decided by
//! fake-gcs-server, under its lock.
//!
//! Of its own the gateway has what Google answers and fake-gcs-server does not: that a bucket is not there, and that an object
//! is changed too often. Unlike Google's, listings come in one page, and with times in whole seconds.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use reqwest::Client;
use serde_json::Value;
use tokio::runtime::Runtime;

type Answer = Result<Response<Body>, Box<dyn Error + Send + Sync>>;

/// Larger than anything that Bulla writes in one request.
const MAX_BODY: usize = 64 << 20;
/// Between the parts of an upload: nothing that is sealed holds it but by a chance of 2⁻²⁵⁶.
const BOUNDARY: &str = "e4df8b4f2c1a4f5e9a0f6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f80910";
const GENERATION_MATCH: &str = "x-goog-if-generation-match";
const GENERATION: &str = "x-goog-generation";

/// A running gateway; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) url: String,
    runtime: Option<Runtime>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Where it is dropped may be no place to wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug)]
struct Fake {
    url: String,
    client: Client,
    /// How long an object can't be changed after it was: <https://cloud.google.com/storage/quotas#objects>.
    pause: Duration,
    changed: Mutex<HashMap<String, Instant>>,
}

impl Gateway {
    /// Stands before the fake-gcs-server at `url`.
    pub(crate) fn start(url: String, pause: Duration) -> io::Result<Self> {
        // reqwest asks for it even where nothing is encrypted. Another test may have chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder().no_proxy().build().map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let fake = Fake { url, client, pause, changed: Mutex::default() };
        let router = Router::new().fallback(handle).with_state(Arc::new(fake));
        runtime.spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await });
        Ok(Self { url: format!("http://{address}"), runtime: Some(runtime) })
    }
}

async fn handle(State(fake): State<Arc<Fake>>, request: Request) -> Response<Body> {
    fake.answer(request).await.unwrap_or_else(|error| {
        error_of(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string())
    })
}

impl Fake {
    async fn answer(&self, request: Request) -> Answer {
        let (parts, body) = request.into_parts();
        let is_change = [Method::PUT, Method::DELETE].contains(&parts.method);
        if is_change && self.is_too_soon(parts.uri.path()) {
            return Ok(error_of(
                StatusCode::TOO_MANY_REQUESTS,
                "SlowDown",
                "Please reduce your request rate.",
            ));
        }
        let answer = if parts.method == Method::PUT {
            let body = to_bytes(body, MAX_BODY).await?;
            self.put(parts.uri.path(), &parts.headers, &body).await?
        } else {
            let to = format!("{}{}", self.url, parts.uri);
            let request = self.client.request(parts.method, to).headers(only_range(&parts.headers));
            self.passed(bucket_and_name(parts.uri.path()).0, request).await?
        };
        if is_change && answer.status().is_success() {
            let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
            changed.insert(parts.uri.path().to_owned(), Instant::now());
        }
        Ok(answer)
    }

    async fn put(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let (bucket, name) = bucket_and_name(path);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut condition = String::new();
        if let Some(generation) = header(GENERATION_MATCH) {
            write!(condition, "&ifGenerationMatch={generation}")?;
        }
        let Some((from_bucket, from)) = header("x-goog-copy-source").and_then(|from| from.split_once('/'))
        else {
            return self.upload(bucket, name, &condition, body).await;
        };
        let to = format!("b/{from_bucket}/o/{from}/rewriteTo/b/{bucket}/o/{name}?{condition}");
        let request = self.client.post(format!("{}/storage/v1/{to}", self.url));
        self.passed(bucket, request.header(CONTENT_TYPE, "application/json").body("{}")).await
    }

    async fn upload(&self, bucket: &str, name: &str, condition: &str, body: &[u8]) -> Answer {
        let part = |kind: &str| format!("--{BOUNDARY}\r\ncontent-type: {kind}\r\n\r\n").into_bytes();
        let end = format!("\r\n--{BOUNDARY}--\r\n").into_bytes();
        let parts =
            [&part("application/json"), &b"{}\r\n"[..], &part("application/octet-stream"), body, &end];
        let to = format!("b/{bucket}/o?uploadType=multipart&name={name}{condition}");
        let request = self
            .client
            .post(format!("{}/upload/storage/v1/{to}", self.url))
            .header(CONTENT_TYPE, format!("multipart/related; boundary={BOUNDARY}"))
            .body(parts.concat());
        let answer = self.passed(bucket, request).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let object: Value = serde_json::from_slice(&to_bytes(answer.into_body(), MAX_BODY).await?)?;
        let text = |field: &str| object[field].as_str().ok_or("an object without all that it should have");
        Ok(Response::builder()
            .header(ETAG, format!("\"{}\"", text("etag")?))
            .header(GENERATION, text("generation")?)
            .body(Body::empty())?)
    }

    /// Asks, and says errors as the XML API does.
    async fn passed(&self, bucket: &str, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await?;
        let status = answer.status();
        if status.is_success() {
            let mut passed = Response::builder().status(status);
            if let Some(headers) = passed.headers_mut() {
                *headers = answer.headers().clone();
                // How it came to us is not how it goes on.
                headers.remove(TRANSFER_ENCODING);
            }
            return Ok(passed.body(Body::from(answer.bytes().await?))?);
        }
        let asked = self.client.get(format!("{}/storage/v1/b/{bucket}", self.url)).send().await?;
        let message = answer.text().await?;
        Ok(match status {
            _ if asked.status() == StatusCode::NOT_FOUND => {
                error_of(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist.")
            }
            StatusCode::NOT_FOUND => error_of(status, "NoSuchKey", "The specified key does not exist."),
            StatusCode::PRECONDITION_FAILED => error_of(
                status,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold.",
            ),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                error_of(status, "InvalidRange", "The requested range cannot be satisfied.")
            }
            _ => error_of(status, "InternalError", &message),
        })
    }

    fn is_too_soon(&self, path: &str) -> bool {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.get(path).is_some_and(|at| at.elapsed() < self.pause)
    }
}

/// Both as they are in the URL, percent signs and all.
fn bucket_and_name(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

fn only_range(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| *name == "range")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// <https://cloud.google.com/storage/docs/xml-api/reference-status>
fn error_of(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}
