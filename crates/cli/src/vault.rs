//! `bulla vault`: the local vault, embedded or served.

mod key;
mod network;
mod policy;
mod serve;
mod token;

use std::path::PathBuf;

use bulla_vault::{CreateVault, Vault};
use clap::Subcommand;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::passphrase::{self, Purpose};

/// Make and manage a local vault: keys in a folder, with Key Vault's manners
///
/// Its passphrase comes from BULLA_VAULT_PASSPHRASE, BULLA_VAULT_PASSPHRASE_FILE or a prompt. Output is JSON as of `az`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault create /srv/vault
  bulla vault key create /srv/vault --name registry
  bulla vault set-policy /srv/vault --identity registry --key-permissions get wrapKey unwrapKey
  bulla init ./store --kek vault+file:///srv/vault/keys/registry --identity registry
  bulla vault serve /srv/vault                          # as Azure Key Vault's REST API")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    Key(key::Args),
    SetPolicy(policy::Set),
    DeletePolicy(policy::Delete),
    Serve(serve::Args),
    Token(token::Args),
    NetworkRule(network::Args),
}

/// Make a vault; soft delete is always on, purge protection unless turned off
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault create /srv/vault
  BULLA_VAULT_PASSPHRASE_FILE=/run/secrets/vault bulla vault create /srv/vault
  bulla vault create ./scratch --no-purge-protection   # stores need --allow-unprotected-key for it")]
struct Create {
    /// A new or empty folder
    dir: PathBuf,
    /// Let deleted keys be purged: one mistake can then destroy every blob
    #[arg(long)]
    no_purge_protection: bool,
}

impl Args {
    /// Whether it runs until it is told to stop, and so has things to say in between.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    match args.command {
        // Ends by itself when interrupted.
        Command::Serve(args) => serve::run(ctx, args).await,
        command => tokio::select! {
            biased;
            interrupted = ctx.interrupt.wait() => Err(interrupted),
            done = droppable(ctx, command) => done,
        },
    }
}

async fn droppable(ctx: &Context, command: Command) -> Result<()> {
    match command {
        Command::Create(args) => create(ctx, args).await,
        Command::Key(args) => key::run(ctx, args).await,
        Command::SetPolicy(args) => policy::set(ctx, args),
        Command::DeletePolicy(args) => policy::delete(ctx, args),
        Command::Token(args) => token::run(ctx, args).await,
        Command::NetworkRule(args) => network::run(ctx, args),
        Command::Serve(_) => Err(Failure::new(Kind::Internal, "this command is not droppable")),
    }
}

async fn create(ctx: &Context, args: Create) -> Result<()> {
    if args.dir.join("vault.json").exists() {
        let dir = args.dir.display();
        return Err(Failure::new(Kind::Conflict, format!("{dir} is a vault already; choose another folder")));
    }
    let passphrase = passphrase::of_vault(ctx, &args.dir, Purpose::Create).await?;
    let mut options = CreateVault::new(passphrase);
    options.purge_protection = !args.no_purge_protection;
    let vault = blocking(move || Vault::create(&args.dir, options)).await?;
    print(ctx, &vault.info()?)
}

/// The passphrase's stretching and RSA keys take their time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, bulla_vault::VaultError> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Kind::Internal, "the vault failed").with_source(error))?
        .map_err(Failure::from)
}

fn print(ctx: &Context, value: &impl Serialize) -> Result<()> {
    let value = serde_json::to_value(value)
        .map_err(|error| Failure::new(Kind::Internal, "this can't be JSON").with_source(error))?;
    if ctx.json {
        ctx.out.json(&value)?;
    } else {
        ctx.out.pretty_json(&value)?;
    }
    Ok(())
}
