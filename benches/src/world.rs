//! A store in memory or in a folder, under a key in a local vault: everything is real but, in memory, the disk.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulla::{Bucket, CreateOptions, Engine, Managed, Mode, Store, StoreUrl};
use bulla_kek::{
    Identity, KekError, KeyId, KeyKind, Observed, ObservedCall, Observer, Operation, Providers, TokioRuntime,
};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultProvider};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// One store and what it stands on.
#[derive(Debug)]
pub struct World {
    /// Drives everything asynchronous.
    pub tokio: Runtime,
    /// The bucket, without Bulla.
    pub objects: Arc<dyn ObjectStore>,
    /// The store in it.
    pub store: Store,
    /// How often the vault was asked something.
    pub calls: Arc<AtomicU64>,
    vault: Vault,
    /// Where the vault is.
    _dir: TempDir,
}

impl World {
    /// A new store in memory.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Place::Memory, Duration::from_secs(60))
    }

    /// A new store with this revocation bound.
    #[must_use]
    pub fn with(place: Place, bound: Duration) -> Self {
        let tokio =
            Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a thread can start");
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let vault = vault(&dir.path().join("vault"));
        let (objects, bucket) = place.empty(&dir.path().join("store"));
        let calls = Arc::default();
        let provider = Arc::new(VaultProvider::new(vault.clone()));
        let provider = Observed::new(provider, Counting(Arc::clone(&calls)));
        let store = tokio.block_on(create(&vault, provider, bucket, bound));
        Self { tokio, objects, store, calls, vault, _dir: dir }
    }

    /// One of the vault's keys: `bench`, under which the store is, and `other`.
    #[must_use]
    pub fn key(&self, name: &str) -> KeyId {
        self.vault.key_id(name, None).expect("that is a key's name")
    }

    /// Empties the bucket but for the store's log.
    pub fn clear(&self) {
        self.tokio.block_on(async {
            for prefix in ["data", "blobs", "raw"] {
                let keys =
                    self.objects.list(Some(&Path::from(prefix))).map_ok(|object| object.location).boxed();
                self.objects
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

/// Where a store is.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_enums, reason = "benches choose one")]
pub enum Place {
    /// In memory.
    Memory,
    /// In a folder.
    Folder,
}

impl Place {
    /// The bucket without Bulla, and as Bulla has it.
    fn empty(self, folder: &FsPath) -> (Arc<dyn ObjectStore>, Bucket) {
        match self {
            Self::Memory => {
                let memory = Arc::new(InMemory::new());
                let bucket = Bucket::from_object_store(memory.clone(), "").expect("an empty prefix is one");
                (memory, bucket)
            }
            Self::Folder => {
                let url = StoreUrl::parse(&folder.display().to_string()).expect("a path is a store's name");
                let bucket = url.connect(true).expect("a folder can be made");
                let files = LocalFileSystem::new_with_prefix(folder).expect("it was made");
                (Arc::new(files.with_fsync(true)), bucket)
            }
        }
    }
}

fn vault(dir: &FsPath) -> Vault {
    let cost = PassphraseCost::MINIMAL;
    let vault = CreateVault { purge_protection: true, passphrase: Passphrase::new("bench"), cost };
    let vault = Vault::create(dir, vault).expect("an empty folder takes a vault");
    vault.set_policy(&Identity::System, &Permission::FOR_STORES).expect("a policy can be set");
    for name in ["bench", "other"] {
        vault.create_key(&CreateKey::new(name, KeyKind::Aes { bits: 256 })).expect("a key can be made");
    }
    vault
}

async fn create(vault: &Vault, provider: Observed<Counting>, bucket: Bucket, bound: Duration) -> Store {
    let key = vault.key_id("bench", None).expect("that is a key's name");
    let engine = Engine::builder()
        .providers(Providers::new().with(Arc::new(provider)))
        .runtime(Arc::new(TokioRuntime))
        .build();
    let options = CreateOptions {
        mode: Mode::Hierarchical,
        key,
        identity: Identity::System,
        managed: Managed::Customer,
        revocation_bound: bound,
        allow_unprotected_key: false,
        second: None,
    };
    engine.create(bucket, options).await.expect("an empty bucket takes a store")
}

/// How often a provider was asked.
#[derive(Debug)]
struct Counting(Arc<AtomicU64>);

impl Observer for Counting {
    type Call = Counted;

    fn asked(&self, _: Operation, _: &KeyId, _: &Identity) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

struct Counted;

impl ObservedCall for Counted {
    fn answered(&mut self, _: Result<&KeyId, &KekError>) {}
}

/// `len` bytes that no other call with another `number` gives, so that no two blobs are equal.
#[must_use]
pub fn unique(len: usize, number: u64) -> Bytes {
    let mut bytes = vec![0x5a; len];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}
