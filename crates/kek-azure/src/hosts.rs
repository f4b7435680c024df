//! Which hosts may be asked.

use std::collections::BTreeSet;

use bulla_kek::{KekError, KeyId, Scheme};

/// Azure's hosts, and those that local configuration adds.
#[derive(Debug)]
pub(crate) struct Hosts {
    extra: BTreeSet<String>,
}

/// Why a host may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// A vault in one of Azure's domains: its challenges must be for that domain.
    Azure,
    /// Local configuration names it.
    Locally,
}

impl Hosts {
    /// Azure's, and `extra`, each `HOST` or `HOST:PORT`.
    pub(crate) fn new(extra: &[String]) -> Result<Self, KekError> {
        let canonical = |host: &String| {
            // A key id has the rules for hosts; any name does.
            KeyId::key_vault(host.trim(), "k", None).map(|key| key.host().to_owned()).map_err(|error| {
                KekError::invalid(format!("`{host}` is not a Key Vault host; write HOST or HOST:PORT"))
                    .with_source(error)
            })
        };
        Ok(Self { extra: extra.iter().map(canonical).collect::<Result<_, _>>()? })
    }

    /// Whether and why the key's host may be asked.
    pub(crate) fn allow(&self, key: &KeyId) -> Option<Allowed> {
        if key.scheme() != Scheme::KeyVault {
            return None;
        }
        if self.extra.contains(key.host()) {
            return Some(Allowed::Locally);
        }
        key.azure_vault().map(|_| Allowed::Azure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &Hosts, host: &str) -> Option<Allowed> {
        hosts.allow(&KeyId::key_vault(host, "k", None).unwrap())
    }

    #[test]
    fn vaults_of_all_clouds_and_nothing_that_looks_like_them() {
        let hosts = Hosts::new(&[]).unwrap();
        for domain in KeyId::AZURE_DOMAINS {
            assert_eq!(allowed(&hosts, &format!("Contoso.{domain}")), Some(Allowed::Azure));
            assert_eq!(allowed(&hosts, &format!("contoso.{domain}:443")), Some(Allowed::Azure));
            assert_eq!(allowed(&hosts, &format!("contoso.{domain}:8443")), None);
            assert_eq!(allowed(&hosts, &format!("a.b.{domain}")), None);
            assert_eq!(allowed(&hosts, domain), None);
            assert_eq!(allowed(&hosts, &format!("contoso-{domain}")), None);
            assert_eq!(allowed(&hosts, &format!("contoso.{domain}.evil.example")), None);
        }
        for host in ["localhost", "127.0.0.1", "169.254.169.254", "evil.example", "vaultXazure.net"] {
            assert_eq!(allowed(&hosts, host), None, "{host}");
        }
    }

    #[test]
    fn local_configuration_adds_hosts_with_exactly_their_port() {
        let hosts = Hosts::new(&[" LocalHost:8443".into(), "[::1]:443".into()]).unwrap();
        assert_eq!(allowed(&hosts, "localhost:8443"), Some(Allowed::Locally));
        assert_eq!(allowed(&hosts, "[::1]"), Some(Allowed::Locally));
        assert_eq!(allowed(&hosts, "localhost"), None);
        assert_eq!(allowed(&hosts, "localhost:8444"), None);
    }

    #[test]
    fn keys_elsewhere_are_not_key_vaults() {
        let hosts = Hosts::new(&[]).unwrap();
        assert_eq!(hosts.allow(&KeyId::pkcs11("contoso.vault.azure.net", "k", None).unwrap()), None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "https://localhost", "local host", "localhost:0", "me@localhost"] {
            let refused = Hosts::new(&[host.to_owned()]).unwrap_err();
            assert!(refused.to_string().contains("HOST:PORT"), "{host}");
        }
    }
}
