//! A registry over a store in a folder, whose key is in a local vault; served by as many nodes as a test wants.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulla::kek::{Identity, KeyKind, Providers};
use bulla::{Bucket, CreateOptions, Engine, Managed, Mode, OpenOptions, Store, StoreUrl, Trust};
use bulla_registry::access::{Access, Open};
use bulla_registry::{Registry, RegistryOptions, http};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultProvider};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::Client;

/// R where the key stays: a loaded machine has time to renew.
const R: Duration = Duration::from_secs(5);

/// R where it is withdrawn: short, so that this is noticed soon.
const SHORT: Duration = Duration::from_millis(400);

/// A store and its key's owner.
pub(crate) struct World {
    folder: TempDir,
    vault: Vault,
    identity: Identity,
    pub(crate) store: Store,
}

/// A server; it ends with this.
pub(crate) struct Node {
    pub(crate) client: Client,
    task: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_bound(R).await
    }

    /// One whose key is going to be withdrawn.
    pub(crate) async fn revocable() -> Self {
        Self::with_bound(SHORT).await
    }

    async fn with_bound(revocation_bound: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bucket = place(&folder).connect(true).unwrap();
        Self::make(folder, bucket, revocation_bound).await
    }

    /// One whose store is in this bucket.
    pub(crate) async fn over(bucket: Bucket) -> Self {
        Self::make(tempfile::tempdir().unwrap(), bucket, R).await
    }

    async fn make(folder: TempDir, bucket: Bucket, revocation_bound: Duration) -> Self {
        let create =
            CreateVault { cost: PassphraseCost::MINIMAL, ..CreateVault::new(Passphrase::new("open sesame")) };
        let vault = Vault::create(folder.path().join("vault"), create).unwrap();
        vault.create_key(&CreateKey::new("registry", KeyKind::Aes { bits: 256 })).unwrap();
        let identity = Identity::User("registry".to_owned());
        vault.set_policy(&identity, &Permission::FOR_STORES).unwrap();
        let options = CreateOptions {
            mode: Mode::Hierarchical,
            key: vault.key_id("registry", None).unwrap(),
            identity: identity.clone(),
            managed: Managed::Customer,
            revocation_bound,
            allow_unprotected_key: false,
            second: None,
        };
        let store = engine(&vault).create(bucket, options).await.unwrap();
        Self { folder, vault, identity, store }
    }

    /// Another process over the same folder.
    pub(crate) async fn open(&self) -> Store {
        self.open_at(place(&self.folder).connect(false).unwrap()).await
    }

    /// Another process over the bucket that it was made in.
    pub(crate) async fn open_at(&self, bucket: Bucket) -> Store {
        let options = OpenOptions { trust: Trust::Anchor(self.store.anchor()), floor: None };
        engine(&self.vault).open(bucket, options).await.unwrap()
    }

    pub(crate) fn bucket(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The owner takes the key away.
    pub(crate) fn revoke(&self) {
        self.vault.delete_policy(&self.identity).unwrap();
    }

    /// And gives it back.
    pub(crate) fn restore(&self) {
        self.vault.set_policy(&self.identity, &Permission::FOR_STORES).unwrap();
    }
}

impl Node {
    /// A world and its only node.
    pub(crate) async fn alone() -> (World, Self) {
        let world = World::new().await;
        let node = Self::start(&world).await;
        (world, node)
    }

    /// Another node of a world, with a store of its own.
    pub(crate) async fn start(world: &World) -> Self {
        Self::with(world.open().await, RegistryOptions::default(), Arc::new(Open)).await
    }

    /// Another node of a world, over the bucket that it was made in.
    pub(crate) async fn start_at(world: &World, bucket: Bucket) -> Self {
        Self::with(world.open_at(bucket).await, RegistryOptions::default(), Arc::new(Open)).await
    }

    pub(crate) async fn with(store: Store, options: RegistryOptions, access: Arc<dyn Access>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client(listener.local_addr().unwrap());
        let router = http::router(Registry::new(store, options), access);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { client, task }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn engine(vault: &Vault) -> Engine {
    let providers = Providers::new().with(Arc::new(VaultProvider::new(vault.clone())));
    Engine::builder().providers(providers).build()
}

fn place(folder: &TempDir) -> StoreUrl {
    StoreUrl::parse(&folder.path().join("store").display().to_string()).unwrap()
}
