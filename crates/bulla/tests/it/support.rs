//! One bucket, one key service, virtual time, and as many nodes as a test wants.

use std::sync::Arc;
use std::time::Duration;

use bulla::kek::{Identity, KekProvider, Providers, Runtime};
use bulla::{
    Bucket, CreateOptions, Digest, Engine, Managed, Mode, OpenOptions, PartyKey, PutOptions, PutResult,
    RotateOptions, Rotation, Store, Trust,
};
use bulla_envelope::ids::StoreKeyId;
use bulla_envelope::record::{
    LogRecord, StoreKeyEntry, StoreKeyState, UnverifiedRecord, log_key, object_hash,
};
use bulla_envelope::secret::{Root, StoreKey};
use bulla_testkit::bucket::SimBucket;
use bulla_testkit::provider::{SimProvider, key_id};
use bulla_testkit::runtime::{SeededRandom, SimRuntime};
use bulla_testkit::scripted::{Op, ScriptedStore, broken_connection};
use bulla_testkit::store::SimStore;
use bulla_testkit::trace::Trace;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// R in these tests.
pub(crate) const R: Duration = Duration::from_secs(60);

/// The gc grace in these tests.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) raw: Arc<dyn ObjectStore>,
    pub(crate) script: ScriptedStore,
    pub(crate) provider: SimProvider,
    pub(crate) runtime: SimRuntime,
    pub(crate) store: Store,
}

impl World {
    /// A new store and the node that made it.
    pub(crate) async fn new() -> Self {
        Self::made(Arc::new(InMemory::new()), |_| {}).await
    }

    /// The same over a bucket of any kind.
    pub(crate) async fn over(raw: Arc<dyn ObjectStore>) -> Self {
        Self::made(raw, |_| {}).await
    }

    /// The same, made in another way.
    pub(crate) async fn with(change: impl FnOnce(&mut CreateOptions)) -> Self {
        Self::made(Arc::new(InMemory::new()), change).await
    }

    /// A store of two parties, whose keys are `k` and `c`.
    pub(crate) async fn of_two_parties() -> Self {
        Self::with(|options| options.second = Some(second("c"))).await
    }

    async fn made(raw: Arc<dyn ObjectStore>, change: impl FnOnce(&mut CreateOptions)) -> Self {
        let runtime = SimRuntime::new(tokio::time::Instant::now(), 1);
        let script = ScriptedStore::new(raw.clone());
        let provider = SimProvider::new(&runtime, "k");
        // The other party's key, where there is one.
        provider.new_version("c");
        let engine = engine(&runtime, &provider);
        let mut options = create_options();
        change(&mut options);
        let store = engine.create(bucket(&script), options).await.unwrap();
        script.take_requests();
        Self { raw, script, provider, runtime, store }
    }

    /// Another node over the same bucket, with a clock of its own.
    pub(crate) async fn node(&self, seed: u64) -> (Store, SimRuntime, ScriptedStore) {
        let runtime = SimRuntime::new(tokio::time::Instant::now(), seed);
        let script = ScriptedStore::new(self.raw.clone());
        let engine = engine(&runtime, &self.provider);
        let options = OpenOptions { trust: Trust::Anchor(self.store.anchor()), floor: None };
        let store = engine.open(bucket(&script), options).await.unwrap();
        script.take_requests();
        (store, runtime, script)
    }

    /// Opens the bucket anew, as a fresh process does.
    pub(crate) async fn reopen(&self, options: OpenOptions) -> bulla::Result<Store> {
        engine(&self.runtime, &self.provider).open(bucket(&self.script), options).await
    }

    pub(crate) fn pinned(&self) -> OpenOptions {
        OpenOptions { trust: Trust::Anchor(self.store.anchor()), floor: Some(self.store.mark()) }
    }

    pub(crate) async fn put(&self, data: &[u8]) -> PutResult {
        put(&self.store, data).await
    }

    pub(crate) async fn rotate_to(&self, name: &str) -> bulla::Result<Rotation> {
        self.store.rotate(RotateOptions { key: Some(key_id(name)), ..RotateOptions::default() }).await
    }

