//! The vault passes what every provider passes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use bulla_envelope::crypto::CryptoProvider;
use bulla_kek::conformance::{self, Fixture, FixtureError, Hooked, TestKey};
use bulla_kek::{KekProvider, KeyKind, async_trait};
use bulla_vault::{AttributeChanges, CreateKey, Permission, Vault, VaultProvider};

use crate::support::{AES, RSA, Scratch, user};

struct VaultFixture {
    scratch: Scratch,
    /// The provider has the vault open; changes go through another handle, as another process would make them.
    manager: Vault,
    provider: Arc<VaultProvider>,
    kind: KeyKind,
    keys: AtomicU32,
}

impl VaultFixture {
    fn new(kind: KeyKind, crypto: &'static CryptoProvider) -> Self {
        let scratch = Scratch::new().with_policy();
        let manager = scratch.reopened().with_crypto(crypto);
        let provider = Arc::new(VaultProvider::new(scratch.vault.clone().with_crypto(crypto)));
        Self { scratch, manager, provider, kind, keys: AtomicU32::new(0) }
    }

    fn change(&self, key: &TestKey, changes: &AttributeChanges) -> Result<Hooked, FixtureError> {
        self.manager.set_attributes(key.key.name(), None, changes)?;
        Ok(Hooked::Done)
    }

    fn elsewhere(&self) -> PathBuf {
        self.scratch.folder.path().join("elsewhere")
    }
}

#[async_trait]
impl Fixture for VaultFixture {
    fn provider(&self) -> Arc<dyn KekProvider> {
        self.provider.clone()
    }

    async fn fresh_key(&self) -> Result<TestKey, FixtureError> {
        let name = format!("Key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        self.manager.create_key(&CreateKey::new(name.as_str(), self.kind.clone()))?;
        Ok(TestKey { key: self.manager.key_id(&name, None)?, identity: user() })
    }

    async fn new_version(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.create_key(&CreateKey::new(key.key.name(), self.kind.clone()))?;
        Ok(Hooked::Done)
    }

    async fn disable(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.set_enabled(key.key.name(), None, false)?;
        Ok(Hooked::Done)
    }

    async fn enable(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.set_enabled(key.key.name(), None, true)?;
        Ok(Hooked::Done)
    }

    async fn delete(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.delete_key(key.key.name())?;
        Ok(Hooked::Done)
    }

    async fn recover(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.recover_key(key.key.name())?;
        Ok(Hooked::Done)
    }

    async fn remove_access(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.delete_policy(&key.identity)?;
        Ok(Hooked::Done)
    }

    async fn grant_access(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.manager.set_policy(&key.identity, &Permission::FOR_STORES)?;
        Ok(Hooked::Done)
    }

    async fn expire(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        let past = SystemTime::now() - Duration::from_secs(3600);
        self.change(key, &AttributeChanges { expires: Some(Some(past)), ..Default::default() })
    }

    async fn postpone(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        let future = SystemTime::now() + Duration::from_secs(3600);
        self.change(key, &AttributeChanges { not_before: Some(Some(future)), ..Default::default() })
    }

    async fn cut_off(&self) -> Result<Hooked, FixtureError> {
        fs::rename(self.manager.dir(), self.elsewhere())?;
        Ok(Hooked::Done)
    }

    async fn reconnect(&self) -> Result<Hooked, FixtureError> {
        fs::rename(self.elsewhere(), self.manager.dir())?;
        Ok(Hooked::Done)
    }
}

async fn conforms(kind: KeyKind, crypto: &'static CryptoProvider) {
    let report =
        conformance::run(&VaultFixture::new(kind, crypto)).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(report.skipped.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rsa_keys() {
    conforms(RSA, CryptoProvider::best()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rsa_keys_in_pure_rust() {
    conforms(RSA, CryptoProvider::rust_crypto()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn aes_keys() {
    conforms(AES, CryptoProvider::best()).await;
}
