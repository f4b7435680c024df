//! `bulla vault key`: keys, their versions and attributes.

use std::path::PathBuf;
use std::time::SystemTime;

use bulla_kek::KeyKind;
use bulla_vault::{AttributeChanges, CreateKey, Vault};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use super::{blocking, print};
use crate::context::Context;
use crate::exit::Result;
use crate::passphrase::{self, Purpose};

/// Make and manage keys
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault key create /srv/vault --name registry
  bulla vault key list /srv/vault
  bulla vault key disable /srv/vault --name registry --version 0123…
  bulla vault key delete /srv/vault --name registry && bulla vault key recover /srv/vault --name registry")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, or a new version of it; prints it as `az keyvault key create` does
    #[command(after_help = "\
Examples:
  bulla vault key create /srv/vault --name registry
  bulla vault key create /srv/vault --name registry --kty AES
  bulla vault key create /srv/vault --name registry --size 4096 --expires 2030-01-01")]
    Create(Create),
    /// List the keys, or with --name the versions of one
    #[command(
        after_help = "Examples:\n  bulla vault key list /srv/vault\n  bulla vault key list /srv/vault --name registry\n  bulla vault key list /srv/vault --deleted"
    )]
    List(List),
    /// Show a key
    #[command(after_help = "Examples:\n  bulla vault key show /srv/vault --name registry")]
    Show(Versioned),
    /// Let a version be used again
    #[command(after_help = "Examples:\n  bulla vault key enable /srv/vault --name registry")]
    Enable(Versioned),
    /// Let a version not be used: stores under it are revoked
    #[command(after_help = "Examples:\n  bulla vault key disable /srv/vault --name registry")]
    Disable(Versioned),
    /// Change a version's attributes
    #[command(after_help = "\
Examples:
  bulla vault key set-attributes /srv/vault --name registry --expires 2030-01-01T00:00:00Z
  bulla vault key set-attributes /srv/vault --name registry --expires none --enabled true")]
    SetAttributes(SetAttributes),
    /// Delete a key with all versions: stores under it are revoked until it is recovered
    #[command(after_help = "Examples:\n  bulla vault key delete /srv/vault --name registry")]
    Delete(Named),
    /// Bring a deleted key back
    #[command(after_help = "Examples:\n  bulla vault key recover /srv/vault --name registry")]
    Recover(Named),
    /// Destroy a deleted key for good, where purge protection is off
    #[command(after_help = "Examples:\n  bulla vault key purge /srv/vault --name registry")]
    Purge(Named),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The vault's folder
    dir: PathBuf,
    /// The key's name
    #[arg(long, value_name = "K")]
    name: String,
    /// Its type
    #[arg(long, value_name = "TYPE", default_value = "RSA", ignore_case = true)]
    kty: KeyType,
    /// Its size in bits: 2048, 3072 or 4096 for RSA (default 3072), 256 for AES
    #[arg(long, value_name = "BITS")]
    size: Option<u32>,
    #[command(flatten)]
    validity: Validity,
    /// What it may be used for
    #[arg(long, value_name = "OPERATION", num_args = 1.., value_delimiter = ',')]
    ops: Option<Vec<String>>,
    /// Make it disabled
    #[arg(long)]
    disabled: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyType {
    #[value(name = "RSA")]
    Rsa,
    #[value(name = "AES", alias = "oct")]
    Aes,
}

