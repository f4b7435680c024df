//! `bulla vault token`: prove to the vault's server to be somebody.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bulla_kek::Identity;
use bulla_vault::Vault;
use bulla_vault_server::{Audience, Tokens};
use serde_json::json;

use super::blocking;
use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::output;
use crate::passphrase::{self, Purpose};

/// Longer than any session; what lasts for months is a password.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Print a bearer token for `bulla vault serve`: whoever has it is that identity until it expires
///
/// It can't be taken back, but what the identity may do is looked up at every request: see `bulla vault delete-policy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  curl --cacert /srv/vault/tls/cert.pem -H \"Authorization: Bearer $(bulla vault token /srv/vault --identity registry)\" \\
    'https://localhost:8443/keys?api-version=7.4'
  bulla vault token /srv/vault --identity registry --ttl 8h
  bulla vault token /srv/vault --identity registry --exchange > token   # for AZURE_FEDERATED_TOKEN_FILE")]
pub(super) struct Args {
    /// The vault's folder
    dir: PathBuf,
    /// `system`, or an identity's id
    #[arg(long, value_name = "ID")]
    identity: Identity,
    /// For how long, at most 30 days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// A workload's federated token: good only to get others with
    #[arg(long)]
    exchange: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<()> {
    if args.ttl > MAX_TTL || args.ttl.as_secs() == 0 {
        return Err(Failure::invalid("a token lasts from a second to 30 days; change --ttl"));
    }
    // There must be a vault before its passphrase is asked for.
    Vault::open(&args.dir, None)?;
    let passphrase = passphrase::of_vault(ctx, &args.dir, Purpose::Open).await?;
    let vault = Vault::open(&args.dir, Some(passphrase))?;
    let tokens = blocking(move || Tokens::new(&vault)).await?;
    let audience = if args.exchange { Audience::TokenExchange } else { Audience::Vault };
    let expires = SystemTime::now() + args.ttl;
    let token = tokens.issue(&args.identity, &audience, args.ttl);
    if ctx.json {
        let identity = args.identity.as_str();
        ctx.out.json(&json!({ "token": *token, "identity": identity, "expires": output::time(expires) }))?;
    } else {
        ctx.out.line(&*token)?;
    }
    Ok(())
}
