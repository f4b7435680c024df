//! The key is taken away in every way there is, and given back.

use serde_json::Value;

use crate::world::{IDENTITY, World};

/// Everything is refused with code 4; the line says how the key comes back.
fn refused(world: &World, digest: &str, fix: &str) {
    let store = world.store();
    for arguments in [
        &["get", &store, digest][..],
        &["put", &store, "to-put"],
        &["ls", &store],
        &["stat", &store, digest],
        &["rm", &store, digest],
        &["rotate", &store],
    ] {
        let line = world.fails(4, arguments);
        assert!(line.contains("Revoked") && line.contains(fix), "{arguments:?}: {line}");
    }
    // So is the status, which shows what is known all the same, and since when.
    let ran = world.run(&["status", &store]);
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("Revoked") && ran.stderr.contains(fix), "{ran:?}");
    let known: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(known["key"]["state"], "revoked");
    assert!(known["key"]["reason"].is_string() && known["seen"].is_string(), "{known:#}");
    assert!(known["warnings"][0].as_str().unwrap().contains(fix), "{known:#}");
}

#[test]
fn revoked_by_policy_by_disabling_and_by_deletion() {
    let world = World::with_store();
    let vault = world.path("vault");
    let digest = world.put(b"hi\n");
    let back = || assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");

    world.deny();
    refused(&world, &digest, &format!("bulla vault set-policy {vault} --identity {IDENTITY}"));
    world.allow();
    back();

    world.ok(&["vault", "key", "disable", &vault, "--name", "k"]);
    refused(&world, &digest, &format!("bulla vault key enable {vault} --name k"));
    world.ok(&["vault", "key", "enable", &vault, "--name", "k"]);
    back();

    world.ok(&["vault", "key", "delete", &vault, "--name", "k"]);
    refused(&world, &digest, &format!("bulla vault key recover {vault} --name k"));
    world.ok(&["vault", "key", "recover", &vault, "--name", "k"]);
    back();

    // Taking only one of the permissions is enough.
    world.ok(&["vault", "set-policy", &vault, "--identity", IDENTITY, "--key-permissions", "get,wrapKey"]);
    refused(&world, &digest, "unwrapKey");
    world.allow();
    back();
}

#[test]
fn status_of_a_revoked_store_says_what_is_known() {
    let world = World::with_store();
    let before = world.json(&["status", &world.store()]);
    world.deny();
    let ran = world.run(&["status", &world.store(), "--verbose", "--json"]);
    assert_eq!(ran.code, 4);
    let known: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(known["keyVaultProperties"], before["keyVaultProperties"]);
    assert_eq!(known["key"]["state"], "revoked");
    assert_eq!(known["key"]["reason"], "Forbidden");
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "revoked");
}

#[test]
fn an_expired_key_still_opens_and_warns() {
    let world = World::with_store();
    let digest = world.put(b"hi\n");
    let vault = world.path("vault");
    world.ok(&["vault", "key", "set-attributes", &vault, "--name", "k", "--expires", "2001-01-01"]);
    assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
    let status = world.json(&["status", &world.store(), "--verbose"]);
    assert!(status["warnings"][0].as_str().unwrap().contains("expired"), "{status:#}");
    // And can't be rotated to.
    let expired = world.new_version("other");
    world.ok(&["vault", "key", "set-attributes", &vault, "--name", "other", "--expires", "2001-01-01"]);
    assert!(world.fails(2, &["rotate", &world.store(), "--kek", &expired]).contains("validity"));
}
