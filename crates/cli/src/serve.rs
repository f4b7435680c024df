//! `bulla serve`: the store as a container registry, for as long as the process lives.

mod access;
mod numbers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulla::{ErrorKind, Store};
use bulla_registry::access::Access;
use bulla_registry::server::{Server, ServerError, ServerOptions, Service, TlsFiles};
use bulla_registry::{CollectOptions, Registry, RegistryOptions};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::open::{self, Attempt, Opening};

/// How often a store that can't be opened is tried again: as often as an open store asks for a key that was taken away.
const AGAIN: Duration = Duration::from_secs(15);

/// Serve the store as a container registry (OCI Distribution), for docker, podman, skopeo, Kubernetes and the like
///
/// On the loopback interface anybody may push and pull. Any other address needs users (--htpasswd) or tokens (--token-key),
/// and a certificate, or --insecure. Files of users, keys and certificates are read again when they change. While the key is
/// revoked or out of reach, clients get 503 and /readyz says why; when it is back, service goes on by itself. Several servers
/// may serve one store. Ctrl-C or SIGTERM stops it when the transfers under way have ended, within 30 seconds: exit code 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla serve ./store
  skopeo copy --dest-tls-verify=false oci:./image docker://127.0.0.1:5000/library/app

  htpasswd -Bbn alice 'her password' >> users
  bulla serve s3://bucket/prefix --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem --htpasswd users
  bulla serve ./store --listen 10.0.0.5:443 --tls-cert chain.pem --tls-key key.pem --htpasswd users --read-only node

  bulla serve ./store --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem --token-key auth.pub \\
    --token-issuer auth.example --token-service registry.example --token-realm https://auth.example/token

  bulla serve ./store --gc-every 6h --untagged-after 7d
  bulla serve ./store --admin-listen 127.0.0.1:9090   # /healthz, /readyz and /metrics there")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// Address and port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// PEM file of the certificate and those up to its root
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    access: access::Args,
    /// Let others than this machine come without credentials, or without TLS, also to --admin-listen
    #[arg(long)]
    insecure: bool,
    /// Where /healthz, /readyz and /metrics are, in plain HTTP, without credentials, so for others than this machine only with
    /// --insecure (default: at the registry's address, the metrics for this machine only)
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Connections at a time; more wait
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_connections: usize,
    /// Remove what no repository needs any more, as `bulla gc --registry`, every so often; one server of a store is enough
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    gc_every: Option<Duration>,
    /// Then remove manifests that have had no tag for so long as well; at least 24h
    #[arg(long, value_name = "TIME", requires = "gc_every", value_parser = humantime::parse_duration)]
    untagged_after: Option<Duration>,
    /// Layers received at a time, and as many manifests; more wait. Each takes up to 16 MiB of memory
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_uploads: usize,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    if args.gc_every.is_some_and(|every| every < Duration::from_secs(60)) {
        return Err(Failure::invalid("--gc-every is at least 1m: a gc looks at everything"));
    }
    crate::gc::refuse_short(args.untagged_after)?;
    if args.max_uploads == 0 || args.max_connections == 0 {
        return Err(Failure::invalid("--max-uploads and --max-connections are at least 1"));
    }
    let opening = open::to_stay(ctx, &ctx.store(args.store.as_deref())?).await?;
    let access = args.access.build().await?;
    let server = Server::bind(&*access, options(&args)?).await.map_err(failure)?;
    let registry = Serving {
        ctx,
        opening,
        access,
        service: server.service().clone(),
        gc: args.gc_every.map(|every| (every, collect_options(&args))),
    };
    let store = registry.attempt(true).await?;
    announce(ctx, &server, &args, &registry, store.is_some())?;
    let interrupted = async {
        // The normal end of a server.
        let _ = ctx.interrupt.wait().await;
    };
    let store = registry.serve(server.serve(interrupted), store).await?;
    if let Some(store) = store {
        registry.opening.close(ctx, &store).await;
    }
    Ok(())
}

/// What becomes of the store while the server listens.
struct Serving<'a> {
    ctx: &'a Context,
    opening: Opening,
    access: Arc<dyn Access>,
    service: Service,
    gc: Option<(Duration, CollectOptions)>,
}

