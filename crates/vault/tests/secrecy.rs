//! Private halves stay private: at rest, in messages, and from others on the machine.

use std::fs;
use std::path::{Path, PathBuf};

use bulla_envelope::secret::Secret;
use bulla_kek::{KekErrorKind, KekProvider, SystemRandom, WrapAlgorithm};
use bulla_vault::{CreateKey, CreateVault, Passphrase, Vault, VaultError, VaultErrorKind, VaultProvider};

use crate::support::{AES, PASSPHRASE, RSA, Scratch, kind, user};

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        }
        files.push(path);
    }
    files
}

fn whole_message(error: &VaultError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    text
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new().with_key("k").with_policy();
    let mut files = all_files(scratch.vault.dir());
    assert_eq!(files.len(), 6, "vault.json, lock, keys, keys/k, key.json, sealed: {files:?}");
    files.push(scratch.vault.dir().to_owned());
    for path in files {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_was_there_is_made_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::TempDir::new().unwrap();
    let dir = folder.path().join("open");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let options =
        CreateVault { cost: bulla_vault::PassphraseCost::MINIMAL, ..CreateVault::new(Passphrase::new("x")) };
    Vault::create(&dir, options).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn metadata_needs_no_passphrase_and_keys_do() {
    let scratch = Scratch::new().with_key("k").with_policy();
    let vault = Vault::open(scratch.vault.dir(), None).unwrap();
    assert_eq!(vault.list_keys().unwrap().len(), 1);
    vault.set_enabled("k", None, false).unwrap();
    vault.delete_policy(&user()).unwrap();
    assert_eq!(kind(vault.check_passphrase()), VaultErrorKind::PassphraseMissing);
    let error = vault.create_key(&CreateKey::new("k2", AES)).unwrap_err();
    assert_eq!(error.kind(), VaultErrorKind::PassphraseMissing);
    assert!(error.to_string().contains("BULLA_VAULT_PASSPHRASE"), "{error}");
}

#[tokio::test]
async fn a_wrong_passphrase_is_told_and_opens_nothing() {
    let scratch = Scratch::new().with_key("k").with_policy();
    let vault = Vault::open(scratch.vault.dir(), Some(Passphrase::new("incorrect horse"))).unwrap();
    assert_eq!(kind(vault.check_passphrase()), VaultErrorKind::WrongPassphrase);
    assert_eq!(kind(vault.create_key(&CreateKey::new("k2", AES))), VaultErrorKind::WrongPassphrase);
    let message = whole_message(&vault.check_passphrase().unwrap_err());
    assert!(!message.contains("incorrect"), "{message}");

    let provider = VaultProvider::new(vault);
    let key = provider.describe(&scratch.vault.key_id("k", None).unwrap(), &user()).await.unwrap().key;
    let secret = Secret::random(&SystemRandom);
    let error = provider.wrap_key(&key, &user(), WrapAlgorithm::A256Kw, &secret).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Unavailable, "it says nothing about the key");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("passphrase"), "{source}");
    scratch.reopened().check_passphrase().unwrap();
}

#[test]
fn an_empty_passphrase_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let result = Vault::create(folder.path().join("v"), CreateVault::new(Passphrase::new("")));
    assert_eq!(kind(result), VaultErrorKind::Invalid);
    assert!(!folder.path().join("v").exists());
}

#[test]
fn nothing_secret_is_shown() {
    let scratch = Scratch::new().with_key("k");
    let provider = VaultProvider::new(scratch.vault.clone());
    let options = CreateVault::new(Passphrase::new(PASSPHRASE));
    let shown = format!("{:?} {:?} {provider:?} {options:?}", scratch.vault, scratch.reopened());
    assert!(!shown.contains("horse"), "{shown}");
    assert!(shown.contains("Passphrase(…)"), "{shown}");
    assert!(!shown.to_lowercase().contains("secret("), "{shown}");
}

#[test]
fn nothing_at_rest_is_a_private_key() {
    let scratch = Scratch::new();
    scratch.vault.create_key(&CreateKey::new("k", RSA)).unwrap();
    let modulus = scratch.vault.show_key("k", None).unwrap().key.n.unwrap();
    let modulus = data_encoding::BASE64URL_NOPAD.decode(modulus.as_bytes()).unwrap();
    for path in all_files(scratch.vault.dir()).into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&path).unwrap();
        // A PKCS#8 key has the modulus in it; the readable file has it as text only.
        assert!(!bytes.windows(modulus.len()).any(|window| window == modulus), "{}", path.display());
        assert!(!String::from_utf8_lossy(&bytes).contains("horse"), "{}", path.display());
    }
}

#[tokio::test]
async fn a_moved_or_changed_private_half_does_not_open() {
    let scratch = Scratch::new().with_key("a").with_key("b").with_policy();
    let sealed = |name: &str| {
        all_files(&scratch.vault.dir().join("keys").join(name))
            .into_iter()
            .find(|path| path.extension().is_some_and(|extension| extension == "sealed"))
            .unwrap()
    };
    let secret = Secret::random(&SystemRandom);
    let wrap = async |name: &str| {
        let provider = VaultProvider::new(scratch.reopened());
        let key = provider.describe(&scratch.vault.key_id(name, None).unwrap(), &user()).await.unwrap().key;
        provider.wrap_key(&key, &user(), WrapAlgorithm::A256Kw, &secret).await.map(drop)
    };
    wrap("a").await.unwrap();
    let own = fs::read(sealed("a")).unwrap();
    fs::copy(sealed("b"), sealed("a")).unwrap();
    assert_eq!(wrap("a").await.unwrap_err().kind(), KekErrorKind::Unavailable, "another key's");
    for position in [0, 30, 60, own.len() - 1] {
        let mut changed = own.clone();
        changed[position] ^= 1;
        fs::write(sealed("a"), changed).unwrap();
        assert_eq!(wrap("a").await.unwrap_err().kind(), KekErrorKind::Unavailable, "byte {position}");
    }
    fs::write(sealed("a"), own).unwrap();
    wrap("a").await.unwrap();
}
