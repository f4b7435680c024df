//! Keys and their vaults: from what a user types to a key id, and from what is remembered to providers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bulla_kek::{KekProvider, KeyId, KeyUri, Providers, Scheme};
use bulla_vault::{Vault, VaultErrorKind, VaultProvider};

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::key_vault;
use crate::known::{KnownStore, VaultPlace};
use crate::passphrase::{self, Purpose};
use crate::tokens;

/// A key that a user named, and who holds it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) provider: Arc<dyn KekProvider>,
    /// The local vault it is in, by id. Of other vaults nothing is remembered: their keys' ids say where they are.
    pub(crate) local: Option<(String, VaultPlace)>,
}

impl Key {
    /// A key of a local vault.
    pub(crate) fn of_vault(id: KeyId, vault: Vault, place: VaultPlace) -> Self {
        let local = Some((vault.id().to_owned(), place));
        Self { id, provider: Arc::new(VaultProvider::new(vault)), local }
    }

    /// The key's provider alone.
    pub(crate) fn providers(&self) -> Providers {
        self.beside(Providers::new())
    }

    /// The key's provider beside others.
    pub(crate) fn beside(&self, others: Providers) -> Providers {
        others.with(Arc::clone(&self.provider))
    }

    /// The vaults to remember with a store under this key.
    pub(crate) fn vaults(&self) -> BTreeMap<String, VaultPlace> {
        self.local.iter().cloned().collect()
    }

    /// The token to remember with a store under this key.
    pub(crate) fn token(&self) -> Option<String> {
        (self.id.scheme() == Scheme::Pkcs11).then(|| self.id.host().to_owned())
    }

    /// Where the key is, if Bulla made it for one store alone.
    pub(crate) fn service_place(&self) -> Option<&VaultPlace> {
        self.local.as_ref().map(|(_, place)| place).filter(|place| place.is_service())
    }
}

/// The key that a user typed.
pub(crate) async fn key(ctx: &Context, text: &str) -> Result<Key> {
    let uri: KeyUri = text.parse()?;
    let (place, name, version) = match uri {
        KeyUri::VaultFolder { dir, name, version } => (place(&dir), name, version),
        KeyUri::Portable(id) if id.scheme() == Scheme::Vault => {
            let place = remembered(ctx, &id)?;
            (place, id.name().to_owned(), id.version().map(str::to_owned))
        }
        KeyUri::Portable(id) if id.scheme() == Scheme::KeyVault => {
            let provider = key_vault::provider_of(ctx, &id)?;
            return Ok(Key { id, provider, local: None });
        }
        KeyUri::Portable(id) if id.scheme() == Scheme::Pkcs11 => {
            let provider = tokens::provider(ctx, id.host()).await?;
            return Ok(Key { id, provider, local: None });
        }
        _ => return Err(Failure::invalid("this build does not know such key ids")),
    };
    let vault = open(ctx, &place).await?;
    let id = vault.key_id(&name, version.as_deref())?;
    let place = VaultPlace { dir: vault.dir().to_owned(), ..place };
    Ok(Key::of_vault(id, vault, place))
}

/// The vault, open with its passphrase.
pub(crate) async fn open(ctx: &Context, place: &VaultPlace) -> Result<Vault> {
    let cached = |ctx: &Context| {
        let vaults = ctx.vaults.lock().unwrap_or_else(PoisonError::into_inner);
        vaults.get(&place.dir).cloned()
    };
    if let Some(vault) = cached(ctx) {
        return Ok(vault);
    }
    // Before asking anybody for a passphrase.
    Vault::open(&place.dir, None)?;
    let passphrase = match &place.passphrase_file {
        Some(path) => passphrase::from_file(path)?,
        None => passphrase::of_vault(ctx, &place.dir, Purpose::Open).await?,
    };
    let vault = Vault::open(&place.dir, Some(passphrase))?;
    let checked = vault.clone();
    tokio::task::spawn_blocking(move || checked.check_passphrase())
        .await
        .map_err(|error| Failure::new(Kind::Internal, "the vault failed").with_source(error))?
        .map_err(|error| match error.kind() {
            VaultErrorKind::WrongPassphrase => Failure::invalid(format!(
                "the passphrase is not that of the vault in {}; see BULLA_VAULT_PASSPHRASE and \
                 BULLA_VAULT_PASSPHRASE_FILE",
                place.dir.display()
            ))
            .with_source(error),
            _ => error.into(),
        })?;
    let mut vaults = ctx.vaults.lock().unwrap_or_else(PoisonError::into_inner);
    vaults.insert(place.dir.clone(), vault.clone());
    Ok(vault)
}

/// Forgets an opened vault.
pub(crate) fn close(ctx: &Context, dir: &Path) {
    ctx.vaults.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
}

/// The providers of a store that this machine knows: its local vaults and tokens, the key vaults that the environment allows, and
/// nothing that the bucket could name.
pub(crate) async fn providers(ctx: &Context, known: &KnownStore) -> Result<Providers> {
    let mut providers = Providers::new();
    if let Some(key_vault) = key_vault::provider(ctx) {
        providers = providers.with(key_vault);
    }
    for (id, place) in &known.vaults {
        providers = providers.with(Arc::new(VaultProvider::new(of_store(ctx, id, place).await?)));
    }
    for token in &known.tokens {
        providers = providers.with(tokens::provider(ctx, token).await?);
    }
    Ok(providers)
}

/// A vault that this machine remembers with a store.
pub(crate) async fn of_store(ctx: &Context, id: &str, place: &VaultPlace) -> Result<Vault> {
    let vault = open(ctx, place).await.map_err(|failure| match failure.kind {
        // The store is there; what is missing is the way to its key.
        Kind::NotFound => Failure::new(Kind::Unavailable, format!("the store's vault is missing: {failure}"))
            .with_fix("mount or restore its folder, or `bulla attach` the store with --kek and the vault's new place"),
        _ => failure,
    })?;
    if vault.id() != id {
        return Err(Failure::invalid(format!(
            "another vault than the store's is in {} now; `bulla attach` the store with --kek and the right place",
            place.dir.display()
        )));
    }
    Ok(vault)
}

/// The vault in this folder. One that Bulla made for a store alone has its passphrase in a file beside it.
fn place(dir: &Path) -> VaultPlace {
    let passphrase_file = passphrase_file(dir);
    let passphrase_file = passphrase_file.is_file().then_some(passphrase_file);
    VaultPlace { dir: dir.to_owned(), passphrase_file }
}

/// Where the passphrase of a service vault is: beside it, so that a copy of the folder alone opens nothing.
pub(crate) fn passphrase_file(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".passphrase");
    name.into()
}

/// `vault:ID/keys/K` says which vault, not where it is: this machine must have met it.
fn remembered(ctx: &Context, id: &KeyId) -> Result<VaultPlace> {
    let stores = ctx.config.stores()?;
    let place = stores.values().find_map(|known| known.vaults.get(id.host()));
    place.cloned().ok_or_else(|| {
        Failure::invalid(format!(
            "this machine does not know where the vault {} is; write vault+file:///DIR/keys/{}",
            id.host(),
            id.name()
        ))
    })
}