#[derive(Debug, clap::Args)]
struct Validity {
    /// Start of validity: a date, a time as of RFC 3339, or none
    #[arg(long, visible_alias = "nbf", value_name = "DATE", value_parser = date)]
    not_before: Option<Moment>,
    /// End of validity: a date, a time as of RFC 3339, or none
    #[arg(long, visible_alias = "exp", value_name = "DATE", value_parser = date)]
    expires: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Moment(Option<SystemTime>);

#[derive(Debug, clap::Args)]
struct List {
    /// The vault's folder
    dir: PathBuf,
    /// List this key's versions
    #[arg(long, value_name = "K")]
    name: Option<String>,
    /// List deleted keys
    #[arg(long, conflicts_with = "name")]
    deleted: bool,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The vault's folder
    dir: PathBuf,
    /// The key's name
    #[arg(long, value_name = "K")]
    name: String,
}

#[derive(Debug, clap::Args)]
struct Versioned {
    /// The vault's folder
    dir: PathBuf,
    /// The key's name
    #[arg(long, value_name = "K")]
    name: String,
    /// The version; without it the newest
    #[arg(long, value_name = "V")]
    version: Option<String>,
}

#[derive(Debug, clap::Args)]
struct SetAttributes {
    #[command(flatten)]
    key: Versioned,
    /// Whether it may be used
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
    #[command(flatten)]
    validity: Validity,
    /// What it may be used for
    #[arg(long, value_name = "OPERATION", num_args = 1.., value_delimiter = ',')]
    ops: Option<Vec<String>>,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<()> {
    match args.command {
        Command::Create(args) => create(ctx, args).await,
        Command::List(args) => {
            let vault = Vault::open(&args.dir, None)?;
            let items = match &args.name {
                Some(name) => vault.list_versions(name)?,
                None if args.deleted => vault.list_deleted_keys()?,
                None => vault.list_keys()?,
            };
            print(ctx, &items)
        }
        Command::Show(Versioned { dir, name, version }) => {
            print(ctx, &Vault::open(dir, None)?.show_key(&name, version.as_deref())?)
        }
        Command::Enable(args) => set_enabled(ctx, &args, true),
        Command::Disable(args) => set_enabled(ctx, &args, false),
        Command::SetAttributes(args) => set_attributes(ctx, args),
        Command::Delete(args) => print(ctx, &Vault::open(args.dir, None)?.delete_key(&args.name)?),
        Command::Recover(args) => print(ctx, &Vault::open(args.dir, None)?.recover_key(&args.name)?),
        Command::Purge(args) => {
            Vault::open(args.dir, None)?.purge_key(&args.name)?;
            print(ctx, &json!({ "purged": args.name }))
        }
    }
}

async fn create(ctx: &Context, args: Create) -> Result<()> {
    // There must be a vault before its passphrase is asked for.
    Vault::open(&args.dir, None)?;
    let passphrase = passphrase::of_vault(ctx, &args.dir, Purpose::Open).await?;
    let vault = Vault::open(&args.dir, Some(passphrase))?;
    let kind = match args.kty {
        KeyType::Rsa => KeyKind::Rsa { bits: args.size.unwrap_or(3072) },
        KeyType::Aes => KeyKind::Aes { bits: args.size.unwrap_or(256) },
    };
    let mut options = CreateKey::new(args.name, kind);
    options.enabled = !args.disabled;
    options.not_before = args.validity.not_before.and_then(|moment| moment.0);
    options.expires = args.validity.expires.and_then(|moment| moment.0);
    if let Some(ops) = args.ops {
        options.key_ops = ops;
    }
    let bundle = blocking(move || vault.create_key(&options)).await?;
    print(ctx, &bundle)
}

fn set_enabled(ctx: &Context, args: &Versioned, enabled: bool) -> Result<()> {
    let vault = Vault::open(&args.dir, None)?;
    print(ctx, &vault.set_enabled(&args.name, args.version.as_deref(), enabled)?)
}

fn set_attributes(ctx: &Context, args: SetAttributes) -> Result<()> {
    let vault = Vault::open(&args.key.dir, None)?;
    let changes = AttributeChanges {
        enabled: args.enabled,
        not_before: args.validity.not_before.map(|moment| moment.0),
        expires: args.validity.expires.map(|moment| moment.0),
        key_ops: args.ops,
        ..Default::default()
    };
    print(ctx, &vault.set_attributes(&args.key.name, args.key.version.as_deref(), &changes)?)
}

fn date(text: &str) -> Result<Moment, String> {
    if text == "none" {
        return Ok(Moment(None));
    }
    let timestamp: Timestamp = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp,
        // A day begins at midnight, UTC.
        Err(_) => text
            .parse::<Date>()
            .and_then(|date| date.to_zoned_datetime(TimeZone::UTC))
            .map(|zoned| zoned.timestamp())
            .map_err(|_| "write a date (2030-01-01), a time (2030-01-01T12:00:00Z), or none".to_owned())?,
    };
    let at = SystemTime::try_from(timestamp).map_err(|_| "this date is out of range".to_owned())?;
    Ok(Moment(Some(at)))
}
