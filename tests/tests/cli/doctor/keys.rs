//! Keys that were taken away, unfit, out of reach or too easy to reach, in a folder, a key vault and on tokens.

use std::fs;

use super::{Found, doctor, doctor_with, follow, mode};
use crate::key_vault::KeyVault;
use crate::token::Kind;
use crate::tokens::{KEK, Machine};
use crate::world::{IDENTITY, World, copy};

#[test]
fn keys_that_were_taken_away_and_identities_that_may_too_little_or_too_much() {
    let world = World::with_store();
    let vault = world.path("vault");
    let admin = |arguments: &[&str]| world.ok(&[&["vault"], arguments].concat());
    let policy = |permissions: &[&str]| {
        admin(&[&["set-policy", &vault, "--identity", IDENTITY, "--key-permissions"], permissions].concat())
    };
    let heals = |told: &str| {
        follow(&world, &Found::command(told));
        assert_eq!(doctor(&world).wrong(), Vec::<String>::new(), "after {told}");
    };

    admin(&["key", "disable", &vault, "--name", "k"]);
    let found = doctor(&world);
    assert_eq!((found.code, found.wrong()), (4, vec!["key".to_owned(), "open".to_owned()]), "{found:#?}");
    heals(&found.problem("key"));

    admin(&["key", "delete", &vault, "--name", "k"]);
    let told = doctor(&world).problem("key");
    assert!(told.contains("deleted"), "{told}");
    heals(&told);

    for (left, missing) in [
        (&["wrapKey", "unwrapKey"][..], "get"),
        (&["get", "unwrapKey"], "wrapKey"),
        (&["get", "wrapKey"], "unwrapKey"),
    ] {
        policy(left);
        let found = doctor(&world);
        let told = if missing == "get" { found.problem("key") } else { found.problem("access") };
        assert!(told.contains(&format!("permission to {missing} ")), "{told}");
        heals(&told);
    }

    admin(&["key", "set-attributes", &vault, "--name", "k", "--ops", "wrapKey"]);
    let found = doctor(&world);
    assert!(found.problem("key").contains("does not permit unwrapKey"), "{found:#?}");
    heals(&found.problem("key"));

    policy(&["get", "wrapKey", "unwrapKey", "purge", "delete"]);
    let found = doctor(&world);
    assert_eq!(found.code, 0, "too much is a warning: {found:#?}");
    let told = found.warning("surplus");
    assert!(told.contains("delete, purge"), "{told}");
    heals(&told);
}

#[test]
fn keys_that_end_and_versions_that_stay() {
    let world = World::with_store();
    let vault = world.path("vault");
    let expires = |date: &str| {
        world.ok(&["vault", "key", "set-attributes", &vault, "--name", "k", "--expires", date]);
        doctor(&world)
    };
    let found = expires("2001-01-01");
    assert_eq!(found.wrong(), ["key"], "it can be opened: {found:#?}");
    let told = found.problem("key");
    assert!(told.contains("expired at 2001-01-01") && told.contains("--expires DATE"), "{told}");
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 10);
    let found = expires(&soon.to_string());
    assert_eq!(found.code, 0);
    assert!(found.warning("key").contains("bulla rotate"), "{found:#?}");
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 31);
    assert_eq!(expires(&later.to_string()).wrong(), Vec::<String>::new());

    world.new_version("k");
    let told = doctor(&world).warning("versions");
    assert!(told.contains("newer version"), "{told}");
    follow(&world, &Found::command(&told));
    let told = doctor(&world).warning("versions");
    assert!(told.contains("1 earlier version"), "{told}");
    follow(&world, &Found::command(&told));
    assert_eq!(doctor(&world).wrong(), Vec::<String>::new());
}

#[test]
fn a_key_vaults_refusals_are_told_apart() {
    let vault = KeyVault::new();
    vault.init();
    let (store, folder) = (vault.world.store(), vault.world.path("vault"));
    let doctor =
        |change: &[(&str, Option<&str>)]| Found::of(&vault.run_with(&["doctor", &store, "--json"], change));
    let found = doctor(&[]);
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    found.one("surplus", "skipped");

    vault.world.ok(&["vault", "network-rule", &folder, "--default-action", "deny"]);
    let found = doctor(&[]);
    assert_eq!(found.code, 4);
    assert!(found.problem("key").contains("bulla vault network-rule DIR --add CIDR"), "{found:#?}");
    vault.world.ok(&["vault", "network-rule", &folder, "--add", "127.0.0.0/8"]);
    vault.world.deny();
    let told = doctor(&[]).problem("key");
    assert!(told.contains(&format!("bulla vault set-policy DIR --identity {IDENTITY}")), "{told}");
    let few = ["--key-permissions", "get", "wrapKey"];
    vault.world.ok(&[&["vault", "set-policy", &folder, "--identity", IDENTITY], &few[..]].concat());
    let told = doctor(&[]).problem("access");
    assert!(told.contains("unwrapKey") && told.contains("bulla vault set-policy"), "{told}");
    vault.world.allow();

    for (name, value, check, fix) in [
        ("BULLA_KEYVAULT_HOSTS", None, "provider", "set BULLA_KEYVAULT_HOSTS=127.0.0.1:"),
        ("BULLA_KEYVAULT_CA_FILE", None, "key", "set BULLA_KEYVAULT_CA_FILE"),
        ("IDENTITY_ENDPOINT", Some("http://127.0.0.1:1/"), "key", "BULLA_AZURE_CREDENTIAL"),
    ] {
        let told = doctor(&[(name, value)]).problem(check);
        assert!(told.contains(fix), "{name}: {told}");
    }
    assert_eq!(doctor(&[]).code, 0);
}

