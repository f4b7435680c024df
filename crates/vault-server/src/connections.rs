//! Accepting connections: so many at a time, and none that keeps the server waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::faults::DropConnection;

/// A handshake, a first request, the head of any request: what takes longer is not coming.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is still answered after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
const MAX_HEAD: u32 = 32 << 10;
const MAX_STREAMS: u32 = 32;

/// One address that is listened on.
pub(crate) struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) router: Router,
    pub(crate) max_connections: usize,
}

impl Listener {
    /// Serves until told to stop, then until the requests at hand are answered.
    pub(crate) async fn serve(self, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(self.max_connections));
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
                connection(stream, peer, acceptor, router, watcher).await;
                drop(permit);
            });
        }
        drop(self.tcp);
        // What hangs longer is dropped with the tasks.
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    watcher: Watcher,
) {
    // Answers are small: waiting for more of them helps nobody.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return http(stream, false, peer, router, watcher).await };
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            http(stream, http2, peer, router, watcher).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
        Err(_) => tracing::debug!(%peer, "the handshake took too long"),
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    // The handshake has said which one it is; guessing from the first bytes would wait for them without end.
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let asked = Arc::clone(&asked);
        service_fn(move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(ConnectInfo(peer));
            let router = router.clone();
            async move {
                let response =
                    router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {});
                match response.extensions().get::<DropConnection>() {
                    // hyper closes the connection, or resets the stream.
                    Some(DropConnection) => Err(io::Error::other("dropped, as was asked for")),
                    None => Ok(response),
                }
            }
        })
    };
    let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    let silent = async {
        tokio::time::sleep(PATIENCE).await;
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
