//! Listening: HTTPS for the API, and HTTP on the loopback interface for managed identities.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_listener::{Limits, Listener};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::Api;
use crate::error::ServerError;
use crate::identity::{self, IdentityEndpoint, IdentityOptions};
use crate::tls::{Tls, TlsSource};

/// How often what was logged goes to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// Where and how to listen.
#[derive(Debug)]
pub struct ServerOptions {
    /// The address; port 0 is any.
    pub listen: SocketAddr,
    /// The certificate.
    pub tls: TlsSource,
    /// The endpoint for managed identities; `None`: there is none.
    pub identity: Option<IdentityOptions>,
    /// Connections at a time; more wait.
    pub max_connections: usize,
}

impl Default for ServerOptions {
    /// Any port of 127.0.0.1, a self-signed certificate, managed identities on another port.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: TlsSource::default(),
            identity: Some(IdentityOptions::default()),
            max_connections: 256,
        }
    }
}

/// A server that has its addresses and its certificate: connections wait until [`serve`](Self::serve).
pub struct Server {
    api: Api,
    address: SocketAddr,
    certificate: PathBuf,
    identity: Option<IdentityEndpoint>,
    listeners: Vec<Listener>,
}

impl Server {
    /// Takes the addresses and loads or makes the certificate.
    ///
    /// # Errors
    /// `Io` if an address is taken or a certificate can't be kept, `Invalid` for a certificate that is none, an identity
    /// endpoint that others could reach, or a build without TLS.
    pub async fn bind(api: Api, options: ServerOptions) -> Result<Self, ServerError> {
        let (tls, dir) = (options.tls, api.vault().dir().to_owned());
        let listen = options.listen.ip();
        let name = (!listen.is_unspecified()).then(|| listen.to_string());
        let tls = tokio::task::spawn_blocking(move || Tls::load(&tls, &dir, name))
            .await
            .map_err(|error| ServerError::io("the certificate could not be loaded", error))??;
        let (tcp, address) = bind(options.listen).await?;
        let mut limits = Limits::default();
        limits.connections = options.max_connections;
        // Bodies are small, and the API gives each of them ten seconds.
        limits.pace = None;
        let mut listeners = vec![Listener::new(tcp, Some(tls.config), api.router(), limits)];

        let mut endpoint = None;
        if let Some(mut identity) = options.identity {
            if !identity.listen.ip().is_loopback() {
                return Err(ServerError::invalid(format!(
                    "the identity endpoint is plain HTTP and hands out tokens: {} is no loopback address, take 127.0.0.1",
                    identity.listen.ip()
                )));
            }
            let header = identity.header(api.vault())?;
            let (tcp, address) = bind(identity.listen).await?;
            let url = format!("http://{address}{}", identity::PATH);
            let router = identity::router(api.clone(), header.clone());
            listeners.push(Listener::new(tcp, None, router, limits));
            endpoint = Some(IdentityEndpoint { url, header });
        }
        Ok(Self { api, address, certificate: tls.certificate, identity: endpoint, listeners })
    }

    /// The API that it serves.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://HOST:PORT`, where a client on this machine finds it.
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("https://{ip}:{}", self.address.port())
    }

    /// The PEM file that clients must trust.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The endpoint for managed identities.
    pub fn identity(&self) -> Option<&IdentityEndpoint> {
        self.identity.as_ref()
    }

    /// Serves until `stop` is done, then answers what was asked by then, for at most ten seconds.
    ///
    /// # Errors
    /// `Io` if the audit log could not be put on the disk at the end.
    ///
    /// # Cancel safety
    /// Dropped, it stops at once: connections are cut, what was logged is in the file.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (send, receive) = watch::channel(false);
        let listening = async {
            let mut serving = Vec::new();
            for listener in self.listeners {
                serving.push(listener.serve(receive.clone()));
            }
            futures::future::join_all(serving).await
        };
        let syncing = async {
            loop {
                tokio::time::sleep(SYNC).await;
                let api = self.api.clone();
                let synced = tokio::task::spawn_blocking(move || api.0.audit.sync()).await;
                if let Ok(Err(error)) = synced {
                    tracing::error!(%error, "the audit log can't be put on the disk");
                }
            }
        };
        let stopping = async {
            stop.await;
            let _ = send.send(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = listening => {}
            () = stopping => {}
            () = syncing => {}
        }
        self.api
            .0
            .audit
            .sync()
            .map_err(|error| ServerError::io("the audit log can't be put on the disk", error))
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let cannot =
        |error| ServerError::io(format!("{address} can't be listened on; choose another address"), error);
    let tcp = TcpListener::bind(address).await.map_err(cannot)?;
    let address = tcp.local_addr().map_err(cannot)?;
    Ok((tcp, address))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}
