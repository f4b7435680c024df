//! Who may: policies, and that each permission is asked for.

use bulla_envelope::secret::Secret;
use bulla_kek::{DenyReason, Identity, KekErrorKind, KekProvider, SystemRandom, WrapAlgorithm};
use bulla_vault::{AttributeChanges, Permission, VaultErrorKind, VaultProvider};

use crate::support::{Scratch, kind, user};

#[test]
fn policies_are_set_replaced_and_deleted() {
    let scratch = Scratch::new().with_policy();
    let policies = scratch.reopened().policies().unwrap();
    assert_eq!(
        policies["store-1"],
        Permission::FOR_STORES
            .iter()
            .copied()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    scratch.vault.set_policy(&user(), &[Permission::GET, Permission::GET]).unwrap();
    scratch.vault.set_policy(&Identity::System, &[Permission::ALL]).unwrap();
    let policies = scratch.reopened().policies().unwrap();
    assert_eq!(policies["store-1"], [Permission::GET]);
    assert_eq!(policies["system"], [Permission::ALL]);
    assert!(scratch.vault.delete_policy(&user()).unwrap());
    assert!(!scratch.vault.delete_policy(&user()).unwrap());
    assert_eq!(kind(scratch.vault.set_policy(&user(), &[])), VaultErrorKind::Invalid);
}

#[tokio::test]
async fn each_operation_asks_for_its_own_permission() {
    let scratch = Scratch::new().with_key("k").with_policy();
    let provider = VaultProvider::new(scratch.vault.clone());
    let key = scratch.vault.key_id("k", None).unwrap();
    let key = provider.describe(&key, &user()).await.unwrap().key;
    let secret = Secret::random(&SystemRandom);
    let wrapped = provider.wrap_key(&key, &user(), WrapAlgorithm::A256Kw, &secret).await.unwrap();

    for (permission, may) in [
        (Permission::GET, [true, false, false]),
        (Permission::WRAP_KEY, [false, true, false]),
        (Permission::UNWRAP_KEY, [false, false, true]),
        (Permission::ALL, [true, true, true]),
        ("sign".parse().unwrap(), [false, false, false]),
    ] {
        scratch.reopened().set_policy(&user(), &[permission]).unwrap();
        let results = [
            provider.describe(&key, &user()).await.map(drop),
            provider.wrap_key(&key, &user(), WrapAlgorithm::A256Kw, &secret).await.map(drop),
            provider.unwrap_key(&key, &user(), WrapAlgorithm::A256Kw, &wrapped.value).await.map(drop),
        ];
        for (result, may) in results.into_iter().zip(may) {
            let forbidden = KekErrorKind::Denied(DenyReason::Forbidden);
            assert_eq!(
                result.map_err(|error| error.kind()),
                if may { Ok(()) } else { Err(forbidden) },
                "{permission}"
            );
        }
    }
}

#[tokio::test]
async fn the_keys_own_operations_bind_too() {
    let scratch = Scratch::new().with_key("k").with_policy();
    let provider = VaultProvider::new(scratch.vault.clone());
    let key = provider.describe(&scratch.vault.key_id("k", None).unwrap(), &user()).await.unwrap().key;
    let changes = AttributeChanges { key_ops: Some(vec!["wrapKey".into()]), ..Default::default() };
    scratch.vault.set_attributes("k", None, &changes).unwrap();
    let secret = Secret::random(&SystemRandom);
    let wrapped = provider.wrap_key(&key, &user(), WrapAlgorithm::A256Kw, &secret).await.unwrap();
    let error = provider.unwrap_key(&key, &user(), WrapAlgorithm::A256Kw, &wrapped.value).await.unwrap_err();
    assert_eq!(error.deny_reason(), Some(DenyReason::OperationNotPermitted));
    assert!(error.to_string().contains("unwrapKey"), "{error}");
}

#[tokio::test]
async fn who_has_no_access_does_not_learn_what_exists() {
    let scratch = Scratch::new();
    let provider = VaultProvider::new(scratch.vault.clone());
    let error = provider.describe(&scratch.vault.key_id("none", None).unwrap(), &user()).await.unwrap_err();
    assert_eq!(error.deny_reason(), Some(DenyReason::Forbidden));
}

#[test]
fn uris_are_shown_as_users_type_them() {
    let scratch = Scratch::new();
    let provider = VaultProvider::new(scratch.vault.clone());
    let key = scratch.vault.key_id("k", None).unwrap();
    assert_eq!(provider.display_uri(&key), format!("vault+file://{}/keys/k", scratch.vault.dir().display()));
    let other = "https://h.vault.azure.net/keys/k".parse().unwrap();
    assert!(!provider.accepts(&other));
    assert_eq!(provider.display_uri(&other), other.to_string());
}
