//! A store under the keys of two parties: one in a vault, one in another vault or on a token.

use std::fs;

use crate::key_vault::KeyVault;
use crate::rewrap::kill_again_and_again;
use crate::token::Kind;
use crate::tokens::{KEK, Machine};
use crate::world::{IDENTITY, World};

const ESCROW: &str = "escrow";

/// The second party's vault, with its key.
fn second_vault(world: &World) -> String {
    let vault = world.path("vault-2");
    world.ok(&["vault", "create", &vault]);
    world.json(&["vault", "key", "create", &vault, "--name", "c", "--kty", "AES"]);
    permit(world, &vault);
    vault
}

fn permit(world: &World, vault: &str) {
    let permissions = ["--key-permissions", "get,wrapKey,unwrapKey"];
    world.ok(&[&["vault", "set-policy", vault, "--identity", ESCROW][..], &permissions].concat());
}

fn second_key(vault: &str) -> String {
    format!("vault+file://{vault}/keys/c")
}

#[test]
fn either_party_closes_the_store_and_each_rotates_alone() {
    let Some(Machine { mut world, token }) = Machine::new(Kind::SoftHsm) else { return };
    let (store, vault) = (world.store(), second_vault(&world));
    let both = ["--kek", &world.kek(), "--identity", IDENTITY, "--and-kek", &second_key(&vault)];
    let made = world.json(&[&["init", &store][..], &both, &["--and-identity", ESCROW]].concat());
    assert_eq!(made["secondParty"]["key"], second_key(&vault), "{made:#}");
    let anchor = made["anchor"].as_str().unwrap().to_owned();
    let digest = world.put(b"hi\n");
    let reads = |world: &World| assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");
    reads(&world);

    // Each one's word is enough, and the line says whose to ask for.
    world.deny();
    let line = world.fails(4, &["get", &store, &digest]);
    let fix = format!("bulla vault set-policy {} --identity {IDENTITY}", world.path("vault"));
    assert!(line.contains("first party") && line.contains(&fix), "{line}");
    world.allow();
    reads(&world);
    world.ok(&["vault", "delete-policy", &vault, "--identity", ESCROW]);
    let line = world.fails(4, &["get", &store, &digest]);
    let fix = format!("bulla vault set-policy {vault} --identity {ESCROW}");
    assert!(line.contains("second party") && line.contains(&fix), "{line}");
    permit(&world, &vault);
    reads(&world);

    let status = world.json(&["status", &store]);
    assert_eq!(status["secondParty"]["identity"], ESCROW, "{status:#}");
    assert_eq!(status["keyVaultProperties"]["keyIdentifier"], world.kek());

    let version = world.new_version("k");
    let rotated = world.json(&["rotate", &store]);
    assert_eq!((rotated["to"].as_str(), rotated["party"].as_str()), (Some(&*version), Some("first")));
    token.manage("aes registry 01 keep");
    let to_token = ["rotate", &store, "--party", "second", "--kek", KEK, "--identity", "system"];
    let rotated = world.json(&to_token);
    assert_eq!((rotated["changed"].as_bool(), rotated["party"].as_str()), (Some(true), Some("second")));
    let verbose = world.json(&["status", &store, "--verbose"]);
    assert_eq!(verbose["secondKey"]["identifier"], KEK, "{verbose:#}");
    fs::remove_dir_all(&vault).unwrap();
    reads(&world);

    // Another machine needs the way to both keys.
    world.config = world.dir.path().join("config-2");
    let attach = ["attach", &store, "--kek", &world.kek(), "--anchor", &anchor];
    world.fails(2, &attach);
    world.ok(&[&attach[..], &["--and-kek", KEK]].concat());
    reads(&world);
}

#[test]
fn a_local_vault_and_a_key_vault_hold_a_store_together() {
    let vault = KeyVault::new();
    let (store, local) = (vault.world.store(), second_vault(&vault.world));
    let both = ["--kek", &second_key(&local), "--identity", ESCROW, "--and-kek", &vault.kek("k")];
    vault.ok(&[&["init", &store][..], &both, &["--and-identity", IDENTITY]].concat());
    let digest = vault.put(b"hi\n");
    let get = ["get", &store, &digest];
    let reads = || assert_eq!(vault.ok(&get).stdout, b"hi\n");
    reads();

    vault.world.deny();
    let line = vault.fails(4, &get, &[]);
    assert!(line.contains("second party") && line.contains("bulla vault set-policy DIR"), "{line}");
    vault.world.allow();
    reads();
    // Out of reach is no verdict; the other party's denial is one all the same.
    let nobody = [("IDENTITY_ENDPOINT", Some("http://127.0.0.1:1/"))];
    let line = vault.fails(5, &get, &nobody);
    assert!(line.contains("second party"), "{line}");
    vault.world.ok(&["vault", "delete-policy", &local, "--identity", ESCROW]);
    let line = vault.fails(4, &get, &nobody);
    assert!(line.contains("first party"), "{line}");
    permit(&vault.world, &local);
    reads();

    let version = vault.new_version("k", "RSA");
    let rotated = vault.json(&["rotate", &store, "--party", "second"]);
    assert_eq!(rotated["to"], format!("{}/{version}", vault.kek("k")));
    vault.world.ok(&["vault", "key", "create", &local, "--name", "c", "--kty", "AES"]);
    assert_eq!(vault.json(&["rotate", &store])["party"], "first");
    reads();
    let status = vault.json(&["status", &store, "--verbose"]);
    assert_eq!(status["secondParty"]["keyIdentifier"], vault.kek("k"));
    assert_eq!(status["warnings"].as_array().unwrap().len(), 0, "{status:#}");
}

