//! The vault's firewall: from which networks its REST server may be asked.
//!
//! The embedded vault ([`VaultProvider`](crate::VaultProvider)) crosses no network and does not look at these rules.

use std::net::IpAddr;

use bulla_kek::Identity;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::VaultError;
use crate::vault::Vault;

/// Key Vault's `networkAcls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NetworkRules {
    /// What happens to those whom no rule names.
    pub default_action: NetworkAction,
    /// Networks that may ask.
    pub allow: Vec<IpNet>,
    /// Who may ask from anywhere.
    pub bypass: Bypass,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum NetworkAction {
    /// It is answered.
    Allow,
    /// It is refused.
    Deny,
}

/// Who is not held by the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Bypass {
    /// System-assigned identities: a registry that is a trusted service asks as its own.
    TrustedServices,
    /// Nobody.
    None,
}

impl Default for NetworkRules {
    /// Every network.
    fn default() -> Self {
        Self { default_action: NetworkAction::Allow, allow: Vec::new(), bypass: Bypass::TrustedServices }
    }
}

impl NetworkRules {
    /// These rules.
    pub fn new(default_action: NetworkAction, allow: Vec<IpNet>, bypass: Bypass) -> Self {
        Self { default_action, allow, bypass }
    }

    /// Whether this identity may ask from this address.
    pub fn permit(&self, peer: IpAddr, identity: &Identity) -> bool {
        // A socket for both families shows IPv4 peers as `::ffff:a.b.c.d`.
        let peer = peer.to_canonical();
        self.default_action == NetworkAction::Allow
            || self.allow.iter().any(|network| network.contains(&peer))
            || (self.bypass == Bypass::TrustedServices && *identity == Identity::System)
    }
}

impl Vault {
    /// The rules as they are now.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read: unknown, so nobody may ask.
    pub fn network_rules(&self) -> Result<NetworkRules, VaultError> {
        Ok(self.vault_file()?.network_rules.unwrap_or_default())
    }

    /// Replaces the rules; `None` lets every network ask. Takes effect at the next request.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if the vault can't be read or written.
    pub fn set_network_rules(&self, rules: Option<NetworkRules>) -> Result<(), VaultError> {
        let _lock = self.lock()?;
        let mut file = self.vault_file()?;
        file.network_rules = rules;
        self.write_vault_file(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_from_where() {
        let user = Identity::User("registry".into());
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut rules = NetworkRules::default();
        assert!(rules.permit(at("192.0.2.1"), &user));

        rules.default_action = NetworkAction::Deny;
        rules.allow = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        assert!(rules.permit(at("10.1.2.3"), &user));
        assert!(rules.permit(at("::ffff:10.1.2.3"), &user));
        assert!(rules.permit(at("2001:db8::1"), &user));
        assert!(!rules.permit(at("11.0.0.1"), &user));
        assert!(!rules.permit(at("::1"), &user));
        assert!(rules.permit(at("11.0.0.1"), &Identity::System), "a trusted service");

        rules.bypass = Bypass::None;
        assert!(!rules.permit(at("11.0.0.1"), &Identity::System));
    }
}
