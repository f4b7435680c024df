//! Using keys beside the provider: as the server does.

use std::time::{Duration, UNIX_EPOCH};

use bulla_envelope::crypto::CryptoProvider;
use bulla_kek::{
    DenyReason, Identity, KekError, KekErrorKind, KekProvider, KeyKind, SystemRandom, WrapAlgorithm,
};
use bulla_vault::{
    Algorithm, AttributeChanges, Bypass, CreateKey, ImportKey, KeyOperation, KeyUse, Manner, NetworkAction,
    NetworkRules, Permission, PrivateKey, Used, Vault, VaultErrorKind, VaultProvider,
};
use zeroize::Zeroizing;

use crate::support::{AES, RSA, Scratch, kind, user};

const ALL: [KeyOperation; 4] =
    [KeyOperation::WrapKey, KeyOperation::UnwrapKey, KeyOperation::Encrypt, KeyOperation::Decrypt];

fn key(scratch: &Scratch, name: &str, kind: KeyKind) {
    let key_ops = ALL.map(|operation| operation.as_str().to_owned()).to_vec();
    scratch.vault.create_key(&CreateKey { key_ops, ..CreateKey::new(name, kind) }).unwrap();
    scratch.vault.set_policy(&user(), &[Permission::ALL]).unwrap();
}

fn used(
    vault: &Vault,
    manner: Manner,
    name: &str,
    operation: KeyOperation,
    algorithm: Algorithm,
    input: &[u8],
) -> Result<Used, KekError> {
    vault.use_key(&user(), manner, &KeyUse { name, version: None, operation, algorithm, input })
}

fn denied(result: Result<Used, KekError>) -> Option<DenyReason> {
    result.unwrap_err().deny_reason()
}

#[test]
fn any_key_opens_what_it_encrypted_on_every_back_end() {
    let scratch = Scratch::new();
    key(&scratch, "rsa", RSA);
    key(&scratch, "aes", AES);
    let pure = scratch.reopened().with_crypto(CryptoProvider::rust_crypto());
    for (name, algorithm, lens) in [
        ("rsa", Algorithm::RsaOaep256, vec![0, 1, 32, 190]),
        ("rsa", Algorithm::RsaOaep, vec![0, 1, 32, 214]),
        ("aes", Algorithm::A256Kw, vec![16, 32, 64, 1024]),
    ] {
        for len in lens {
            let input = vec![0x5a; len];
            for (to, from) in [
                (KeyOperation::WrapKey, KeyOperation::UnwrapKey),
                (KeyOperation::Encrypt, KeyOperation::Decrypt),
            ] {
                for (one, other) in [(&scratch.vault, &pure), (&pure, &scratch.vault)] {
                    let sealed = used(one, Manner::Service, name, to, algorithm, &input).unwrap();
                    let opened = used(other, Manner::Service, name, from, algorithm, &sealed.output).unwrap();
                    assert_eq!((&opened.output[..], &opened.version), (&input[..], &sealed.version));
                }
            }
        }
    }
}

#[test]
fn what_is_no_input_for_the_key_is_invalid_and_no_verdict_on_it() {
    let scratch = Scratch::new();
    key(&scratch, "rsa", RSA);
    key(&scratch, "aes", AES);
    for (name, operation, algorithm, len) in [
        ("rsa", KeyOperation::WrapKey, Algorithm::RsaOaep256, 191),
        ("rsa", KeyOperation::UnwrapKey, Algorithm::RsaOaep256, 256),
        ("rsa", KeyOperation::UnwrapKey, Algorithm::RsaOaep, 0),
        ("rsa", KeyOperation::WrapKey, Algorithm::A256Kw, 32),
        ("aes", KeyOperation::WrapKey, Algorithm::RsaOaep, 32),
        ("aes", KeyOperation::WrapKey, Algorithm::A256Kw, 8),
        ("aes", KeyOperation::WrapKey, Algorithm::A256Kw, 33),
        ("aes", KeyOperation::UnwrapKey, Algorithm::A256Kw, 16),
        ("aes", KeyOperation::UnwrapKey, Algorithm::A256Kw, 40),
    ] {
        let error =
            used(&scratch.vault, Manner::Service, name, operation, algorithm, &vec![1; len]).unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{name} {operation:?} {algorithm} {len}");
    }
    let error =
        used(&scratch.vault, Manner::Service, "../k", KeyOperation::WrapKey, Algorithm::A256Kw, &[1; 32]);
    assert_eq!(error.unwrap_err().kind(), KekErrorKind::Invalid);
}

