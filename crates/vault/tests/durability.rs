//! What an interrupted change leaves is neither seen nor kept; what is damaged is told and not guessed at.

use std::fs;

use bulla_kek::{KekErrorKind, KekProvider};
use bulla_vault::{CreateVault, PassphraseCost, Vault, VaultErrorKind, VaultProvider};

use crate::support::{Scratch, kind, passphrase, user};

#[test]
fn interrupted_writes_are_ignored_and_cleared() {
    let scratch = Scratch::new().with_key("k");
    let dir = scratch.vault.dir();
    let litter = [
        dir.join(".tmp-0011223344556677"),
        dir.join("keys/k/.tmp-0011223344556677"),
        // A key's private half is written before its entry.
        dir.join("keys/k/00000000000000000000000000000000.sealed"),
        dir.join("keys/never/11111111111111111111111111111111.sealed"),
        dir.join("keys/never/.tmp-8899aabbccddeeff"),
    ];
    fs::create_dir(dir.join("keys/never")).unwrap();
    for path in &litter {
        fs::write(path, "half").unwrap();
    }
    let vault = scratch.reopened();
    assert_eq!(vault.list_keys().unwrap().len(), 1);
    assert_eq!(vault.list_versions("k").unwrap().len(), 1);
    assert_eq!(kind(vault.show_key("never", None)), VaultErrorKind::NotFound);

    vault.set_enabled("k", None, true).unwrap();
    for path in &litter {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(!dir.join("keys/never").exists());
    assert_eq!(fs::read_dir(dir.join("keys/k")).unwrap().count(), 2, "the key and its version stay");
}

#[test]
fn an_interrupted_create_can_be_run_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let dir = folder.path().join("v");
    fs::create_dir_all(dir.join("keys")).unwrap();
    fs::write(dir.join("lock"), "").unwrap();
    fs::write(dir.join(".tmp-0011223344556677"), "{").unwrap();
    let options = CreateVault { cost: PassphraseCost::MINIMAL, ..CreateVault::new(passphrase()) };
    Vault::create(&dir, options).unwrap().check_passphrase().unwrap();
}

#[test]
fn a_purge_that_was_interrupted_can_be_finished() {
    let scratch = Scratch::new().with_key("k");
    scratch.vault.delete_key("k").unwrap();
    for entry in fs::read_dir(scratch.vault.dir().join("keys/k")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sealed") {
            fs::remove_file(path).unwrap();
        }
    }
    scratch.vault.purge_key("k").unwrap();
    scratch.with_key("k");
}

#[test]
fn damage_is_told_by_file() {
    let scratch = Scratch::new().with_key("k");
    for (file, content) in [
        ("keys/k/key.json", "{"),
        ("keys/k/key.json", "{\"format\":2}"),
        ("vault.json", ""),
        ("vault.json", "[]"),
        ("vault.json", "{\"format\":9}"),
    ] {
        let path = scratch.vault.dir().join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let error = scratch.vault.show_key("k", None).unwrap_err();
        assert_eq!(error.kind(), VaultErrorKind::Damaged, "{file} {content}");
        assert!(error.to_string().contains(file), "{error}");
        fs::write(&path, whole).unwrap();
        scratch.vault.show_key("k", None).unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_or_damaged_is_no_verdict_on_the_key() {
    let scratch = Scratch::new().with_key("k").with_policy();
    let provider = VaultProvider::new(scratch.reopened());
    let key = scratch.vault.key_id("k", None).unwrap();
    let kind = async || provider.describe(&key, &user()).await.map(drop).map_err(|error| error.kind());
    assert_eq!(kind().await, Ok(()));

    let (dir, away) = (scratch.vault.dir().to_owned(), scratch.folder.path().join("away"));
    fs::rename(&dir, &away).unwrap();
    assert_eq!(kind().await, Err(KekErrorKind::Unavailable), "gone");
    let options = CreateVault { cost: PassphraseCost::MINIMAL, ..CreateVault::new(passphrase()) };
    Vault::create(&dir, options).unwrap();
    assert_eq!(kind().await, Err(KekErrorKind::Unavailable), "another vault in its place");
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    assert_eq!(kind().await, Ok(()));

    fs::rename(dir.join("keys"), dir.join("yeks")).unwrap();
    assert_eq!(kind().await, Err(KekErrorKind::Unavailable), "no keys at all");
    fs::rename(dir.join("yeks"), dir.join("keys")).unwrap();
    fs::write(dir.join("keys/k/key.json"), "{").unwrap();
    assert_eq!(kind().await, Err(KekErrorKind::Unavailable), "damaged");
}

#[test]
fn a_damaged_key_does_not_keep_access_from_being_taken_away() {
    let scratch = Scratch::new().with_key("good").with_key("bad").with_policy();
    fs::write(scratch.vault.dir().join("keys/bad/key.json"), "{").unwrap();
    fs::write(scratch.vault.dir().join("keys/stray"), "not a key").unwrap();
    assert!(scratch.vault.delete_policy(&user()).unwrap());
    scratch.vault.set_enabled("good", None, false).unwrap();
    assert_eq!(kind(scratch.vault.set_enabled("bad", None, false)), VaultErrorKind::Damaged);
    let sealed = fs::read_dir(scratch.vault.dir().join("keys/bad")).unwrap().count();
    assert_eq!(sealed, 2, "its private half is not cleared away");
}
