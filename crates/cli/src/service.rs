//! Service-managed keys: a vault with one AES key, for one store alone.
//!
//! Its passphrase is random and lies beside it, so it protects against nobody who holds both; the point is that it can
//! be destroyed at once when the store gets a customer's key. So it has no purge protection.

use std::fs;
use std::path::{Path, PathBuf};

use bulla::StoreUrl;
use bulla_kek::{Identity, KeyKind};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::context::Context;
use crate::durable;
use crate::exit::{Failure, Kind, Result};
use crate::known::VaultPlace;
use crate::vaults::{self, Key};

/// The name of the key in its vault.
const NAME: &str = "service";

/// Where the service vault of a store goes: where the user says, or beside the configuration for a folder.
pub(crate) fn folder(config: &Config, url: &StoreUrl, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = given {
        return std::path::absolute(dir).map_err(|error| Failure::file("find", dir, error));
    }
    if url.folder().is_none() {
        return Err(Failure::invalid(format!(
            "{url} is not a folder, so say where its key is to be: --kek KEY_ID for a key of your own, or \
             --service-vault DIR for a service-managed one in a folder that every node of the store can read"
        )));
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    // A name of its own each time: the key of a store that was there before is never written over.
    let name = url.folder().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let name: String = name
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(40)
        .collect();
    config.make()?;
    let vaults = config.service_vaults();
    durable::private_folder(&vaults).map_err(|error| Failure::file("make", &vaults, error))?;
    Ok(vaults.join(format!("{name}-{}", HEXLOWER.encode(&random))))
}

/// A vault that goes again unless it is [kept](Made::keep).
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) key: Key,
    removed: Option<VaultPlace>,
}

impl Made {
    pub(crate) fn keep(mut self) -> Key {
        self.removed = None;
        self.key.clone()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(place) = self.removed.take() {
            // The store was not made, so nothing hangs on the key.
            let _ = remove(&place);
        }
    }
}

/// Makes the vault in a new or empty folder, with a key that `identity` may use.
pub(crate) fn make(dir: &Path, identity: &Identity) -> Result<Made> {
    let passphrase_file = vaults::passphrase_file(dir);
    if passphrase_file.exists() || dir.join("vault.json").exists() {
        return Err(Failure::new(
            Kind::Conflict,
            format!("{} is a vault already; name a new folder with --service-vault", dir.display()),
        ));
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::file("make", parent, error))?;
    }
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    let mut text = Zeroizing::new(HEXLOWER.encode(&*random).into_bytes());
    durable::replace_private(&passphrase_file, &text)
        .map_err(|error| Failure::file("write", &passphrase_file, error))?;
    let options = CreateVault {
        purge_protection: false,
        passphrase: Passphrase::new(std::mem::take(&mut *text)),
        // 256 random bits can't be guessed, however cheap a guess is.
        cost: PassphraseCost::MINIMAL,
    };
    let undo = |error| {
        let _ = fs::remove_file(&passphrase_file);
        Failure::from(error)
    };
    let vault = Vault::create(dir, options).map_err(undo)?;
    let place = VaultPlace { dir: vault.dir().to_owned(), passphrase_file: Some(passphrase_file.clone()) };
    let id = vault.key_id(NAME, None)?;
    let removed = Some(place.clone());
    let made = Made { key: Key::of_vault(id, vault.clone(), place), removed };
    new_version(&vault)?;
    vault.set_policy(identity, &Permission::FOR_STORES)?;
    Ok(made)
}

/// A new version of the service's key.
pub(crate) fn new_version(vault: &Vault) -> Result<()> {
    vault.create_key(&CreateKey::new(NAME, KeyKind::Aes { bits: 256 }))?;
    Ok(())
}

/// Destroys the keys of a service vault, and the vault. Old copies of its folder still have them.
pub(crate) fn destroy(ctx: &Context, place: &VaultPlace) -> Result<()> {
    vaults::close(ctx, &place.dir);
    remove(place)
}

fn remove(place: &VaultPlace) -> Result<()> {
    // An interrupted removal leaves the passphrase for the next.
    if place.dir.join("vault.json").exists() {
        let vault = Vault::open(&place.dir, None)?;
        for key in vault.list_keys()?.into_iter().chain(vault.list_deleted_keys()?) {
            vault.destroy_key(&key.name)?;
        }
    }
    let gone = |path: &Path, result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path, error))
        }
        _ => Ok(()),
    };
    gone(&place.dir, fs::remove_dir_all(&place.dir))?;
    if let Some(file) = &place.passphrase_file {
        gone(file, fs::remove_file(file))?;
        durable::sync_folder(file).map_err(|error| Failure::file("sync", file, error))?;
    }
    Ok(())
}
