//! One line that names the fix, a code that scripts can tell apart.

use std::fs;

use serde_json::Value;

use crate::world::{IDENTITY, World, ran};

#[test]
fn errors_name_the_fix() {
    let world = World::with_store();
    let store = world.store();
    let digest = format!("sha256:{}", "0".repeat(64));
    let none = world.path("none");
    for (code, arguments, fix) in [
        (3, &["get", &store, &digest][..], "bulla ls"),
        (3, &["ls", &none], "bulla init"),
        (3, &["put", &store, &none], "none"),
        (2, &["put", &store, "."], "tar -c"),
        (2, &["get", &store, "sha256:123"], "digest"),
        (2, &["get", &store, &digest, "-o", "."], "name a file"),
        (2, &["frobnicate"], "usage: bulla"),
        (2, &["get", &store], "BULLA_STORE"),
        (2, &["init", &none, "--kek", "https://keys.example/keys/k"], "BULLA_KEYVAULT_HOSTS=keys.example"),
        (2, &["init", &none, "--kek", "pkcs11:token=t;object=k"], "BULLA_PKCS11_MODULE"),
        (2, &["init", &none, "--kek", "keys/k"], "vault"),
        (3, &["init", &none, "--kek", &format!("vault+file://{none}/keys/k")], "bulla vault create"),
        (7, &["init", &store, "--kek", &world.kek(), "--identity", IDENTITY], "already"),
        (4, &["init", &none, "--kek", &world.kek()], "set-policy"),
        (2, &["init", "ftp://host/x"], "s3:"),
        (3, &["adopt", &none, &store], "rootdirectory"),
        (3, &["adopt", &world.path("vault"), &store], "has no docker/registry/v2"),
        (3, &["adopt", &world.path("docker/registry"), &store], "that contains `docker`: "),
        (3, &["vault", "key", "show", &world.path("vault"), "--name", "other"], "no key other"),
        (3, &["vault", "delete-policy", &world.path("vault"), "--identity", "x"], IDENTITY),
        (
            2,
            &["vault", "set-policy", &world.path("vault"), "--identity", "x", "--key-permissions", "wrap"],
            "wrapKey",
        ),
    ] {
        let line = world.fails(code, arguments);
        assert!(line.contains(fix), "{arguments:?}: {line}");
    }
}

#[test]
fn a_vault_without_purge_protection_must_be_accepted() {
    let world = World::new();
    let vault = world.path("vault");
    world.ok(&["vault", "create", &vault, "--no-purge-protection"]);
    world.new_version("k");
    world.allow();
    let init = ["init", &world.store(), "--kek", &world.kek(), "--identity", IDENTITY];
    assert!(world.fails(2, &init).contains("--allow-unprotected-key"));
    assert!(!world.dir.path().join("store").exists(), "nothing is left of a refused init");
    world.ok(&[&init[..], &["--allow-unprotected-key"]].concat());
}

#[test]
fn json_errors_are_one_object_on_stderr() {
    let world = World::with_store();
    let digest = format!("sha256:{}", "0".repeat(64));
    for (code, kind, arguments) in [
        (3, "not_found", &["get", &world.store(), &digest][..]),
        (2, "invalid", &["frobnicate"]),
        (2, "invalid", &["ls"]),
    ] {
        let ran = world.run(&[arguments, &["--json"]].concat());
        assert_eq!((ran.code, ran.stdout.as_slice()), (code, &b""[..]));
        let error: Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(error["error"]["kind"], kind);
        assert!(error["error"]["message"].is_string());
    }
}

/// What is said beside an error too: scripts read stderr line by line.
#[test]
fn with_json_all_of_stderr_is_json() {
    let world = World::with_store();
    let hex = "0".repeat(64);
    let link = world.dir.path().join("source/docker/registry/v2/repositories/app/_layers/sha256").join(&hex);
    fs::create_dir_all(&link).unwrap();
    fs::write(link.join("link"), "no digest").unwrap();
    let logged = |log: &str, code: i32, arguments: &[&str]| -> Vec<Value> {
        let mut command = world.command(&[arguments, &["--json"]].concat());
        let ran = ran(command.env("RUST_LOG", log).output().unwrap());
        assert_eq!(ran.code, code, "{ran:?}");
        ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let told = |code, arguments: &[&str]| logged("off", code, arguments);
    let adopt = ["adopt", &world.path("source"), &world.store()];
    let lines = told(8, &adopt);
    let [warning, error] = &lines[..] else { panic!("{lines:?}") };
    let message = warning["warning"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("not adopted: app: link ") && message.ends_with("names no digest"),
        "{message}"
    );
    assert_eq!(error["error"]["kind"], "corrupt");

    fs::write(link.join("link"), format!("sha256:{hex}")).unwrap();
    let lines = told(0, &adopt);
    assert!(lines[0]["note"]["message"].as_str().unwrap().contains("--delete-source"), "{lines:?}");

    let lines = logged("bulla=trace,object_store=trace", 0, &["verify", &world.store()]);
    assert!(lines.iter().any(|line| line["level"].is_string()), "{lines:?}");
}

#[test]
fn causes_are_told_on_request() {
    let world = World::with_store();
    fs::remove_dir_all(world.path("vault")).unwrap();
    let line = world.fails(5, &["ls", &world.store()]);
    assert!(line.contains("attach"), "{line}");
    let more = world.run(&["put", &world.path("x"), "none", "-v"]);
    assert!(more.stderr.lines().count() >= 1 && more.code == 3, "{more:?}");
}

#[test]
fn passphrases_come_from_a_variable_or_a_file() {
    let world = World::with_store();
    let with = |name: &str, value: &str| {
        let mut command = world.command(&["ls", &world.store()]);
        command.env_remove("BULLA_VAULT_PASSPHRASE").env(name, value);
        ran(command.output().unwrap())
    };
    let file = world.write("passphrase", b"open sesame\n");
    assert_eq!(with("BULLA_VAULT_PASSPHRASE_FILE", &file).code, 0);
    let wrong = with("BULLA_VAULT_PASSPHRASE", "wrong");
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("BULLA_VAULT_PASSPHRASE") && !wrong.stderr.contains("wrong"), "{wrong:?}");
    let missing = with("BULLA_VAULT_PASSPHRASE", "");
    assert!(missing.code == 2 && missing.stderr.contains("BULLA_VAULT_PASSPHRASE_FILE"), "{missing:?}");
}

#[test]
fn a_damaged_configuration_is_not_written_over() {
    let world = World::with_store();
    let known = world.config.join("known_stores.json");
    fs::write(&known, b"{").unwrap();
    assert!(world.fails(8, &["ls", &world.store()]).contains("known_stores.json"));
    assert!(world.fails(8, &["init", &world.path("other")]).contains("known_stores.json"));
    assert_eq!(fs::read(&known).unwrap(), b"{");
    assert!(!world.dir.path().join("other").exists(), "looked at before a store is made");
}
