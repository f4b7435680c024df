//! `bulla vault set-policy`, `delete-policy`: which identity may do what.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bulla_kek::Identity;
use bulla_vault::{Permission, Vault};
use serde_json::json;

use super::print;
use crate::context::Context;
use crate::exit::{Failure, Result};

/// Give an identity exactly these permissions, instead of those it had
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault set-policy /srv/vault --identity registry --key-permissions get wrapKey unwrapKey")]
pub(super) struct Set {
    /// The vault's folder
    dir: PathBuf,
    /// `system`, or an identity's id
    #[arg(long, value_name = "ID")]
    identity: Identity,
    /// A store needs get, wrapKey and unwrapKey
    #[arg(long, value_name = "PERMISSION", required = true, num_args = 1.., value_delimiter = ',')]
    key_permissions: Vec<Permission>,
}

/// Take all permissions from an identity: stores that use the vault as it are revoked
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault delete-policy /srv/vault --identity registry")]
pub(super) struct Delete {
    /// The vault's folder
    dir: PathBuf,
    /// `system`, or an identity's id
    #[arg(long, value_name = "ID")]
    identity: Identity,
}

pub(super) fn set(ctx: &Context, args: Set) -> Result<()> {
    let vault = Vault::open(&args.dir, None)?;
    vault.set_policy(&args.identity, &args.key_permissions)?;
    show(ctx, &vault)
}

pub(super) fn delete(ctx: &Context, args: Delete) -> Result<()> {
    let vault = Vault::open(&args.dir, None)?;
    if !vault.delete_policy(&args.identity)? {
        let known: Vec<String> = vault.policies()?.into_keys().collect();
        return Err(Failure::not_found(format!(
            "{} has no policy in this vault; those that have: {}",
            args.identity,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )));
    }
    show(ctx, &vault)
}

/// All policies as they are now.
fn show(ctx: &Context, vault: &Vault) -> Result<()> {
    let policies: BTreeMap<String, Vec<Permission>> = vault.policies()?;
    let policies: Vec<_> = policies
        .into_iter()
        .map(|(identity, keys)| json!({ "identity": identity, "permissions": { "keys": keys } }))
        .collect();
    print(ctx, &json!({ "accessPolicies": policies }))
}
