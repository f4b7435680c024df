//! A store over a bucket in memory, under a key in a local vault: everything is real but the disk.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bulla::{Bucket, CreateOptions, Engine, Managed, Mode, Store};
use bulla_kek::{Identity, KeyKind, Providers, TokioRuntime};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultProvider};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// One store and what it stands on.
#[derive(Debug)]
pub struct World {
    /// Drives everything asynchronous.
    pub tokio: Runtime,
    /// The bucket.
    pub memory: Arc<InMemory>,
    /// The store in it.
    pub store: Store,
    /// Where the vault is.
    _vault: TempDir,
}

impl World {
    /// A new store.
    #[must_use]
    pub fn new() -> Self {
        let tokio =
            Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a thread can start");
        let memory = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let store = tokio.block_on(create(dir.path(), Arc::clone(&memory)));
        Self { tokio, memory, store, _vault: dir }
    }

    /// Empties the bucket but for the store's log.
    pub fn clear(&self) {
        self.tokio.block_on(async {
            for prefix in ["data", "blobs", "raw"] {
                let keys =
                    self.memory.list(Some(&Path::from(prefix))).map_ok(|object| object.location).boxed();
                self.memory
                    .delete_stream(keys)
                    .try_for_each(|_| async { Ok(()) })
                    .await
                    .expect("memory deletes");
            }
        });
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

async fn create(dir: &FsPath, memory: Arc<InMemory>) -> Store {
    let cost = PassphraseCost::MINIMAL;
    let vault = CreateVault { purge_protection: true, passphrase: Passphrase::new("bench"), cost };
    let vault = Vault::create(dir, vault).expect("an empty folder takes a vault");
    vault.set_policy(&Identity::System, &Permission::FOR_STORES).expect("a policy can be set");
    vault.create_key(&CreateKey::new("bench", KeyKind::Aes { bits: 256 })).expect("a key can be made");
    let key = vault.key_id("bench", None).expect("that is a key's name");
    let engine = Engine::builder()
        .providers(Providers::new().with(Arc::new(VaultProvider::new(vault))))
        .runtime(Arc::new(TokioRuntime))
        .build();
    let options = CreateOptions {
        mode: Mode::Hierarchical,
        key,
        identity: Identity::System,
        managed: Managed::Customer,
        revocation_bound: Duration::from_secs(60),
        allow_unprotected_key: false,
    };
    let bucket = Bucket::from_object_store(memory, "").expect("an empty prefix is one");
    engine.create(bucket, options).await.expect("an empty bucket takes a store")
}

/// `len` bytes that no other call with another `number` gives, so that no two blobs are equal.
#[must_use]
pub fn unique(len: usize, number: u64) -> Bytes {
    let mut bytes = vec![0x5a; len];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}