impl Serving<'_> {
    /// Opens the store and serves it; `None` while its key or bucket can't be used.
    async fn attempt(&self, first: bool) -> Result<Option<Store>> {
        match self.opening.attempt().await {
            Ok(store) => {
                let registry = Registry::new(store.clone(), RegistryOptions::default());
                if let Some((every, options)) = self.gc {
                    let registry = registry.clone();
                    // It ends with the process; what it had begun is finished by the next.
                    drop(tokio::spawn(async move { registry.collect_every(every, options).await }));
                }
                let router = bulla_registry::http::router(registry, Arc::clone(&self.access));
                self.service.open(store.clone(), router);
                Ok(Some(store))
            }
            Err(Attempt::Later(error)) => {
                self.service.wait_for(&error);
                let revoked = error.kind() == ErrorKind::Revoked;
                let failure = self.opening.explain(error);
                if first {
                    let what = if revoked { "the key is revoked" } else { "the store can't be opened yet" };
                    self.ctx.warn(format!("{what}: clients get 503 until that changes: {failure}"));
                } else {
                    tracing::debug!(%failure, "the store still can't be opened");
                }
                Ok(None)
            }
            Err(Attempt::Never(failure)) => Err(failure),
        }
    }

    /// Serves, and opens the store if it is not open. The store, if it was opened.
    async fn serve(&self, serving: impl Future<Output = ()>, open: Option<Store>) -> Result<Option<Store>> {
        if open.is_some() {
            serving.await;
            return Ok(open);
        }
        let opened = async {
            loop {
                tokio::time::sleep(AGAIN).await;
                match self.attempt(false).await {
                    Ok(None) => {}
                    done => return done,
                }
            }
        };
        tokio::pin!(serving);
        let opened = tokio::select! {
            () = &mut serving => return Ok(None),
            opened = opened => opened?,
        };
        tracing::warn!("the store is open, and served");
        serving.await;
        Ok(opened)
    }
}

fn options(args: &Args) -> Result<ServerOptions> {
    let mut options = ServerOptions::default();
    options.listen = args.listen;
    options.tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    options.insecure = args.insecure;
    options.admin = args.admin_listen;
    options.limits.connections = args.max_connections;
    options.uploads = args.max_uploads;
    options.metrics = Some(numbers::record()?);
    Ok(options)
}

/// Where everything is, at once: scripts wait for it.
fn announce(ctx: &Context, server: &Server, args: &Args, registry: &Serving<'_>, open: bool) -> Result<()> {
    let (url, store) = (server.url(), registry.opening.url.canonical());
    let admin = server.admin().map_or_else(|| url.clone(), |address| format!("http://{address}"));
    let access = args.access.name();
    if ctx.json {
        ctx.out.json(&json!({
            "url": url,
            "address": server.address().to_string(),
            "store": store,
            "access": access,
            "health": format!("{admin}/healthz"),
            "ready": format!("{admin}/readyz"),
            "metrics": format!("{admin}/metrics"),
            "open": open,
        }))?;
    } else {
        ctx.out.fields(&[
            ("serving", url),
            ("store", store.to_owned()),
            ("access", access.to_owned()),
            ("health", format!("{admin}/healthz")),
            ("ready", format!("{admin}/readyz")),
            ("metrics", format!("{admin}/metrics")),
        ])?;
    }
    ctx.out.flush()?;
    Ok(())
}

fn failure(error: ServerError) -> Failure {
    let kind = match error {
        ServerError::Listen(..) => Kind::Unavailable,
        ServerError::Internal(_) => Kind::Internal,
        _ => Kind::Invalid,
    };
    let fix = match &error {
        ServerError::Listen(_, cause) => Some(match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "stop what listens there, or choose another port with --listen or --admin-listen"
            }
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE",
            _ => "--listen and --admin-listen take an address of this machine, or 0.0.0.0 for all of them",
        }),
        ServerError::Tls(_) => {
            Some("--tls-cert is the PEM file of the certificate, --tls-key that of its key")
        }
        _ => None,
    };
    let failure = Failure::caused(kind, error);
    match fix {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}

fn collect_options(args: &Args) -> CollectOptions {
    let mut options = CollectOptions::default();
    options.untagged_after = args.untagged_after;
    options
}
