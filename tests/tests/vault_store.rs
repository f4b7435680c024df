//! A store in a folder under a real RSA key in the local vault, and a forger who has the bucket and the public key.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use bulla::kek::{Identity, KeyKind, Providers, SystemRandom, WrapAlgorithm};
use bulla::{
    Anchor, CreateOptions, Engine, ErrorKind, Managed, Mode, OpenOptions, PutOptions, RotateOptions, Store,
    StoreUrl, Trust,
};
use bulla_envelope::crypto::{CryptoProvider, RsaPublicKey};
use bulla_envelope::record::{UnverifiedRecord, object_hash};
use bulla_envelope::secret::{Root, StoreKey};
use bulla_testkit::runtime::SimRuntime;
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultProvider};
use tempfile::TempDir;

const R: Duration = Duration::from_secs(60);

struct World {
    folder: TempDir,
    vault: Vault,
    engine: Engine,
    store: Store,
}

fn open_vault(folder: &TempDir) -> Vault {
    Vault::open(folder.path().join("vault"), Some(Passphrase::new("p"))).unwrap()
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let cost = PassphraseCost::MINIMAL;
        let options = CreateVault { cost, ..CreateVault::new(Passphrase::new("p")) };
        let vault = Vault::create(folder.path().join("vault"), options).unwrap();
        vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
        vault.set_policy(&Identity::System, &Permission::FOR_STORES).unwrap();
        let runtime = Arc::new(SimRuntime::new(tokio::time::Instant::now(), 1));
        let provider = Arc::new(VaultProvider::new(open_vault(&folder).with_runtime(runtime.clone())));
        let engine = Engine::builder().providers(Providers::new().with(provider)).runtime(runtime).build();
        let options = CreateOptions {
            mode: Mode::Hierarchical,
            key: vault.key_id("k", None).unwrap(),
            identity: Identity::System,
            managed: Managed::Customer,
            revocation_bound: R,
            allow_unprotected_key: false,
            second: None,
        };
        let bucket = StoreUrl::parse(&Self::url(&folder)).unwrap().connect(true).unwrap();
        let store = engine.create(bucket, options).await.unwrap();
        Self { folder, vault, engine, store }
    }

    fn url(folder: &TempDir) -> String {
        folder.path().join("store").display().to_string()
    }

    fn record(&self, number: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("store/store/{number:08}.cbor"))
    }

    async fn open(&self, anchor: Option<Anchor>) -> bulla::Result<Store> {
        let bucket = StoreUrl::parse(&Self::url(&self.folder)).unwrap().connect(false).unwrap();
        let trust = anchor.map_or(Trust::OnFirstUse, Trust::Anchor);
        self.engine.open(bucket, OpenOptions { trust, floor: None }).await
    }

    async fn read(&self, digest: &bulla::Digest) -> bulla::Result<bytes::Bytes> {
        self.store.get(digest).await?.bytes().await
    }
}

/// Everything but the root is known to the forger: the record's shape, the key's name, and the public key.
fn forge(object: &[u8], public: &RsaPublicKey) -> Vec<u8> {
    let mut record = UnverifiedRecord::decode(object).unwrap().hint().clone();
    let root = Root::random(&SystemRandom);
    let store_key = StoreKey::random(&SystemRandom);
    record.store_keys[0].value = root.store_key_wrapping_key().wrap_key(store_key.expose());
    let wrap = &mut record.roots[0].groups[0][0];
    assert_eq!(wrap.alg, WrapAlgorithm::RsaOaep256.as_str());
    wrap.value = CryptoProvider::best().rsa.wrap(public, root.expose(), &SystemRandom).unwrap();
    record.sign(&root.record_key()).unwrap().into_object()
}

