//! What the bucket may not decide: which store this is, how new it is, which envelope is whose.

use std::fs;

use crate::world::{IDENTITY, World, copy, files};

/// The same machine with nothing remembered.
fn stranger(mut world: World) -> World {
    world.config = world.dir.path().join("other-config");
    world
}

fn anchor(world: &World) -> String {
    world.json(&["status", &world.store(), "--verbose"])["store"]["anchor"].as_str().unwrap().to_owned()
}

#[test]
fn another_machine_attaches_with_the_anchor() {
    let world = World::with_store();
    let digest = world.put(b"hi\n");
    let anchor = anchor(&world);
    let world = stranger(world);
    let store = world.store();
    let line = world.fails(2, &["get", &store, &digest]);
    assert!(line.contains("bulla attach") && line.contains("--trust-on-first-use"), "{line}");
    // Neither anchor nor trust.
    world.fails(2, &["attach", &store, "--kek", &world.kek()]);
    // The key id in the bucket does not say where the vault is.
    assert!(world.fails(2, &["attach", &store, "--anchor", &anchor]).contains("--kek"));
    let wrong = format!("bulla-anchor-v1:{}", "a".repeat(52));
    let line = world.fails(8, &["attach", &store, "--kek", &world.kek(), "--anchor", &wrong]);
    assert!(line.contains("forgery"), "{line}");
    world.fails(2, &["get", &store, &digest]);
    world.ok(&["attach", &store, "--kek", &world.kek(), "--anchor", &anchor]);
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");
}

#[test]
fn trust_on_first_use_trusts_nothing_else_afterwards() {
    let world = stranger(World::with_store());
    let store = world.store();
    world.ok(&["attach", &store, "--kek", &world.kek(), "--trust-on-first-use"]);
    world.ok(&["ls", &store]);
    // Another store appears in its place.
    fs::rename(world.path("store"), world.path("moved")).unwrap();
    let other = World { config: world.dir.path().join("forger"), ..world };
    other.ok(&["init", &other.store(), "--kek", &other.kek(), "--identity", IDENTITY]);
    let world = World { config: other.dir.path().join("other-config"), ..other };
    let refused = |arguments: &[&str]| {
        let line = world.fails(8, arguments);
        assert!(line.contains("rolled back") || line.contains("anchor"), "{line}");
    };
    refused(&["ls", &store]);
    refused(&["attach", &store, "--kek", &world.kek(), "--trust-on-first-use"]);
    // The first one, in its new place, is known by its anchor only.
    let moved = world.path("moved");
    assert!(world.fails(2, &["ls", &moved]).contains("attach"));
}

#[test]
fn a_bucket_that_was_rolled_back_is_refused() {
    let world = World::with_store();
    let store = world.store();
    let digest = world.put(b"hi\n");
    let old = world.dir.path().join("old");
    copy(world.dir.path().join("store").as_path(), &old);
    world.new_version("k");
    world.ok(&["rotate", &store]);

    // The newest record is gone.
    let log = files(world.path("store/store"));
    let newest = log.last().unwrap();
    let bytes = fs::read(newest).unwrap();
    fs::remove_file(newest).unwrap();
    assert!(world.fails(8, &["get", &store, &digest]).contains("rolled back"));
    fs::write(newest, &bytes).unwrap();
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, b"hi\n");

    // An old copy of everything is in its place.
    fs::rename(world.path("store"), world.path("new")).unwrap();
    copy(&old, world.dir.path().join("store").as_path());
    for arguments in
        [&["get", &store, &digest][..], &["ls", &store], &["put", &store, "to-put"], &["status", &store]]
    {
        assert!(world.fails(8, arguments).contains("rolled back"), "{arguments:?}");
    }
    // A damaged record is no way around it either.
    fs::remove_dir_all(world.path("store")).unwrap();
    fs::rename(world.path("new"), world.path("store")).unwrap();
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(newest, &damaged).unwrap();
    world.fails(8, &["get", &store, &digest]);
}

#[test]
fn swapped_envelopes_and_data_are_refused() {
    let world = World::with_store();
    let store = world.store();
    let small = [world.put(b"one\n"), world.put(b"two\n")];
    let envelopes = files(world.path("store/blobs"));
    let bytes: Vec<Vec<u8>> = envelopes.iter().map(|file| fs::read(file).unwrap()).collect();
    fs::write(&envelopes[0], &bytes[1]).unwrap();
    fs::write(&envelopes[1], &bytes[0]).unwrap();
    for digest in &small {
        assert!(world.fails(8, &["get", &store, digest]).contains("put the blob again"));
        world.fails(8, &["stat", &store, digest]);
    }
    // Putting heals.
    world.put(b"one\n");
    assert_eq!(world.ok(&["get", &store, &small[0]]).stdout, b"one\n");

    let large = world.put(&vec![1; 200_000]);
    let data = files(world.path("store/data"));
    let mut damaged = fs::read(&data[0]).unwrap();
    damaged[100_000] ^= 1;
    fs::write(&data[0], &damaged).unwrap();
    // Nothing that did not authenticate comes out, and no file appears.
    let ran = world.run(&["get", &store, &large, "-o", "out"]);
    assert_eq!(ran.code, 8);
    assert!(!world.dir.path().join("out").exists());
    fs::remove_file(&data[0]).unwrap();
    world.fails(8, &["get", &store, &large]);
}
