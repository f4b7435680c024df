//! What only who has the vault's folder can see: whether an identity may more than it needs, and which old versions still
//! work.

use bulla_kek::Scheme;
use bulla_vault::{Permission, Vault};

use super::report::Report;
use super::subject::Subject;
use crate::exit::{Failure, Result};
use crate::vaults;

pub(super) async fn check(report: &mut Report<'_>, key: &Subject) -> Result<()> {
    let Some(place) = &key.place else {
        if key.id.scheme() == Scheme::KeyVault {
            report.skipped(
                "surplus",
                format!(
                    "only the vault's owner sees what else {} may do, and which old versions are enabled (`az keyvault show`, \
                     `az keyvault key list-versions`)",
                    key.identity
                ),
            )?;
        }
        return Ok(());
    };
    // It failed before, and was told.
    let Ok(vault) = vaults::open(report.ctx, place).await else { return Ok(()) };
    surplus(report, key, &vault)?;
    versions(report, key, &vault)
}

fn surplus(report: &mut Report<'_>, key: &Subject, vault: &Vault) -> Result<()> {
    const CHECK: &str = "surplus";
    let identity = key.identity.as_str();
    let policies = match vault.policies() {
        Ok(policies) => policies,
        Err(error) => return report.failed(CHECK, &Failure::from(error)),
    };
    let granted = policies.get(identity).map(Vec::as_slice).unwrap_or_default();
    let more: Vec<&str> = granted
        .iter()
        .filter(|permission| !Permission::FOR_STORES.contains(permission))
        .map(|permission| permission.as_str())
        .collect();
    if more.is_empty() {
        return Ok(());
    }
    report.warning(
        CHECK,
        format!("{identity} may more than a store needs: {}", more.join(", ")),
        format!(
            "`bulla vault set-policy {} --identity {identity} --key-permissions get wrapKey unwrapKey`",
            vault.dir().display()
        ),
    )
}

/// Versions from before the one in use: after a rotation they open old copies of the bucket, and nothing that is needed.
fn versions(report: &mut Report<'_>, key: &Subject, vault: &Vault) -> Result<()> {
    const CHECK: &str = "versions";
    if key.in_use.is_empty() {
        return Ok(());
    }
    let versions = match vault.list_versions(key.id.name()) {
        Ok(versions) => versions,
        // Deleted, or gone: the key's own check has said so.
        Err(_) => return Ok(()),
    };
    let needed = |version: &str| {
        key.in_use.iter().any(|kek| kek.host() == vault.id() && kek.version() == Some(version))
    };
    let before = versions.iter().take_while(|item| !item.version.as_deref().is_some_and(needed));
    let enabled: Vec<&str> =
        before.filter(|item| item.attributes.enabled).filter_map(|item| item.version.as_deref()).collect();
    let Some(oldest) = enabled.first() else { return Ok(()) };
    report.warning(
        CHECK,
        format!(
            "{} earlier version(s) of the key are still enabled; they open old copies of the bucket",
            enabled.len()
        ),
        format!(
            "`bulla vault key disable {} --name {} --version {oldest}`, if no other store needs it",
            vault.dir().display(),
            key.id.name()
        ),
    )
}
