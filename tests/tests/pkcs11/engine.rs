//! The engine over real tokens: rotation from and to them, and a token that is pulled out under traffic.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla::kek::{Identity, KekProvider, KeyId, KeyKind, Providers, TokioRuntime};
use bulla::{
    CreateOptions, Digest, Engine, ErrorKind, Managed, Mode, PutOptions, RotateOptions, Store, StoreUrl,
};
use bulla_kek_pkcs11::{PinSource, Pkcs11Options, Pkcs11Provider, UserPin};
use bulla_vault::{CreateKey, CreateVault, Passphrase, PassphraseCost, Permission, Vault, VaultProvider};
use tempfile::TempDir;

use crate::token::{Kind, LABEL, PIN, Token, on_token};

fn provider(token: &Token) -> Arc<dyn KekProvider> {
    let pin = PinSource::value(UserPin::new(PIN.into()));
    let mut options = Pkcs11Options::new(&token.module, LABEL, pin);
    options.allow_oaep_sha1 = token.kind == Kind::SoftHsm;
    Arc::new(Pkcs11Provider::new(options, Arc::new(TokioRuntime)))
}

fn on(name: &str) -> KeyId {
    KeyId::pkcs11(LABEL, name, None).unwrap()
}

fn vault(folder: &Path) -> Vault {
    let cost = PassphraseCost::MINIMAL;
    let options = CreateVault { cost, ..CreateVault::new(Passphrase::new("p")) };
    let vault = Vault::create(folder.join("vault"), options).unwrap();
    vault.set_policy(&Identity::System, &Permission::FOR_STORES).unwrap();
    vault.create_key(&CreateKey::new("rsa", KeyKind::Rsa { bits: 2048 })).unwrap();
    vault.create_key(&CreateKey::new("aes", KeyKind::Aes { bits: 256 })).unwrap();
    vault
}

async fn create(engine: &Engine, folder: &Path, key: KeyId, bound: Duration) -> Store {
    let options = CreateOptions {
        key,
        identity: Identity::System,
        managed: Managed::Customer,
        mode: Mode::Hierarchical,
        revocation_bound: bound,
        allow_unprotected_key: true,
        second: None,
    };
    let url = StoreUrl::parse(&folder.join("store").display().to_string()).unwrap();
    engine.create(url.connect(true).unwrap(), options).await.unwrap()
}

async fn reads(store: &Store, digest: &Digest) -> bulla::Result<()> {
    store.get(digest).await?.bytes().await.map(drop)
}

/// From each of the keys to each of the others: every direction between the holders that are here. A holder that is added
/// adds its keys.
fn rotates_in_every_direction(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("aes aes 01");
        token.manage("rsa rsa 01");
        let folder = TempDir::new().unwrap();
        let vault = vault(folder.path());
        let keys =
            [vault.key_id("rsa", None).unwrap(), vault.key_id("aes", None).unwrap(), on("aes"), on("rsa")];
        let providers = Providers::new().with(Arc::new(VaultProvider::new(vault))).with(provider(&token));
        let engine = Engine::builder().providers(providers).build();
        let store = create(&engine, folder.path(), keys[0].clone(), Duration::from_secs(60)).await;
        let put = store.put_bytes(vec![7; 100_000], PutOptions::default()).await.unwrap();

        for from in &keys {
            for to in &keys {
                for key in [from, to] {
                    let key = key.clone();
                    let options = RotateOptions {
                        key: Some(key.clone()),
                        allow_unprotected_key: true,
                        ..RotateOptions::default()
                    };
                    store.rotate(options).await.unwrap();
                    let status = store.status().await.unwrap();
                    assert_eq!(status.keks.len(), 1, "{:?}", status.keks);
                    assert!(status.keks[0].0.same_key(&key), "{:?} is not {key}", status.keks);
                    reads(&store, &put.digest).await.unwrap();
                }
            }
        }
        // A new version on the token is one more rotation.
        token.manage("aes aes 02");
        for _ in 0..2 {
            let options = RotateOptions {
                key: Some(on("aes")),
                allow_unprotected_key: true,
                ..RotateOptions::default()
            };
            store.rotate(options).await.unwrap();
        }
        assert_eq!(store.status().await.unwrap().keks[0].0.version(), Some("02"));
        // The token alone holds it now: what was before can be destroyed.
        token.manage("destroy aes 01");
        token.manage("destroy rsa 01");
        reads(&store, &put.digest).await.unwrap();
        store.close().await;
    });
}

#[test]
fn softhsm_rotates_in_every_direction() {
    rotates_in_every_direction("engine::softhsm_rotates_in_every_direction", Kind::SoftHsm);
}

#[test]
fn kryoptic_rotates_in_every_direction() {
    rotates_in_every_direction("engine::kryoptic_rotates_in_every_direction", Kind::Kryoptic);
}

/// A token that is pulled out is an outage: nothing is seen of it while the lease lasts, then the store is unavailable
/// (never revoked), and it heals when the token is back.
fn pulled_out(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        const BOUND: Duration = Duration::from_secs(4);
        token.manage("aes k 01");
        let folder = TempDir::new().unwrap();
        let engine = Engine::builder().providers(Providers::new().with(provider(&token))).build();
        let store = create(&engine, folder.path(), on("k"), BOUND).await;
        let put = store.put_bytes(vec![7; 100_000], PutOptions::default()).await.unwrap();

        token.remove();
        let removed = Instant::now();
        let error = loop {
            match reads(&store, &put.digest).await {
                Ok(()) => {
                    assert!(removed.elapsed() < BOUND + Duration::from_secs(2), "the lease does not end")
                }
                Err(error) => break error,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        // The last renewal before it was at most R/2 old.
        assert!(removed.elapsed() >= BOUND / 2 - Duration::from_millis(500), "{:?}", removed.elapsed());

        token.insert();
        while reads(&store, &put.digest).await.is_err() {
            assert!(removed.elapsed() < BOUND * 10, "it does not heal");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A key that is destroyed is no outage.
        token.manage("destroy k 01");
        let error = loop {
            if let Err(error) = reads(&store, &put.digest).await {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(error.kind(), ErrorKind::Revoked, "{error}");
        store.close().await;
    });
}

#[test]
fn softhsm_a_token_pulled_out_is_an_outage_and_a_destroyed_key_is_not() {
    pulled_out("engine::softhsm_a_token_pulled_out_is_an_outage_and_a_destroyed_key_is_not", Kind::SoftHsm);
}

#[test]
fn kryoptic_a_token_pulled_out_is_an_outage_and_a_destroyed_key_is_not() {
    pulled_out("engine::kryoptic_a_token_pulled_out_is_an_outage_and_a_destroyed_key_is_not", Kind::Kryoptic);
}