#[tokio::test]
async fn only_the_manner_decides_whether_a_disabled_rsa_key_encrypts() {
    let scratch = Scratch::new();
    let (wrap, unwrap) = (KeyOperation::WrapKey, KeyOperation::UnwrapKey);
    for (name, kind, algorithm) in [("rsa", RSA, Algorithm::RsaOaep256), ("aes", AES, Algorithm::A256Kw)] {
        key(&scratch, name, kind);
        let wrapped = used(&scratch.vault, Manner::Documented, name, wrap, algorithm, &[1; 32]).unwrap();
        scratch.reopened().set_enabled(name, None, false).unwrap();
        for manner in [Manner::Documented, Manner::Service] {
            let result = used(&scratch.vault, manner, name, unwrap, algorithm, &wrapped.output);
            assert_eq!(denied(result), Some(DenyReason::Disabled));
            let result = used(&scratch.vault, manner, name, wrap, algorithm, &[1; 32]);
            match (name, manner) {
                ("rsa", Manner::Service) => drop(result.unwrap()),
                _ => assert_eq!(denied(result), Some(DenyReason::Disabled)),
            }
        }
    }
    // Stores take nothing new under a disabled key.
    let provider = VaultProvider::new(scratch.vault.clone());
    let key = provider.describe(&scratch.vault.key_id("rsa", None).unwrap(), &user()).await.unwrap().key;
    let secret = bulla_envelope::secret::Secret::random(&SystemRandom);
    let error = provider.wrap_key(&key, &user(), WrapAlgorithm::RsaOaep256, &secret).await.unwrap_err();
    assert_eq!(error.deny_reason(), Some(DenyReason::Disabled));
}

#[test]
fn an_imported_key_is_as_good_as_a_made_one() {
    let scratch = Scratch::new();
    scratch.vault.set_policy(&user(), &[Permission::ALL]).unwrap();
    let import = |name: &str, private| {
        let options = CreateKey {
            tags: [("from".to_owned(), "elsewhere".to_owned())].into(),
            ..CreateKey::new(name, AES)
        };
        scratch.vault.import_key(&ImportKey { options, private })
    };
    let aes = |byte, len| PrivateKey::Aes(Zeroizing::new(vec![byte; len]));
    let imported = import("k", aes(7, 32)).unwrap();
    assert_eq!((imported.key.kty.as_str(), &imported.tags["from"][..]), ("oct", "elsewhere"));
    let wrapped = bulla_envelope::keywrap::wrap_key(&[7; 32], &[9; 32]);
    let opened = used(
        &scratch.reopened(),
        Manner::Documented,
        "k",
        KeyOperation::UnwrapKey,
        Algorithm::A256Kw,
        &wrapped,
    );
    assert_eq!(opened.unwrap().output[..], [9; 32]);
    // Again: a new version; the old one still opens what it wrapped.
    assert_ne!(import("k", aes(8, 32)).unwrap().version, imported.version);
    let what = KeyUse {
        name: "k",
        version: Some(&imported.version),
        operation: KeyOperation::UnwrapKey,
        algorithm: Algorithm::A256Kw,
        input: &wrapped,
    };
    assert_eq!(scratch.vault.use_key(&user(), Manner::Documented, &what).unwrap().output[..], [9; 32]);

    assert_eq!(kind(import("k", aes(7, 16))), VaultErrorKind::Invalid);
    let empty = || Zeroizing::new(Vec::new());
    let rsa = PrivateKey::Rsa { n: vec![], e: vec![], d: empty(), p: empty(), q: empty() };
    assert_eq!(kind(import("k", rsa)), VaultErrorKind::Invalid);
    assert_eq!(format!("{:?}", aes(7, 32)), "PrivateKey(AES-256, …)");
}

