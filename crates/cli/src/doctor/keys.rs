//! Which keys are to be looked at, and who holds them.

use std::sync::Arc;

use bulla::StoreUrl;
use bulla_kek::{Identity, KekError, KeyId, KeyUri, Providers, Scheme};
use bulla_vault::VaultProvider;

use super::Claims;
use super::report::Report;
use super::subject::Subject;
use crate::exit::{Kind, Result};
use crate::known::KnownStore;
use crate::{key_vault, tokens, vaults};

/// The providers of the store's keys that can be had: its local vaults, its tokens, key vaults.
pub(super) async fn providers(report: &mut Report<'_>, known: Option<&KnownStore>) -> Result<Providers> {
    const CHECK: &str = "provider";
    let ctx = report.ctx;
    let mut providers = Providers::new();
    if let Some(key_vault) = key_vault::provider(ctx) {
        providers = providers.with(key_vault);
    }
    for (id, place) in known.iter().flat_map(|known| &known.vaults) {
        match vaults::of_store(ctx, id, place).await {
            Ok(vault) => {
                report
                    .ok(CHECK, format!("the vault in {} opens with its passphrase", place.dir.display()))?;
                providers = providers.with(Arc::new(VaultProvider::new(vault)));
            }
            Err(failure) => report.failed(CHECK, &failure)?,
        }
    }
    for token in known.iter().flat_map(|known| &known.tokens) {
        match tokens::provider(ctx, token).await {
            Ok(provider) => providers = providers.with(provider),
            Err(failure) => report.failed(CHECK, &failure)?,
        }
    }
    Ok(providers)
}

/// The keys that the store's log names; where that can't be read, the one that is remembered.
pub(super) fn of_store(
    report: &mut Report<'_>,
    url: &StoreUrl,
    known: Option<&KnownStore>,
    claims: Claims<'_>,
    providers: &Providers,
) -> Result<Vec<Subject>> {
    // Who is asked is what this machine remembers, and nobody that only the bucket names.
    let Some(known) = known else {
        report
            .skipped("key", "which key the store is under is not known here; name one with --kek KEY_ID")?;
        return Ok(Vec::new());
    };
    let encryption = &known.encryption;
    let remembered: Option<KeyId> =
        encryption.versioned_key_identifier.parse().ok().and_then(|uri: KeyUri| match uri {
            KeyUri::Portable(id) => Some(id),
            KeyUri::VaultFolder { dir, name, version } => {
                let (vault, _) = known.vaults.iter().find(|(_, place)| place.dir == dir)?;
                KeyId::vault(vault, &name, version.as_deref()).ok()
            }
            _ => None,
        });
    let used: Vec<(KeyId, &str)> = match claims {
        Some(claims) => claims.keks.iter().map(|kek| (kek.key.clone(), kek.identity.as_str())).collect(),
        None => remembered.clone().map(|key| (key, encryption.identity.as_str())).into_iter().collect(),
    };
    let in_use: Vec<KeyId> = used.iter().map(|(key, _)| key.clone()).collect();
    let mut subjects = Vec::new();
    for (id, identity) in &used {
        let Ok(identity) = identity.parse::<Identity>() else {
            report.skipped("key", "the identity that the store uses its key as can't be read")?;
            continue;
        };
        match providers.provider_for(id) {
            Ok(provider) => subjects.push(Subject {
                uri: provider.display_uri(id),
                id: id.clone(),
                identity: identity.clone(),
                provider,
                place: known.vaults.get(id.host()).cloned(),
                planned: false,
                in_use: in_use.clone(),
                follows: encryption.key_rotation_enabled,
            }),
            Err(error) => {
                let is_remembered = remembered.as_ref().is_some_and(|key| key.host() == id.host());
                unreachable(report, url, id, is_remembered, &error)?;
            }
        }
    }
    Ok(subjects)
}

/// A key that nobody here may be asked about.
fn unreachable(
    report: &mut Report<'_>,
    url: &StoreUrl,
    id: &KeyId,
    is_remembered: bool,
    error: &KekError,
) -> Result<()> {
    const CHECK: &str = "provider";
    match (id.scheme(), is_remembered) {
        (Scheme::KeyVault, true) => match key_vault::provider_of(report.ctx, id) {
            Err(failure) => report.failed(CHECK, &failure),
            Ok(_) => report.problem(CHECK, Kind::Invalid, error.to_string(), "report this as a bug"),
        },
        // What is wrong with its vault or token was said before.
        (_, true) => report.skipped("key", format!("its holder can't be asked about {id}")),
        // Not the host by name: the bucket named it, and must not choose who is asked.
        (_, false) => report.problem(
            CHECK,
            Kind::Invalid,
            format!("{error}, which the store's log names"),
            format!(
                "ask who rotated the store whether that is its key; if so: `bulla attach {url} --kek KEY_ID --anchor A`, with \
                 its host in BULLA_KEYVAULT_HOSTS where it is no host of Azure's"
            ),
        ),
    }
}
