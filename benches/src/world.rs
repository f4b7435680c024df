//! A store over a bucket in memory: everything is real but the disk and the key service.

use std::sync::Arc;
use std::time::Duration;

use bulla::{Bucket, CreateOptions, Engine, Managed, Store};
use bulla_kek::{Identity, Providers, TokioRuntime};
use bulla_testkit::provider::{SimProvider, key_id};
use bulla_testkit::runtime::SimRuntime;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore as _;
use object_store::memory::InMemory;
use object_store::path::Path;
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
}

impl World {
    /// A new store.
    #[must_use]
    pub fn new() -> Self {
        let tokio =
            Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a thread can start");
        let memory = Arc::new(InMemory::new());
        let store = tokio.block_on(create(Arc::clone(&memory)));
        Self { tokio, memory, store }
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

async fn create(memory: Arc<InMemory>) -> Store {
    let keys = SimProvider::new(&SimRuntime::new(tokio::time::Instant::now(), 1), "bench");
    let engine = Engine::builder()
        .providers(Providers::new().with(Arc::new(keys)))
        .runtime(Arc::new(TokioRuntime))
        .build();
    let options = CreateOptions {
        key: key_id("bench"),
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