#[test]
fn an_hsm_key_is_called_so_and_is_otherwise_the_same() {
    let scratch = Scratch::new();
    let options = CreateKey { hsm: true, ..CreateKey::new("k", AES) };
    assert_eq!(scratch.vault.create_key(&options).unwrap().key.kty, "oct-HSM");
    scratch.vault.set_policy(&user(), &[Permission::ALL]).unwrap();
    let reopened = scratch.reopened();
    let wrapped =
        used(&scratch.vault, Manner::Service, "k", KeyOperation::WrapKey, Algorithm::A256Kw, &[1; 32]);
    let wrapped = wrapped.unwrap().output;
    let opened = used(&reopened, Manner::Service, "k", KeyOperation::UnwrapKey, Algorithm::A256Kw, &wrapped);
    assert_eq!(opened.unwrap().output[..], [1; 32]);
}

#[test]
fn tags_are_kept_replaced_and_listed() {
    let scratch = Scratch::new().with_key("k");
    let tags = |text: &str| [("team".to_owned(), text.to_owned())].into();
    let changes = AttributeChanges { tags: Some(tags("storage")), ..Default::default() };
    scratch.vault.set_attributes("k", None, &changes).unwrap();
    // What is not named stays.
    scratch.vault.set_enabled("k", None, false).unwrap();
    let vault = scratch.reopened();
    assert_eq!(vault.show_key("k", None).unwrap().tags, tags("storage"));
    assert_eq!(vault.list_keys().unwrap()[0].tags, tags("storage"));
    let changes = AttributeChanges { tags: Some(tags("platform")), ..Default::default() };
    assert_eq!(vault.set_attributes("k", None, &changes).unwrap().tags, tags("platform"));
}

#[test]
fn network_rules_are_kept_and_a_vault_without_any_is_open() {
    let scratch = Scratch::new();
    assert_eq!(scratch.vault.network_rules().unwrap(), NetworkRules::default());
    let rules = NetworkRules::new(NetworkAction::Deny, vec!["10.0.0.0/8".parse().unwrap()], Bypass::None);
    scratch.vault.set_network_rules(Some(rules.clone())).unwrap();
    // Another change keeps them.
    scratch.reopened().set_policy(&user(), &[Permission::GET]).unwrap();
    assert_eq!(scratch.reopened().network_rules().unwrap(), rules);
    scratch.vault.set_network_rules(None).unwrap();
    let file = std::fs::read_to_string(scratch.vault.dir().join("vault.json")).unwrap();
    assert!(!file.contains("networkRules"), "as a vault that never had any: {file}");
}

#[test]
fn a_deleted_key_is_shown_among_the_deleted() {
    let scratch = Scratch::new().with_key("k");
    assert_eq!(kind(scratch.vault.show_deleted_key("k")), VaultErrorKind::Conflict);
    scratch.vault.delete_key("k").unwrap();
    assert!(scratch.vault.show_deleted_key("K").unwrap().deleted_date.is_some());
    assert_eq!(kind(scratch.vault.show_deleted_key("none")), VaultErrorKind::NotFound);
}

#[test]
fn the_token_key_is_the_vaults_and_needs_the_passphrase() {
    let (one, other) = (Scratch::new(), Scratch::new());
    let key = one.vault.token_key().unwrap();
    assert!(key.ct_eq(&one.reopened().token_key().unwrap()));
    assert!(!key.ct_eq(&other.vault.token_key().unwrap()));
    let locked = Vault::open(one.vault.dir(), None).unwrap();
    assert_eq!(kind(locked.token_key()), VaultErrorKind::PassphraseMissing);
}

#[test]
fn access_is_looked_up_at_every_question() {
    let scratch = Scratch::new().with_policy();
    let may = |identity: &Identity, permission| scratch.vault.permits(identity, permission).unwrap();
    assert!(may(&user(), Permission::GET) && !may(&user(), Permission::DELETE));
    assert!(!may(&Identity::System, Permission::GET));
    scratch.reopened().delete_policy(&user()).unwrap();
    assert!(!may(&user(), Permission::GET));
    let expired = UNIX_EPOCH + Duration::from_secs(1);
    let key = CreateKey { expires: Some(expired), ..CreateKey::new("old", AES) };
    scratch.vault.create_key(&key).unwrap();
    let result =
        used(&scratch.vault, Manner::Service, "old", KeyOperation::WrapKey, Algorithm::A256Kw, &[1; 32]);
    assert_eq!(denied(result), Some(DenyReason::Forbidden), "access is looked at before the key");
}
