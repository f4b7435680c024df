//! Keys: made, listed, changed, deleted, recovered, purged.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use bulla_kek::{KeyKind, KeyUri};
use bulla_vault::{AttributeChanges, CreateKey, Vault, VaultErrorKind};

use crate::support::{AES, RSA, Scratch, kind, passphrase};

#[test]
fn a_bundle_has_the_shape_of_key_vaults() {
    let scratch = Scratch::with_purge_protection(true);
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let options = CreateKey {
        not_before: Some(start),
        expires: Some(start + Duration::from_secs(60)),
        ..CreateKey::new("Kek", RSA)
    };
    let json = serde_json::to_value(scratch.vault.create_key(&options).unwrap()).unwrap();

    let kid = json["key"]["kid"].as_str().unwrap();
    let KeyUri::VaultFolder { dir, name, version } = kid.parse().unwrap() else { panic!("{kid}") };
    assert_eq!((dir.as_path(), name.as_str()), (scratch.vault.dir(), "Kek"));
    assert_eq!(version.unwrap().len(), 32);
    assert_eq!(json["key"]["kty"], "RSA");
    assert_eq!(json["key"]["key_ops"], serde_json::json!(["wrapKey", "unwrapKey"]));
    assert_eq!(json["key"]["e"], "AQAB");
    assert_eq!(json["key"]["n"].as_str().unwrap().len(), 342, "2048 bits in base64url, unpadded");
    assert_eq!(json["attributes"]["enabled"], true);
    assert_eq!(json["attributes"]["nbf"], 1_700_000_000);
    assert_eq!(json["attributes"]["exp"], 1_700_000_060);
    assert_eq!(json["attributes"]["recoveryLevel"], "Recoverable");
    assert!(json["attributes"]["created"].is_u64() && json["attributes"]["updated"].is_u64());
    assert!(json.get("deletedDate").is_none());
}

#[test]
fn an_aes_key_shows_nothing_of_itself() {
    let scratch = Scratch::new();
    let json = serde_json::to_value(scratch.vault.create_key(&CreateKey::new("k", AES)).unwrap()).unwrap();
    let fields: Vec<&String> = json["key"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["key_ops", "kid", "kty"]);
    assert_eq!(json["key"]["kty"], "oct");
    assert_eq!(json["attributes"]["recoveryLevel"], "Recoverable+Purgeable");
}

#[test]
fn the_same_name_gives_a_new_version() {
    let scratch = Scratch::new().with_key("Kek");
    let first = scratch.vault.show_key("kek", None).unwrap();
    let second = scratch.vault.create_key(&CreateKey::new("KEK", AES)).unwrap();
    assert_ne!(first.key.kid, second.key.kid);
    assert_eq!(scratch.vault.show_key("kek", None).unwrap(), second, "the newest");

    let versions = scratch.vault.list_versions("kek").unwrap();
    assert_eq!([&versions[0].kid, &versions[1].kid], [&first.key.kid, &second.key.kid]);
    let uri: KeyUri = first.key.kid.parse().unwrap();
    assert_eq!(uri.name(), "Kek", "as it was first written");
    assert_eq!(scratch.vault.show_key("kek", uri.version()).unwrap(), first);

    let keys = scratch.vault.list_keys().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].name, "Kek");
    assert!(keys[0].kid.ends_with("/keys/Kek"), "{}", keys[0].kid);
}

#[test]
fn attributes_are_of_one_version() {
    let scratch = Scratch::new().with_key("k").with_key("k");
    let versions = scratch.vault.list_versions("k").unwrap();
    let uri: KeyUri = versions[0].kid.parse().unwrap();
    assert!(!scratch.vault.set_enabled("k", uri.version(), false).unwrap().attributes.enabled);
    assert!(scratch.vault.show_key("k", None).unwrap().attributes.enabled);
    assert!(!scratch.vault.set_enabled("k", None, false).unwrap().attributes.enabled);
    assert!(scratch.vault.set_enabled("k", None, true).unwrap().attributes.enabled);

    let end = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let changes = AttributeChanges {
        expires: Some(Some(end)),
        key_ops: Some(vec!["unwrapKey".into()]),
        ..Default::default()
    };
    let changed = scratch.vault.set_attributes("k", None, &changes).unwrap();
    assert_eq!(
        (changed.attributes.exp, changed.key.key_ops),
        (Some(4_000_000_000), vec!["unwrapKey".to_owned()])
    );
    let late = AttributeChanges { not_before: Some(Some(end)), ..Default::default() };
    assert_eq!(kind(scratch.vault.set_attributes("k", None, &late)), VaultErrorKind::Invalid);
    let changes = AttributeChanges { expires: Some(None), ..Default::default() };
    assert_eq!(scratch.vault.set_attributes("k", None, &changes).unwrap().attributes.exp, None);
}

