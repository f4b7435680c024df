//! A registry on the network: listening, limits, health and metrics, an end without cut transfers.
//!
//! ```text
//! listener (TLS, connections, heads, pace) ─► /healthz /readyz /metrics
//!                                          └► counted ─► a place for an upload ─► the registry, once its store is open
//! ```

mod health;
mod metered;
mod refusal;
mod service;
mod uploads;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use bulla_listener::{Listener, TlsError};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use bulla_listener::{Limits, TlsFiles};

pub use self::metered::describe_metrics;
pub use self::service::Service;
use crate::access::Access;

/// Prometheus' text, as it is now.
pub type Exposition = Arc<dyn Fn() -> String + Send + Sync>;

/// Where and how to listen.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The address; port 0 is any.
    pub listen: SocketAddr,
    /// The certificate; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Whether others than this machine may come without credentials, or without TLS, `admin` included.
    pub insecure: bool,
    /// Where health and metrics are, in plain HTTP and for whoever reaches it. `None`: on `listen`, health for everybody,
    /// metrics for this machine.
    pub admin: Option<SocketAddr>,
    /// What a client may take.
    pub limits: Limits,
    /// Requests with a blob's bytes at a time, and as many with a manifest; at least one. More wait, for at most half a minute.
    pub uploads: usize,
    /// What `/metrics` shows; `None`: there is no such page.
    pub metrics: Option<Exposition>,
}

impl Default for ServerOptions {
    /// 127.0.0.1:5000 in plain HTTP, 512 connections, 64 uploads, half a minute to end.
    fn default() -> Self {
        let mut limits = Limits::default();
        limits.connections = 512;
        limits.grace = Duration::from_secs(30);
        Self {
            listen: (Ipv4Addr::LOCALHOST, 5000).into(),
            tls: None,
            insecure: false,
            admin: None,
            limits,
            uploads: 64,
            metrics: None,
        }
    }
}

/// A server that has its addresses: connections wait until [`serve`](Self::serve).
pub struct Server {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    tls: bool,
    service: Service,
    listeners: Vec<Listener>,
}

impl Server {
    /// Takes the addresses. `access` is what the router asks that [`Service::open`] is given later.
    ///
    /// # Errors
    /// `Refused` where others could come without credentials or TLS and `insecure` does not say that they may, `Invalid` for a
    /// certificate that is none, `Io` if an address is taken.
    pub async fn bind(access: &dyn Access, options: ServerOptions) -> Result<Self, ServerError> {
        if !options.listen.ip().is_loopback() && !options.insecure {
            if access.is_open() {
                return Err(ServerError::Open(options.listen));
            }
            if options.tls.is_none() {
                return Err(ServerError::Plain(options.listen));
            }
        }
        if let Some(admin) = options.admin.filter(|admin| !admin.ip().is_loopback() && !options.insecure) {
            return Err(ServerError::Admin(admin));
        }
        let tls = match options.tls.clone() {
            Some(files) => Some(
                tokio::task::spawn_blocking(move || bulla_listener::server_config(&files))
                    .await
                    .map_err(|error| ServerError::Internal(Box::new(error)))??,
            ),
            None => None,
        };
        let secure = tls.is_some();
        let (tcp, address) = bind(options.listen).await?;
        let service = Service::new(options.uploads);
        let mut listeners = Vec::new();
        let mut admin = None;
        let metrics = options.metrics;
        let public = match options.admin {
            Some(listen) => {
                let (tcp, address) = bind(listen).await?;
                admin = Some(address);
                let router = router(health::Pages::of_operators(service.clone(), metrics), None);
                listeners.push(Listener::new(tcp, None, router, options.limits));
                health::Pages::of_everybody(service.clone(), None)
            }
            None => health::Pages::of_everybody(service.clone(), metrics),
        };
        let router = router(public, Some(service.clone()));
        listeners.push(Listener::new(tcp, tls, router, options.limits));
        Ok(Self { address, admin, tls: secure, service, listeners })
    }

    /// The address that is listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are, if on an address of their own.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where a client on this machine finds it.
    #[must_use]
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{ip}:{}", self.address.port())
    }

    /// What is served: nothing, until it is told.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Serves until `stop` is done, then ends the transfers that are under way, for at most [`Limits::grace`].
    ///
    /// # Cancel safety
    /// Dropped, it stops at once: connections are cut.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (send, receive) = watch::channel(false);
        let listening = futures::future::join_all(
            self.listeners.into_iter().map(|listener| listener.serve(receive.clone())),
        );
        let stopping = async {
            stop.await;
            let _ = send.send(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = listening => {}
            () = stopping => {}
        }
    }
}

/// The pages of operators, and behind them the registry, if there is to be one.
fn router(pages: health::Pages, service: Option<Service>) -> Router {
    Router::new().fallback(move |request: Request| {
        let (pages, service) = (pages.clone(), service.clone());
        async move {
            match (pages.find(&request), service) {
                (Some(page), _) => pages.show(page).await,
                (None, Some(service)) => service.answer(request).await,
                (None, None) => refusal::no_page(),
            }
        }
    })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let cannot = |error| ServerError::Listen(address, error);
    let tcp = TcpListener::bind(address).await.map_err(cannot)?;
    let address = tcp.local_addr().map_err(cannot)?;
    Ok((tcp, address))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The server can't start. `Display` names the fix and does not repeat the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Everybody could push and pull.
    #[error(
        "{0} can be reached by others, and no credentials would be asked for: say who may come (--htpasswd, --token-key), listen \
         on 127.0.0.1, or let everybody in with --insecure"
    )]
    Open(SocketAddr),
    /// Everybody in between could read and alter, passwords and tokens too.
    #[error(
        "{0} can be reached by others, and what they send could be read on the way: give a certificate (--tls-cert, --tls-key), \
         listen on 127.0.0.1 behind a proxy that has one, or go without with --insecure"
    )]
    Plain(SocketAddr),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Everybody could look.
    #[error(
        "{0} can be reached by others, and health and metrics have neither credentials nor TLS there: let operators come by \
         127.0.0.1, or everybody with --insecure"
    )]
    Admin(SocketAddr),
    /// Somebody else has the address, or it is not this machine's.
    #[error("{0} can't be listened on")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A bug.
    #[error("the server failed before it listened")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}
