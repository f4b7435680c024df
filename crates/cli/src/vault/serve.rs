//! `bulla vault serve`: the vault behind Key Vault's REST API.

use std::net::SocketAddr;
use std::path::PathBuf;

use bulla_kek::Identity;
use bulla_vault::Vault;
use bulla_vault_server::{
    Api, ApiOptions, IdentityOptions, Server, ServerError, ServerErrorKind, ServerOptions, Throttle,
    TlsSource,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::blocking;
use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::passphrase::{self, Purpose};

/// Serve the vault as Azure Key Vault's REST API, for its SDKs and for stores on other machines
///
/// Clients trust the certificate that is printed, and bring a token: of `bulla vault token`, or one that their
/// credentials get from the identity endpoint. Ctrl-C or SIGTERM stops it when what was asked is answered: exit code 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault serve /srv/vault
  bulla vault serve /srv/vault --listen 10.0.0.5:443 --hostname vault.internal
  bulla vault serve /srv/vault --tls-cert chain.pem --tls-key key.pem
  IDENTITY_HEADER=$(openssl rand -hex 32) bulla vault serve /srv/vault --identity-listen 127.0.0.1:8442
  bulla vault serve /srv/vault --throttle 2000/10s --retry-after

Environment:
  IDENTITY_HEADER  what clients of the identity endpoint must bring (default: made at random, and printed)")]
pub(super) struct Args {
    /// The vault's folder
    dir: PathBuf,
    /// Address and port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// PEM file of the certificate and those up to its root; without it a self-signed one is made and kept
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where the self-signed certificate is kept (default: DIR/tls)
    #[arg(long, value_name = "FOLDER", conflicts_with = "tls_cert")]
    tls_dir: Option<PathBuf>,
    /// More names for the self-signed certificate than localhost and the address
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', conflicts_with = "tls_cert")]
    hostname: Vec<String>,
    /// Give tokens to managed identities, on this loopback address (plain HTTP, as the SDKs ask for them)
    #[arg(long, value_name = "ADDRESS")]
    identity_listen: Option<SocketAddr>,
    /// Whom the token endpoints know: `system` and ids (default: everybody)
    #[arg(long, value_name = "ID", num_args = 1.., value_delimiter = ',')]
    identity: Vec<Identity>,
    /// Refuse more than so many requests per time, such as 2000/10s
    #[arg(long, value_name = "N/TIME")]
    throttle: Option<Throttle>,
    /// Say when to come back; Key Vault does not always
    #[arg(long, requires = "throttle")]
    retry_after: bool,
    /// One line of JSON per request (default: DIR/audit.jsonl)
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<()> {
    // There must be a vault before its passphrase is asked for.
    Vault::open(&args.dir, None)?;
    let passphrase = passphrase::of_vault(ctx, &args.dir, Purpose::Open).await?;
    let vault = Vault::open(&args.dir, Some(passphrase))?;
    let vault = blocking(move || vault.check_passphrase().map(|()| vault)).await?;
    if !args.listen.ip().is_loopback() {
        ctx.warn(format!(
            "{} can be reached by others: everybody may try tokens there, and a flood of requests keeps the owner's out; see \
             `bulla vault network-rule`",
            args.listen
        ));
    }
    let throttle = args.throttle.map(|mut throttle| {
        throttle.retry_after = args.retry_after;
        throttle
    });
    let options = ApiOptions {
        audit_log: args.audit_log,
        throttle,
        identities: (!args.identity.is_empty()).then(|| args.identity.into_iter().collect()),
        ..ApiOptions::default()
    };
    let tls = match (args.tls_cert, args.tls_key) {
        (Some(certificate), Some(key)) => TlsSource::Files { certificate, key },
        _ => TlsSource::SelfSigned { dir: args.tls_dir, names: args.hostname },
    };
    let identity = args.identity_listen.map(|listen| {
        let header = std::env::var("IDENTITY_HEADER").ok().filter(|header| !header.is_empty());
        IdentityOptions { listen, header: header.map(Zeroizing::new) }
    });
    let options_of_server = ServerOptions { listen: args.listen, tls, identity, ..ServerOptions::default() };
    let api = Api::new(vault, options).await.map_err(failure)?;
    let server = Server::bind(api, options_of_server).await.map_err(failure)?;
    announce(ctx, &server)?;
    let interrupted = async {
        // The normal end of a server.
        let _ = ctx.interrupt.wait().await;
    };
    server.serve(interrupted).await.map_err(failure)
}

/// Where everything is, at once: scripts wait for it.
fn announce(ctx: &Context, server: &Server) -> Result<()> {
    let (url, tenant) = (server.url(), server.api().tokens().tenant());
    let (certificate, audit) = (server.certificate().display(), server.api().audit_log().display());
    if ctx.json {
        let identity =
            server.identity().map(|identity| json!({ "endpoint": identity.url, "header": *identity.header }));
        ctx.out.json(&json!({
            "url": url,
            "certificate": certificate.to_string(),
            "tenant": tenant,
            "auditLog": audit.to_string(),
            "identity": identity,
        }))?;
    } else {
        let mut fields = vec![
            ("serving", url),
            ("certificate", certificate.to_string()),
            ("tenant", tenant.to_owned()),
            ("audit log", audit.to_string()),
        ];
        if let Some(identity) = server.identity() {
            fields.push(("identities", format!("IDENTITY_ENDPOINT={}", identity.url)));
            fields.push(("", format!("IDENTITY_HEADER={}", *identity.header)));
        }
        ctx.out.fields(&fields)?;
    }
    ctx.out.flush()?;
    Ok(())
}

fn failure(error: ServerError) -> Failure {
    let kind = match error.kind() {
        ServerErrorKind::Io => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    Failure::caused(kind, error)
}
