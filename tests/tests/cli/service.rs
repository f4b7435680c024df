//! Service-managed keys: made with the store, destroyed when it leaves them.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::world::{IDENTITY, World, files};

fn service_files(world: &World) -> Vec<PathBuf> {
    files(world.config.join("service-vaults"))
}

fn init(world: &World) -> String {
    let made = world.json(&["init", &world.store()]);
    assert_eq!(made["managedBy"], "service");
    made["key"].as_str().unwrap().to_owned()
}

#[test]
fn a_store_is_enveloped_without_any_key_of_the_users() {
    let world = World::new();
    let key = init(&world);
    assert!(key.starts_with(&format!("vault+file://{}", world.config.display())), "{key}");
    let digest = world.put(b"hi\n");
    assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
    let status = world.json(&["status", &world.store()]);
    assert_eq!(status, json!({ "keyVaultProperties": null, "managedBy": "service", "status": "disabled" }));
    // A new version of the service's own key.
    assert_eq!(world.json(&["rotate", &world.store()])["changed"], true);
    assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
    // What is secret is the owner's alone.
    use std::os::unix::fs::PermissionsExt;
    for file in service_files(&world).iter().chain([&world.config.join("known_stores.json")]) {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    assert_eq!(fs::metadata(&world.config).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn going_to_a_customers_key_destroys_the_services_and_there_is_no_way_back() {
    let world = World::with_vault();
    let service = init(&world);
    let digest = world.put(b"hi\n");
    let store = world.store();
    // A refused rotation leaves everything as it was.
    assert!(world.fails(4, &["rotate", &store, "--kek", &world.kek()]).contains("set-policy"));
    assert!(!service_files(&world).is_empty());
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");

    let rotated = world.json(&["rotate", &store, "--kek", &world.kek(), "--identity", IDENTITY]);
    assert_eq!((&rotated["changed"], &rotated["serviceKeyDestroyed"]), (&json!(true), &json!(true)));
    assert_eq!(service_files(&world), Vec::<PathBuf>::new());
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");
    assert_eq!(world.json(&["status", &store])["status"], "enabled");
    world.fails(3, &["rotate", &store, "--kek", &service]);

    // Another store's service key is no key for this one either.
    let other = world.json(&["init", &world.path("other")]);
    let line = world.fails(2, &["rotate", &store, "--kek", other["key"].as_str().unwrap()]);
    assert!(line.contains("service-managed"), "{line}");
    let line = world.fails(2, &["init", &world.path("third"), "--kek", other["key"].as_str().unwrap()]);
    assert!(line.contains("service-managed"), "{line}");
}

#[test]
fn what_an_interrupted_rotation_left_is_done_by_the_next() {
    let world = World::with_vault();
    init(&world);
    let service = world.config.join("service-vaults");
    let known = world.config.join("known_stores.json");
    let before = fs::read(&known).unwrap();
    let kept = world.dir.path().join("kept");
    crate::world::copy(&service, &kept);
    let rotate = ["rotate", &world.store(), "--kek", &world.kek(), "--identity", IDENTITY];
    world.ok(&rotate);
    // As if it had been killed before the service's key was destroyed.
    crate::world::copy(&kept, &service);
    fs::write(&known, before).unwrap();
    let again = world.json(&rotate);
    assert_eq!((&again["changed"], &again["serviceKeyDestroyed"]), (&json!(false), &json!(true)));
    assert_eq!(service_files(&world), Vec::<PathBuf>::new());
    world.ok(&["ls", &world.store()]);
}

#[test]
fn a_store_that_was_not_made_leaves_no_key() {
    let world = World::with_store();
    world.fails(7, &["init", &world.store()]);
    assert_eq!(service_files(&world), Vec::<PathBuf>::new());
    let line = world.fails(2, &["init", "s3://bucket/prefix"]);
    assert!(line.contains("--service-vault") && line.contains("--kek"), "{line}");
    world.fails(2, &["init", &world.path("new"), "--revocation-bound", "1ms"]);
    assert_eq!(service_files(&world), Vec::<PathBuf>::new());
    assert!(!world.dir.path().join("new").exists());
}

#[test]
fn a_service_vault_can_be_where_the_user_says() {
    let world = World::new();
    let dir = world.path("service");
    world.ok(&["init", &world.store(), "--service-vault", &dir]);
    world.put(b"hi\n");
    assert!(world.dir.path().join("service/vault.json").is_file());
    assert!(world.dir.path().join("service.passphrase").is_file());
    world.fails(7, &["init", &world.path("other"), "--service-vault", &dir]);
    assert!(world.dir.path().join("service.passphrase").is_file(), "another store's key is not touched");
}

#[test]
fn a_store_is_made_from_the_encryption_block_of_a_template() {
    let world = World::with_vault();
    let block = json!({ "Encryption": { "Status": "Enabled", "KeyVaultProperties": {
        "Identity": IDENTITY, "KeyIdentifier": world.kek() } } });
    let file = world.write("encryption.json", block.to_string().as_bytes());
    world.ok(&["init", &world.store(), "--encryption", &file]);
    let status = world.ok(&["status", &world.store()]).stdout;
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&status).unwrap()["keyVaultProperties"]["identity"],
        IDENTITY
    );
    // What `status` prints makes another store like it.
    let shown = world.write("shown.json", &status);
    world.ok(&["init", &world.path("second"), "--encryption", &shown]);
    assert!(
        world
            .fails(2, &["init", &world.path("third"), "--encryption", &file, "--kek", "k"])
            .contains("--kek")
    );
    let broken = world.write("broken.json", br#"{ "status": "enabled" }"#);
    let line = world.fails(2, &["init", &world.path("third"), "--encryption", &broken]);
    assert!(line.contains("keyVaultProperties") && !world.dir.path().join("third").exists(), "{line}");
}
