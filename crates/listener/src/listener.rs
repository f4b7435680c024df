//! Accepting connections: so many at a time, and none that keeps the server waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::header::{EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::pace::{Pace, Paced};
use crate::rest::Rest;

/// Less than this hyper does not take.
const MIN_BUFFER: usize = 8 << 10;

/// What a client may take: connections, time, memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at a time, at least one; more wait in the kernel's queue.
    pub connections: usize,
    /// For a handshake, a first request, the head of any request, what is sent after its answer: what takes longer is not
    /// coming.
    pub patience: Duration,
    /// For what is still answered after the server was told to stop.
    pub grace: Duration,
    /// For a client to take any more of an answer.
    pub stall: Duration,
    /// How slowly bodies may come; `None`: the router sees to it.
    pub pace: Option<Pace>,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's head.
    pub head: u32,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    /// 256 connections, 10 s of patience and of grace, a minute for stalled answers, 64 headers in 32 KiB, 32 streams; bodies
    /// as [`Pace`] has it.
    fn default() -> Self {
        Self {
            connections: 256,
            patience: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            pace: Some(Pace::default()),
            headers: 64,
            head: 32 << 10,
            streams: 32,
        }
    }
}

/// In the extensions of a response: the connection closes, or the stream is reset, instead of the answer.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "a mark, which says nothing but that it is there")]
pub struct DropConnection;

/// One address that is listened on.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
}

impl Listener {
    /// Serves `router` on `tcp`; without `tls`, as plain HTTP. Requests carry axum's `ConnectInfo<SocketAddr>`.
    #[must_use]
    pub fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router, limits: Limits) -> Self {
        Self { tcp, tls, router, limits }
    }

    /// Serves until `stop` holds `true`, then until the requests at hand are answered or the grace is over.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped, it stops at once: connections are cut.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let limits = self.limits;
        let permits = Arc::new(Semaphore::new(limits.connections.max(1)));
        let graceful = GracefulShutdown::new();
        let mut tasks = JoinSet::new();
        let acceptor = self.tls.map(TlsAcceptor::from);
        loop {
            let accepted = async {
                // Before accepting: who finds no room waits in the kernel's queue.
                let permit =
                    Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                (permit, self.tcp.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            // Ended tasks are not kept.
            while tasks.try_join_next().is_some() {}
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, mostly; it passes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (acceptor, router, watcher) = (acceptor.clone(), self.router.clone(), graceful.watcher());
            tasks.spawn(async move {
                Connection { peer, router, watcher, limits }.serve(stream, acceptor).await;
                drop(permit);
            });
        }
        drop(self.tcp);
        // What hangs longer is dropped with the tasks.
        let _ = tokio::time::timeout(limits.grace, graceful.shutdown()).await;
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
    limits: Limits,
}

impl Connection {
    async fn serve(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Many answers are small: waiting for more of them helps nobody.
        let _ = stream.set_nodelay(true);
        // A client that takes nothing does not hold what it asked for in memory.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.stall));
        let stream = Box::pin(stream);
        let Some(acceptor) = acceptor else { return self.http(stream, false).await };
        match tokio::time::timeout(self.limits.patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.http(stream, http2).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.peer, "no TLS"),
            Err(_) => tracing::debug!(peer = %self.peer, "the handshake took too long"),
        }
    }

    async fn http(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http2: bool) {
        let Self { peer, router, watcher, limits } = self;
        let builder = builder(&limits, http2);
        let asked = Arc::new(AtomicBool::new(false));
        let service = {
            let asked = Arc::clone(&asked);
            service_fn(move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                answer(router.clone(), request, peer, limits)
            })
        };
        let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        let silent = async {
            tokio::time::sleep(limits.patience).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "the connection ended");
                }
            }
            () = silent => tracing::debug!(%peer, "nothing was asked"),
        }
    }
}

fn builder(limits: &Limits, http2: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_headers(limits.headers)
        .max_buf_size(usize::try_from(limits.head).unwrap_or(usize::MAX).max(MIN_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head)
        .keep_alive_interval(limits.patience)
        .keep_alive_timeout(limits.patience);
    // The handshake has said which one it is; guessing from the first bytes would wait for them without end.
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// What a proxy in front may have understood otherwise, and hyper lets pass: for whom the request is (RFC 9112 §3.2), and how
/// its body is coded (§6.1), beyond the chunks that hyper undoes.
fn misframed(request: &Request<Incoming>) -> Option<StatusCode> {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
        return Some(StatusCode::BAD_REQUEST);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(coding), None) if chunked(coding) => None,
        _ => Some(StatusCode::NOT_IMPLEMENTED),
    }
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    limits: Limits,
) -> io::Result<Response<Body>> {
    if let Some(status) = misframed(&request) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return Ok(response);
    }
    request.extensions_mut().insert(ConnectInfo(peer));
    // Who waits to be told to go on has sent nothing yet.
    let sends = !request.headers().contains_key(EXPECT);
    let request = request.map(|body| {
        let body = match limits.pace {
            Some(pace) => Body::new(Paced::new(Body::new(body), pace)),
            None => Body::new(body),
        };
        if sends { Body::new(Rest::new(body, limits.patience)) } else { body }
    });
    let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
    match response.extensions().get::<DropConnection>() {
        // hyper closes the connection, or resets the stream.
        Some(DropConnection) => Err(io::Error::other("dropped, as was asked for")),
        None => Ok(response),
    }
}
