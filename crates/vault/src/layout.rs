//! What is where in the vault's folder, and the lock around changes.

use std::path::{Path, PathBuf};

use crate::error::{VaultError, VaultErrorKind};
use crate::files::{self, Lock};
use crate::stored::{self, KeyFile, VaultFile};
use crate::vault::Vault;

pub(crate) const VAULT_FILE: &str = "vault.json";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const KEYS: &str = "keys";
const KEY_FILE: &str = "key.json";
const SEALED: &str = "sealed";

impl Vault {
    /// `vault.json` as it is now.
    pub(crate) fn vault_file(&self) -> Result<VaultFile, VaultError> {
        let path = self.dir().join(VAULT_FILE);
        let Some(bytes) = files::read(&path)? else {
            let what = format!("the vault in {} is gone", self.dir().display());
            return Err(VaultError::new(VaultErrorKind::NotFound, what));
        };
        let file: VaultFile = stored::from_json(&path, &bytes)?;
        if file.id != self.id() {
            let what = format!("another vault is in {} now", self.dir().display());
            return Err(VaultError::new(VaultErrorKind::NotFound, what));
        }
        Ok(file)
    }

    pub(crate) fn write_vault_file(&self, file: &VaultFile) -> Result<(), VaultError> {
        files::write(&self.dir().join(VAULT_FILE), &stored::to_json(file), self.runtime.random())
    }

    /// A key's file as it is now; `None` if there is no such key.
    pub(crate) fn key_file(&self, name: &str) -> Result<Option<KeyFile>, VaultError> {
        let path = self.key_folder(name).join(KEY_FILE);
        match files::read(&path)? {
            Some(bytes) => stored::from_json(&path, &bytes).map(Some),
            // That the key is missing means something only where keys are.
            None if self.dir().join(KEYS).is_dir() => Ok(None),
            None => Err(VaultError::damaged(self.dir(), "the folder of its keys is missing")),
        }
    }

    pub(crate) fn write_key_file(&self, file: &KeyFile) -> Result<(), VaultError> {
        let path = self.key_folder(&file.name).join(KEY_FILE);
        files::write(&path, &stored::to_json(file), self.runtime.random())
    }

    /// The names of all keys' folders.
    pub(crate) fn key_folders(&self) -> Result<Vec<String>, VaultError> {
        let keys = self.dir().join(KEYS);
        let mut names = files::names(&keys)?;
        names.retain(|name| keys.join(name).is_dir());
        Ok(names)
    }

    /// Names are the same in any case, as in Key Vault (and on some file systems).
    pub(crate) fn key_folder(&self, name: &str) -> PathBuf {
        self.dir().join(KEYS).join(name.to_ascii_lowercase())
    }

    /// Where a version's private half is.
    pub(crate) fn sealed_path(&self, name: &str, version: &str) -> PathBuf {
        self.key_folder(name).join(format!("{version}.{SEALED}"))
    }

    /// Removes all that is left of a key, private halves first.
    pub(crate) fn remove_key(&self, file: &KeyFile) -> Result<(), VaultError> {
        let folder = self.key_folder(&file.name);
        for name in files::names(&folder)? {
            if name != KEY_FILE {
                files::shred(&folder.join(name))?;
            }
        }
        files::sync_folder(&folder)?;
        files::remove(&folder.join(KEY_FILE))?;
        files::remove(&folder)?;
        files::sync_folder(&self.dir().join(KEYS))
    }

    /// Takes the lock that every change holds, and clears what interrupted changes left.
    pub(crate) fn lock(&self) -> Result<Lock, VaultError> {
        // Before the lock, whose file would be made: not in a folder that is no vault any more.
        self.vault_file()?;
        let lock = Lock::acquire(&self.dir().join(LOCK_FILE))?;
        clear_temporary(self.dir())?;
        for name in self.key_folders()? {
            let folder = self.key_folder(&name);
            clear_temporary(&folder)?;
            // One damaged key must not keep others, or access, from being taken away.
            let Ok(file) = self.key_file(&name) else { continue };
            // A key's file is written last: without it, or not named in it, a private half belongs to nothing.
            for sealed in files::names(&folder)? {
                let Some(version) = sealed.strip_suffix(SEALED).and_then(|rest| rest.strip_suffix('.'))
                else {
                    continue;
                };
                if file.as_ref().is_none_or(|file| file.version(Some(version)).is_none()) {
                    files::shred(&folder.join(&sealed))?;
                }
            }
            if file.is_none() && files::names(&folder)?.is_empty() {
                files::remove(&folder)?;
            }
        }
        Ok(lock)
    }
}

fn clear_temporary(folder: &Path) -> Result<(), VaultError> {
    for name in files::names(folder)?.iter().filter(|name| name.starts_with(files::TEMP_PREFIX)) {
        files::shred(&folder.join(name))?;
    }
    Ok(())
}