#[test]
fn deleted_keys_can_be_recovered_and_their_names_are_taken() {
    let scratch = Scratch::new().with_key("k");
    let before = scratch.vault.show_key("k", None).unwrap();
    assert!(scratch.vault.delete_key("k").unwrap().deleted_date.is_some());
    assert_eq!(kind(scratch.vault.show_key("k", None)), VaultErrorKind::Conflict);
    assert_eq!(kind(scratch.vault.delete_key("k")), VaultErrorKind::Conflict);
    assert_eq!(kind(scratch.vault.create_key(&CreateKey::new("K", AES))), VaultErrorKind::Conflict);
    assert_eq!(kind(scratch.vault.set_enabled("k", None, true)), VaultErrorKind::Conflict);
    assert!(scratch.vault.list_keys().unwrap().is_empty());
    assert_eq!(scratch.vault.list_deleted_keys().unwrap()[0].name, "k");

    assert_eq!(scratch.vault.recover_key("k").unwrap(), before);
    assert_eq!(kind(scratch.vault.recover_key("k")), VaultErrorKind::Conflict);
    assert!(scratch.vault.list_deleted_keys().unwrap().is_empty());
}

#[test]
fn purging_needs_a_deleted_key_and_frees_the_name() {
    let scratch = Scratch::new().with_key("k");
    assert_eq!(kind(scratch.vault.purge_key("k")), VaultErrorKind::Conflict);
    scratch.vault.delete_key("k").unwrap();
    scratch.vault.purge_key("k").unwrap();
    assert_eq!(kind(scratch.vault.purge_key("k")), VaultErrorKind::NotFound);
    assert!(!scratch.vault.dir().join("keys/k").exists());
    scratch.with_key("k");
}

#[test]
fn purge_protection_refuses_and_says_why() {
    let scratch = Scratch::with_purge_protection(true).with_key("k");
    assert_eq!(kind(scratch.vault.destroy_key("k")), VaultErrorKind::Refused);
    scratch.vault.show_key("k", None).unwrap();
    scratch.vault.delete_key("k").unwrap();
    let error = scratch.vault.purge_key("k").unwrap_err();
    assert_eq!(error.kind(), VaultErrorKind::Refused);
    assert!(error.to_string().contains("purge protection"), "{error}");
    scratch.vault.recover_key("k").unwrap();
}

#[test]
fn destroying_leaves_nothing() {
    let scratch = Scratch::new().with_key("k").with_key("k").with_key("other");
    scratch.vault.destroy_key("k").unwrap();
    let left: Vec<_> = fs::read_dir(scratch.vault.dir().join("keys")).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(kind(scratch.vault.destroy_key("k")), VaultErrorKind::NotFound);
    scratch.vault.show_key("other", None).unwrap();
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let scratch = Scratch::new();
    let key = |name: &str, kind: KeyKind| scratch.vault.create_key(&CreateKey::new(name, kind)).unwrap_err();
    for name in ["", "a/b", "..", "a_b", "ä", &"k".repeat(128)] {
        let error = key(name, AES);
        assert_eq!(error.kind(), VaultErrorKind::Invalid, "{name}");
        assert!(error.to_string().contains("0-9, A-Z"), "{error}");
    }
    for kind in [KeyKind::Rsa { bits: 1024 }, KeyKind::Rsa { bits: 2049 }, KeyKind::Aes { bits: 128 }] {
        assert!(key("k", kind).to_string().contains("2048, 3072 or 4096"));
    }
    let options = CreateKey { key_ops: vec!["wrap".into()], ..CreateKey::new("k", AES) };
    assert!(scratch.vault.create_key(&options).unwrap_err().to_string().contains("wrapKey"));
    for name in ["none", "../../etc"] {
        assert!(matches!(
            kind(scratch.vault.show_key(name, None)),
            VaultErrorKind::NotFound | VaultErrorKind::Invalid
        ));
        assert!(matches!(
            kind(scratch.vault.destroy_key(name)),
            VaultErrorKind::NotFound | VaultErrorKind::Invalid
        ));
    }
}

#[test]
fn a_vault_says_what_it_is() {
    let scratch = Scratch::with_purge_protection(true);
    let info = scratch.vault.info().unwrap();
    assert!(info.enable_soft_delete && info.enable_purge_protection);
    assert_eq!((info.id.len(), info.dir.as_path()), (26, scratch.vault.dir()));
    let key = scratch.vault.key_id("k", None).unwrap();
    assert_eq!(key.to_string(), format!("vault:{}/keys/k", info.id));
    assert_eq!(scratch.reopened().id(), info.id);
}

#[test]
fn a_vault_is_not_made_over_anything() {
    let scratch = Scratch::new();
    let again = |dir: &std::path::Path| Vault::create(dir, bulla_vault::CreateVault::new(passphrase()));
    assert_eq!(kind(again(scratch.vault.dir())), VaultErrorKind::Conflict);
    fs::write(scratch.folder.path().join("file"), "x").unwrap();
    assert_eq!(kind(again(scratch.folder.path())), VaultErrorKind::Conflict);
    assert_eq!(kind(Vault::open(scratch.folder.path(), None)), VaultErrorKind::NotFound);
}
