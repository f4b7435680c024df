//! `bulla vault network-rule`: from where the vault's server may be asked.

use std::net::IpAddr;
use std::path::PathBuf;

use bulla_vault::{Bypass, NetworkAction, NetworkRules, Vault};
use clap::ValueEnum;
use ipnet::IpNet;
use serde_json::json;

use super::print;
use crate::context::Context;
use crate::exit::Result;

/// Show the firewall of the vault's server, or change it; takes effect at the next request
///
/// Commands and stores that use the folder itself cross no network and are not held by it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault network-rule /srv/vault
  bulla vault network-rule /srv/vault --default-action deny --allow 10.0.0.0/8 192.0.2.7
  bulla vault network-rule /srv/vault --add 198.51.100.7
  bulla vault network-rule /srv/vault --default-action deny --bypass none
  bulla vault network-rule /srv/vault --clear")]
pub(super) struct Args {
    /// The vault's folder
    dir: PathBuf,
    /// What happens to requests that no rule names
    #[arg(long, value_name = "ACTION")]
    default_action: Option<Action>,
    /// Networks and addresses that may ask all the same, instead of those before
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = network, requires = "default_action")]
    allow: Vec<IpNet>,
    /// Who may ask from anywhere: system-assigned identities, or nobody
    #[arg(long, value_name = "WHO", default_value = "trusted-services", requires = "default_action")]
    bypass: Who,
    /// More networks and addresses that may ask; everything else stays
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = network, conflicts_with = "default_action")]
    add: Vec<IpNet>,
    /// Let every network ask
    #[arg(long, conflicts_with_all = ["default_action", "add"])]
    clear: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Who {
    TrustedServices,
    None,
}

pub(super) fn run(ctx: &Context, args: Args) -> Result<()> {
    let vault = Vault::open(&args.dir, None)?;
    if args.clear {
        vault.set_network_rules(None)?;
    }
    if let Some(action) = args.default_action {
        let action = match action {
            Action::Allow => NetworkAction::Allow,
            Action::Deny => NetworkAction::Deny,
        };
        let bypass = match args.bypass {
            Who::TrustedServices => Bypass::TrustedServices,
            Who::None => Bypass::None,
        };
        vault.set_network_rules(Some(NetworkRules::new(action, args.allow, bypass)))?;
    }
    if !args.add.is_empty() {
        let mut rules = vault.network_rules()?;
        // Adding twice is no mistake.
        rules.allow.retain(|known| !args.add.contains(known));
        rules.allow.extend(args.add);
        vault.set_network_rules(Some(rules))?;
    }
    print(ctx, &json!({ "networkRules": vault.network_rules()? }))
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .map(|network| network.trunc())
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "write a network (10.0.0.0/8, 2001:db8::/32) or an address".to_owned())
}