#[tokio::test(start_paused = true)]
async fn a_log_forged_with_the_public_key_is_refused() {
    let world = World::new().await;
    let key = world.vault.show_key("k", None).unwrap().key;
    let part = |text: &Option<String>| {
        data_encoding::BASE64URL_NOPAD.decode(text.as_deref().unwrap().as_bytes()).unwrap()
    };
    let public = RsaPublicKey::new(&part(&key.n), &part(&key.e)).unwrap();
    let genuine = std::fs::read(world.record(1)).unwrap();
    let forged = forge(&genuine, &public);
    std::fs::write(world.record(1), &forged).unwrap();

    let error = world.open(Some(world.store.anchor())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("anchor"), "{error}");
    // Who pins nothing believes it: this is what the anchor is for.
    assert_ne!(world.open(None).await.unwrap().anchor(), world.store.anchor());

    // As the next record of a running node it is refused too, in whatever place.
    std::fs::write(world.record(1), &genuine).unwrap();
    let mut next = UnverifiedRecord::decode(&forged).unwrap().hint().clone();
    next.number = 2;
    next.history.push(object_hash(&genuine));
    let root = Root::random(&SystemRandom);
    let next = next.sign(&root.record_key()).unwrap().into_object();
    std::fs::write(world.record(2), next).unwrap();
    assert_eq!(world.store.status().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn revoked_by_policy_by_disabling_and_by_deleting_and_restored_each_time() {
    let world = World::new().await;
    let put = world.store.put_bytes(vec![7; 100_000], PutOptions::default()).await.unwrap();
    type Step = fn(&Vault);
    let ways: [(Step, Step); 3] = [
        (
            |vault| assert!(vault.delete_policy(&Identity::System).unwrap()),
            |vault| vault.set_policy(&Identity::System, &Permission::FOR_STORES).unwrap(),
        ),
        (
            |vault| drop(vault.set_enabled("k", None, false).unwrap()),
            |vault| drop(vault.set_enabled("k", None, true).unwrap()),
        ),
        (|vault| drop(vault.delete_key("k").unwrap()), |vault| drop(vault.recover_key("k").unwrap())),
    ];
    for (revoke, restore) in ways {
        revoke(&world.vault);
        tokio::time::sleep(R).await;
        assert_eq!(world.read(&put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
        let error = world.store.put_bytes(vec![8; 10], PutOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Revoked);
        restore(&world.vault);
        tokio::time::sleep(R).await;
        assert_eq!(world.read(&put.digest).await.unwrap(), vec![7; 100_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn to_a_new_version_another_kind_of_key_and_another_identity() {
    let world = World::new().await;
    let put = world.store.put_bytes(vec![7; 100_000], PutOptions::default()).await.unwrap();
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    assert!(world.store.rotate(RotateOptions::default()).await.unwrap().changed);
    world.vault.create_key(&CreateKey::new("aes", KeyKind::Aes { bits: 256 })).unwrap();
    let other = Identity::User("registry".into());
    let options = RotateOptions {
        key: Some(world.vault.key_id("aes", None).unwrap()),
        identity: Some(other.clone()),
        ..RotateOptions::default()
    };
    // The new identity has no access yet: refused, with the command that gives it, and nothing is lost.
    let error = world.store.rotate(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Revoked);
    assert!(
        error.to_string().contains("--identity registry --key-permissions get wrapKey unwrapKey"),
        "{error}"
    );
    world.vault.set_policy(&other, &Permission::FOR_STORES).unwrap();
    assert!(world.store.rotate(options).await.unwrap().changed);
    world.vault.delete_policy(&Identity::System).unwrap();
    world.vault.delete_key("k").unwrap();
    let fresh = world.open(Some(world.store.anchor())).await.unwrap();
    assert_eq!(fresh.get(&put.digest).await.unwrap().bytes().await.unwrap(), vec![7; 100_000]);
    let status = fresh.status().await.unwrap();
    assert_eq!((status.identity.as_str(), status.keks.len()), ("registry", 1));
    assert!(status.versioned_key.starts_with("vault+file://"), "{}", status.versioned_key);
}
