//! A store under the keys of two parties: one in a vault, one in another vault or on a token.

use std::fs;

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
}