/// A log that somebody wrote with the public key, or another machine after a rotation: who can tell?
#[test]
fn a_host_that_only_the_bucket_names_is_not_recommended() {
    let mut vault = KeyVault::new();
    vault.init();
    let (store, theirs) = (vault.world.store(), vault.world.config.clone());
    // This machine knows the store under another key than the log names now.
    vault.world.config = vault.world.dir.path().join("here");
    copy(&theirs, &vault.world.config);
    let known = vault.world.config.join("known_stores.json");
    let text = fs::read_to_string(&known).unwrap();
    fs::write(&known, text.replace("https://127.0.0.1", "https://contoso.vault.azure.net")).unwrap();
    mode(&known, 0o600);
    let found = Found::of(&vault.run_with(&["doctor", &store, "--json"], &[("BULLA_KEYVAULT_HOSTS", None)]));
    let told = found.problem("provider");
    assert!(told.contains("which the store's log names") && !told.contains("HOSTS=127"), "{told}");
}

fn tokens(kind: Kind) {
    let Some(mut machine) = Machine::new(kind) else { return };
    mode(machine.token.file("pin"), 0o600);
    let with = |world: &World, kek: &str| doctor_with(world, &["--kek", kek]);
    let Machine { world, token } = &machine;
    let told = with(world, KEK).problem("key");
    assert!(told.contains("pkcs11-tool") && told.contains("--sensitive"), "{told}");

    // `init` and `rotate` refuse what is a problem here.
    for (label, words, attribute) in [
        ("loose", "", "CKA_DESTROYABLE"),
        ("open", " keep extractable", "CKA_EXTRACTABLE"),
        ("plain", " keep plain", "CKA_SENSITIVE"),
    ] {
        token.manage(&format!("aes {label} 01{words}"));
        let kek = format!("pkcs11:token=Bulla%20Test;object={label}");
        let told = with(world, &kek).problem("protection");
        assert!(told.contains(attribute) && told.contains("--allow-unprotected-key"), "{told}");
        let line = world.fails(2, &["init", &world.store(), "--kek", &kek]);
        assert!(line.contains(attribute) && line.contains("--allow-unprotected-key"), "{line}");
    }
    token.manage("aes late 01 extractable");
    token.manage("set late 01 confine");
    token.manage("aes registry 01 keep");
    let late = "pkcs11:token=Bulla%20Test;object=late";
    assert!(with(world, late).warning("protection").contains("CKA_NEVER_EXTRACTABLE"));
    let found = with(world, KEK);
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    world.ok(&["init", &world.store(), "--kek", KEK]);
    assert_eq!(doctor(world).wrong(), Vec::<String>::new());
    let open = "pkcs11:token=Bulla%20Test;object=open";
    assert!(world.fails(2, &["rotate", &world.store(), "--kek", open]).contains("CKA_EXTRACTABLE"));

    // In use with the risk accepted, it is a warning.
    let other = world.path("other");
    world.ok(&["init", &other, "--kek", open, "--allow-unprotected-key"]);
    let found = Found::of(&world.run(&["doctor", &other, "--json"]));
    assert_eq!(found.wrong(), ["protection"], "{found:#?}");

    token.remove();
    let found = doctor(world);
    assert_eq!(found.code, 5);
    found.problem("key");
    token.insert();

    mode(machine.token.file("pin"), 0o644);
    let told = doctor(&machine.world).problem("permissions");
    assert!(told.contains("opens the token"), "{told}");
    mode(machine.token.file("pin"), 0o600);
    fs::write(machine.token.file("pin"), "000000").unwrap();
    let found = doctor(&machine.world);
    assert!(found.problem("key").contains("BULLA_PKCS11_PIN_FILE") && found.code == 4, "{found:#?}");
    machine.world.environment.retain(|(name, _)| *name != "BULLA_PKCS11_MODULE");
    let told = doctor(&machine.world).problem("provider");
    assert!(told.contains("BULLA_PKCS11_MODULE"), "{told}");
}

#[test]
fn softhsm_keys_that_can_leave_their_token_wrong_pins_and_missing_tokens() {
    tokens(Kind::SoftHsm);
}

#[test]
fn kryoptic_keys_that_can_leave_their_token_wrong_pins_and_missing_tokens() {
    tokens(Kind::Kryoptic);
}

#[test]
fn a_mechanism_that_a_token_lacks_is_named() {
    let Some(machine) = Machine::new(Kind::SoftHsm) else { return };
    mode(machine.token.file("pin"), 0o600);
    machine.token.manage("rsa old 01 keep");
    let told = doctor_with(&machine.world, &["--kek", "pkcs11:token=Bulla%20Test;object=old"]).problem("key");
    assert!(
        told.contains("CKM_RSA_PKCS_OAEP with SHA-256") && told.contains("BULLA_PKCS11_ALLOW_OAEP_SHA1=1"),
        "{told}"
    );
}
