//! The story holds, leaves nothing, and touches nothing of the user's.

use crate::world::{World, files};

#[test]
fn quickstart_tells_its_story_and_removes_everything() {
    let world = World::new();
    let layer = world.write("layer-file", &b"some content that is easy to find ".repeat(20_000));
    let told = world.ok(&["quickstart", "--layer", &layer, "--dir", "try"]);
    let text = told.text();
    for part in [
        "$ bulla vault create vault",
        "$ bulla init --kek",
        "$ bulla put layer.tar",
        "not there",
        "\"keyIdentifier\"",
        "$ bulla rotate",
        "reads refuse with `Revoked`",
        "reads work again",
        "Timings",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!world.dir.path().join("try").exists());
    assert!(!world.config.exists());
}

#[test]
fn quickstart_keeps_what_is_asked_for() {
    let world = World::new();
    let layer = world.write("layer-file", &b"some content that is easy to find ".repeat(20_000));
    world.ok(&["quickstart", "--layer", &layer, "--dir", "try", "--keep"]);
    let kept = world.dir.path().join("try");
    let mut command = world.command(&["ls"]);
    command
        .env("BULLA_CONFIG_DIR", kept.join("config"))
        .env("BULLA_STORE", kept.join("store"))
        .env_remove("BULLA_VAULT_PASSPHRASE")
        .env("BULLA_VAULT_PASSPHRASE_FILE", kept.join("passphrase"));
    let listed = crate::world::ran(command.output().unwrap());
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(listed.text().lines().count() >= 3);
    assert!(!files(kept.join("store/data")).is_empty());
    world.fails(7, &["quickstart", "--layer", &layer, "--dir", "try"]);
}