    /// The keys of all objects below `prefix`, sorted.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        use futures::TryStreamExt;
        let all: Vec<_> = self.raw.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
        let mut keys: Vec<String> = all.into_iter().map(|meta| meta.location.to_string()).collect();
        keys.sort();
        keys
    }

    /// The only object below `prefix`.
    pub(crate) async fn only(&self, prefix: &str) -> String {
        let keys = self.keys(prefix).await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }

    pub(crate) async fn read(&self, key: &str) -> Vec<u8> {
        self.raw.get(&Path::from(key)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn write(&self, key: &str, bytes: impl Into<Bytes>) {
        self.raw.put(&Path::from(key), bytes.into().into()).await.unwrap();
    }

    pub(crate) async fn remove(&self, key: &str) {
        self.raw.delete(&Path::from(key)).await.unwrap();
    }

    /// How many requests of a kind there were for keys that contain `part`, since the last call.
    pub(crate) fn count(&self, op: Op, part: &str) -> usize {
        count(&self.script.take_requests(), op, part)
    }
}

/// A world whose bucket has the virtual clock, and what is behind its connections.
pub(crate) async fn clocked_world() -> (World, SimBucket) {
    let start = tokio::time::Instant::now();
    let objects = SimBucket::new(start, true);
    let trace = Trace::new(start, false);
    let line = SimRuntime::named("line", start, 99);
    let random = Arc::new(SeededRandom::new(99));
    let world = World::over(Arc::new(SimStore::new(&objects, &line, &random, &trace))).await;
    (world, objects)
}

/// The keys of all objects that begin with `prefix`.
pub(crate) fn object_keys(objects: &SimBucket, prefix: &str) -> Vec<String> {
    objects.objects().into_iter().map(|(key, _)| key).filter(|key| key.starts_with(prefix)).collect()
}

pub(crate) fn stored(objects: &SimBucket, key: &str) -> Bytes {
    objects.objects().into_iter().find(|(found, _)| found == key).unwrap().1
}

/// The log record that a rewrap begins with: a new active store key, the old one in `state`.
pub(crate) async fn replace_store_key(world: &World, state: StoreKeyState) -> (String, Vec<u8>) {
    next_record(world, |record, root| {
        let random = world.runtime.random();
        for old in &mut record.store_keys {
            old.state = state;
        }
        record.store_keys.push(StoreKeyEntry {
            id: StoreKeyId::random(random),
            state: StoreKeyState::Active,
            root: record.roots[0].id,
            value: root.store_key_wrapping_key().wrap_key(StoreKey::random(random).expose()),
            since: record.written,
        });
    })
    .await
}

/// The store's root, as only who may use the KEK has it.
pub(crate) async fn root(world: &World) -> Root {
    let newest = world.keys("store").await.pop().unwrap();
    let record = UnverifiedRecord::decode(&world.read(&newest).await).unwrap().hint().clone();
    let wrap = &record.roots[0].groups[0][0];
    let (key, alg) = (wrap.kid.parse().unwrap(), wrap.alg.parse().unwrap());
    let share = world.provider.unwrap_key(&key, &Identity::System, alg, &wrap.value).await.unwrap();
    Root::join(&[share]).unwrap()
}

/// The next log record, changed by who has the root, and where it goes.
pub(crate) async fn next_record(
    world: &World,
    change: impl FnOnce(&mut LogRecord, &Root),
) -> (String, Vec<u8>) {
    let newest = world.keys("store").await.pop().unwrap();
    let object = world.read(&newest).await;
    let mut record = UnverifiedRecord::decode(&object).unwrap().hint().clone();
    let root = root(world).await;
    record.number += 1;
    record.history.push(object_hash(&object));
    change(&mut record, &root);
    (log_key(record.number), record.sign(&root.record_key()).unwrap().into_object())
}

/// The next rotation gets its first record in, and not its second.
pub(crate) fn fail_the_second_record(world: &World) {
    for attempt in 0..5 {
        world.script.before_nth(
            Op::Create,
            "store/",
            usize::from(attempt == 0),
            || Some(broken_connection()),
        );
    }
}

pub(crate) fn count(requests: &[(Op, String)], op: Op, part: &str) -> usize {
    requests.iter().filter(|(kind, key)| *kind == op && key.contains(part)).count()
}

pub(crate) fn engine(runtime: &SimRuntime, provider: &SimProvider) -> Engine {
    Engine::builder()
        .providers(Providers::new().with(Arc::new(provider.clone())))
        .runtime(Arc::new(runtime.clone()))
        .gc_grace(GRACE)
        .build()
}

pub(crate) fn bucket(script: &ScriptedStore) -> Bucket {
    Bucket::from_object_store(Arc::new(script.clone()), "").unwrap()
}

pub(crate) fn create_options() -> CreateOptions {
    CreateOptions {
        mode: Mode::Hierarchical,
        key: key_id("k"),
        identity: Identity::System,
        managed: Managed::Customer,
        revocation_bound: R,
        allow_unprotected_key: false,
        second: None,
    }
}

pub(crate) fn second(name: &str) -> PartyKey {
    PartyKey { key: key_id(name), identity: Identity::System }
}

pub(crate) async fn put(store: &Store, data: &[u8]) -> PutResult {
    store.put_bytes(data.to_vec(), PutOptions::default()).await.unwrap()
}

pub(crate) async fn get(store: &Store, digest: &Digest) -> bulla::Result<Bytes> {
    store.get(digest).await?.bytes().await
}

/// Bytes that repeat late.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + i / 251 + i / 65_537) % 256).unwrap()).collect()
}

/// Two extents.
pub(crate) fn large() -> Vec<u8> {
    data((4 << 20) + 100_000)
}

/// Lets virtual time pass in small steps, so that every timer fires at its time.
pub(crate) async fn pass(duration: Duration) {
    let until = tokio::time::Instant::now() + duration;
    tokio::time::sleep_until(until).await;
}
