//! The customer's story holds, start to end, and cleans up behind itself.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use bulla_tests::skipped;

use crate::world::{World, ran};

#[test]
fn the_customers_story_holds_and_leaves_nothing() {
    if Command::new("bash").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("there is no bash");
    }
    let world = World::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/acr-story.sh");
    let told = Command::new("bash")
        .arg(script)
        .env("BULLA", world.command(&[]).get_program())
        .env("TMPDIR", world.dir.path())
        .current_dir(world.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = ran(told);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{}", told.text());
    for part in [
        "$ bulla vault serve vault",
        "$ bulla init store --encryption encryption.json",
        "\"keyVaultProperties\"",
        "$ bulla rotate store --identity system",
        "`bulla vault key recover DIR --name registry-2`",
        "purge protection",
    ] {
        assert!(told.text().contains(part), "{part}\n{}", told.text());
    }
    let last = told.text().lines().last().unwrap();
    assert!(last.starts_with("acr-story: ") && last.contains("all of them hold"), "{last}");
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 0, "something is left");
    let served = told.text().split("\"keyIdentifier\": \"https://").nth(1).unwrap();
    let (address, _) = served.split_once('/').unwrap();
    assert!(TcpStream::connect(address).is_err(), "the server still runs at {address}");
}
