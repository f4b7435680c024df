//! A vault to try things on.

use bulla_kek::{Identity, KeyKind};
use bulla_vault::{
    CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultError, VaultErrorKind,
};
use tempfile::TempDir;

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

pub(crate) const RSA: KeyKind = KeyKind::Rsa { bits: 2048 };
pub(crate) const AES: KeyKind = KeyKind::Aes { bits: 256 };

pub(crate) struct Scratch {
    pub(crate) folder: TempDir,
    pub(crate) vault: Vault,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::with_purge_protection(false)
    }

    pub(crate) fn with_purge_protection(purge_protection: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let options =
            CreateVault { purge_protection, cost: PassphraseCost::MINIMAL, ..CreateVault::new(passphrase()) };
        let vault = Vault::create(folder.path().join("vault"), options).unwrap();
        Self { folder, vault }
    }

    /// The same vault as another process sees it: nothing is cached.
    pub(crate) fn reopened(&self) -> Vault {
        Vault::open(self.vault.dir(), Some(passphrase())).unwrap()
    }

    /// An AES key, because it is made at once.
    pub(crate) fn with_key(self, name: &str) -> Self {
        self.vault.create_key(&CreateKey::new(name, AES)).unwrap();
        self
    }

    pub(crate) fn with_policy(self) -> Self {
        self.vault.set_policy(&user(), &Permission::FOR_STORES).unwrap();
        self
    }
}

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new(PASSPHRASE)
}

pub(crate) fn user() -> Identity {
    Identity::User("store-1".into())
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, VaultError>) -> VaultErrorKind {
    result.unwrap_err().kind()
}