/// Each party's rotation, at any moment; the store opens, and what was left is finished.
#[test]
fn a_rotation_of_either_party_can_be_killed_at_any_moment() {
    let world = World::with_vault();
    let (store, vault) = (world.store(), second_vault(&world));
    let both = ["--kek", &world.kek(), "--identity", IDENTITY, "--and-kek", &second_key(&vault)];
    world.ok(&[&["init", &store][..], &both, &["--and-identity", ESCROW]].concat());
    let digest = world.put(b"hi\n");
    for party in ["first", "second"] {
        kill_again_and_again(&world, &["rotate", &store, "--party", party], |_| {
            assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");
            world.new_version("k");
            world.json(&["vault", "key", "create", &vault, "--name", "c", "--kty", "AES"]);
        });
    }
    world.ok(&["rotate", &store]);
    world.ok(&["rotate", &store, "--party", "second"]);
    let status = world.json(&["status", &store, "--verbose"]);
    assert_eq!(status["keyVersions"].as_array().unwrap().len(), 2, "{status:#}");
    assert_eq!(status["warnings"].as_array().unwrap().len(), 0, "{status:#}");
    assert_eq!(world.ok(&["get", &store, &digest, "--verify"]).stdout, b"hi\n");
    // Neither is left out on the way.
    world.deny();
    world.fails(4, &["get", &store, &digest]);
    world.allow();
    world.ok(&["vault", "delete-policy", &vault, "--identity", ESCROW]);
    world.fails(4, &["get", &store, &digest]);
}

#[test]
fn keys_on_one_token_are_warned_of() {
    let Some(Machine { world, token }) = Machine::new(Kind::SoftHsm) else { return };
    token.manage("aes registry 01 keep");
    token.manage("aes escrow 02 keep");
    let other = KEK.replace("registry", "escrow");
    world.ok(&["init", &world.store(), "--kek", KEK, "--and-kek", &other]);
    let warnings = world.json(&["status", &world.store(), "--verbose"])["warnings"].to_string();
    assert!(warnings.contains("on one token"), "{warnings}");
}

#[test]
fn a_second_party_is_brought_in() {
    let world = World::with_store();
    let (store, vault) = (world.store(), second_vault(&world));
    let digest = world.put(b"hi\n");
    let key = second_key(&vault);
    let line = world.fails(2, &["rotate", &store, "--party", "second"]);
    assert!(line.contains("--and-kek"), "{line}");
    let join = ["rotate", &store, "--and-kek", &key, "--and-identity", ESCROW];
    assert!(world.ok(&join).text().contains("is needed as well from now on"));
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");
    world.ok(&["vault", "key", "disable", &vault, "--name", "c"]);
    let line = world.fails(4, &["get", &store, &digest]);
    assert!(line.contains(&format!("bulla vault key enable {vault} --name c")), "{line}");
    world.ok(&["vault", "key", "enable", &vault, "--name", "c"]);
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");
    // Doctor asks each party's key as its own identity.
    let found = world.ok(&["doctor", &store]);
    let found = found.text();
    assert!(found.contains("/keys/k") && found.contains("/keys/c"), "{found}");
}

#[test]
fn one_key_is_not_two_parties() {
    let world = World::with_vault();
    let both = [
        "--kek",
        &world.kek(),
        "--identity",
        IDENTITY,
        "--and-kek",
        &world.kek(),
        "--and-identity",
        IDENTITY,
    ];
    let line = world.fails(2, &[&["init", &world.store()][..], &both].concat());
    assert!(line.contains("same key"), "{line}");
    assert!(!world.dir.path().join("store").exists());

    // Nor are two versions of one, whatever the case of its name.
    let world = World::with_store();
    world.new_version("k");
    let again = world.kek().replace("/keys/k", "/keys/K");
    let line = world.fails(2, &["rotate", &world.store(), "--and-kek", &again, "--and-identity", IDENTITY]);
    assert!(line.contains("give the second one its own"), "{line}");
}
