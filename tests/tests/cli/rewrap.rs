//! Rewrap and direct mode: what they say, and that no moment to be killed at is a bad one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{IDENTITY, World, ran};

/// How long each test goes on killing.
const KILLING: Duration = Duration::from_secs(15);

const BLOBS: u32 = 20;

fn store_in(mode: &str) -> World {
    let world = World::with_vault();
    let (store, kek) = (world.store(), world.kek());
    let arguments = ["init", &store, "--kek", &kek, "--identity", IDENTITY, "--mode", mode];
    world.ok(&[&arguments[..], &["--revocation-bound", "500ms"]].concat());
    world
}

/// Digests and contents.
fn fill(world: &World) -> Vec<(String, Vec<u8>)> {
    let small = (0..BLOBS).map(|n| n.to_be_bytes().repeat(50));
    let large = vec![7; 200_000];
    let files: Vec<String> = small
        .clone()
        .chain([large.clone()])
        .enumerate()
        .map(|(n, bytes)| world.write(&format!("blob{n}"), &bytes))
        .collect();
    let mut digests = Vec::new();
    for (file, bytes) in files.iter().zip(small.chain([large])) {
        digests.push((world.ok(&["put", &world.store(), file]).text().trim().to_owned(), bytes));
    }
    digests
}

fn events(stdout: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn all_there(world: &World, blobs: &[(String, Vec<u8>)]) {
    for (digest, bytes) in blobs {
        assert_eq!(&world.ok(&["get", &world.store(), digest, "--verify"]).stdout, bytes);
    }
    let listed = world.ok(&["ls", &world.store()]);
    assert_eq!(listed.text().lines().count(), blobs.len());
}

/// Starts the command and kills it at some moment, again and again.
pub(crate) fn kill_again_and_again(world: &World, arguments: &[&str], mut between: impl FnMut(u32)) {
    let started = Instant::now();
    let mut kills = 0;
    while started.elapsed() < KILLING {
        let mut child = world.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let random = RandomState::new().build_hasher().finish();
        sleep(Duration::from_millis(random % 2_500));
        child.kill().unwrap();
        child.wait().unwrap();
        between(kills);
        kills += 1;
    }
    assert!(kills >= 3, "too slow a machine to kill anything");
}

/// Until a command that was started has written this log record.
fn wait_for_record(world: &World, number: u64) {
    let started = Instant::now();
    while !world.dir.path().join(format!("store/store/{number:08}.cbor")).exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "record {number} does not appear");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn rewrap_says_what_it_does_and_what_may_go() {
    let world = store_in("hierarchical");
    let digest = world.put(b"hi\n");
    let text = world.ok(&["rewrap", &world.store()]);
    let mut lines = text.text().lines();
    assert!(lines.next().unwrap().starts_with("1 data key wrapped again under store-key:"), "{text:?}");
    let safe = lines.next().unwrap();
    assert!(safe.starts_with("0 of 1 under store-key:") && safe.contains("safe to retire"), "{text:?}");

    let ran = world.ok(&["rewrap", &world.store(), "--json"]);
    let events = events(&ran.stdout);
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(events[0]["event"], "started");
    assert_eq!((named("waiting"), named("rowDone"), named("counted"), named("retired")), (1, 16, 1, 1));
    let done = events.last().unwrap();
    assert_eq!(
        (&done["event"], &done["rewrapped"], &done["resumed"]),
        (&"done".into(), &1.into(), &false.into())
    );
    assert_eq!(done["counted"]["under"][done["to"].as_str().unwrap()], 1);

    let status = world.json(&["status", &world.store(), "--verbose"]);
    assert_eq!(status["mode"], "hierarchical");
    assert_eq!(status["storeKeys"].as_array().unwrap().len(), 3);
    let gc = world.json(&["gc", &world.store(), "--grace", "0s"]);
    assert_eq!(gc["shredded"]["storeKeys"].as_array().unwrap().len(), 2);
    let status = world.json(&["status", &world.store(), "--verbose"]);
    assert_eq!(status["storeKeys"].as_array().unwrap().len(), 1);
    assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
}

#[test]
fn a_damaged_envelope_is_named_and_ends_with_8() {
    let world = store_in("hierarchical");
    let digest = world.put(b"hi\n");
    let envelope = crate::world::files(world.path("store/blobs")).pop().unwrap();
    let intact = std::fs::read(&envelope).unwrap();
    std::fs::write(&envelope, &intact[..intact.len() - 1]).unwrap();
    let line = world.fails(8, &["rewrap", &world.store()]);
    assert!(line.contains(envelope.file_name().unwrap().to_str().unwrap()), "{line}");
    assert!(line.contains("bulla rm"), "{line}");
    std::fs::write(&envelope, intact).unwrap();
    assert!(world.ok(&["rewrap", &world.store()]).text().contains("gone on with"));
    assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
}

#[test]
fn an_interrupted_rewrap_ends_at_once_and_is_gone_on_with() {
    let world = store_in("hierarchical");
    let blobs = fill(&world);
    let child = world
        .command(&["rewrap", &world.store(), "--rate", "5/s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_record(&world, 2);
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let ended = ran(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.text()), (130, ""), "{ended:?}");
    let status = world.json(&["status", &world.store(), "--verbose"]);
    assert!(status["warnings"].to_string().contains("bulla rewrap"), "{status}");
    assert!(world.ok(&["rewrap", &world.store()]).text().contains("gone on with"));
    all_there(&world, &blobs);
}

#[test]
fn rewrap_can_be_killed_at_any_moment() {
    let world = store_in("hierarchical");
    let mut blobs = fill(&world);
    let store = world.store();
    let (deleted, _) = blobs.remove(3);
    kill_again_and_again(&world, &["rewrap", &store, "--rate", "30/s"], |kills| {
        let (digest, bytes) = &blobs[usize::try_from(kills).unwrap() % blobs.len()];
        assert_eq!(&world.ok(&["get", &store, digest]).stdout, bytes);
        if kills == 1 {
            world.ok(&["rm", &store, &deleted]);
        }
    });
    let safe = world.ok(&["rewrap", &store]);
    assert!(safe.text().contains(&format!("0 of {} under store-key:", blobs.len())), "{safe:?}");
    all_there(&world, &blobs);
    world.fails(3, &["get", &store, &deleted]);
}

#[test]
fn rotate_can_be_killed_at_any_moment() {
    let world = store_in("hierarchical");
    let blobs = fill(&world);
    let store = world.store();
    kill_again_and_again(&world, &["rotate", &store], |kills| {
        let (digest, bytes) = &blobs[usize::try_from(kills).unwrap() % blobs.len()];
        assert_eq!(&world.ok(&["get", &store, digest]).stdout, bytes);
        world.new_version("k");
    });
    world.ok(&["rotate", &store]);
    let status = world.json(&["status", &store, "--verbose"]);
    assert_eq!(status["keyVersions"].as_array().unwrap().len(), 1, "{status}");
    all_there(&world, &blobs);
}

#[test]
fn a_rotation_in_direct_mode_can_be_killed_at_any_moment() {
    let world = store_in("direct");
    let mut blobs = fill(&world);
    let store = world.store();
    let (deleted, _) = blobs.remove(3);
    world.new_version("k");
    kill_again_and_again(&world, &["rotate", &store, "--rate", "30/s"], |kills| {
        let (digest, bytes) = &blobs[usize::try_from(kills).unwrap() % blobs.len()];
        assert_eq!(&world.ok(&["get", &store, digest]).stdout, bytes);
        match kills {
            1 => drop(world.ok(&["rm", &store, &deleted])),
            4 => drop(world.new_version("k")),
            _ => {}
        }
    });
    world.ok(&["rotate", &store]);
    let status = world.json(&["status", &store, "--verbose"]);
    assert_eq!(status["mode"], "direct");
    assert_eq!(status["keyVersions"].as_array().unwrap().len(), 1, "{status}");
    all_there(&world, &blobs);
    world.fails(3, &["get", &store, &deleted]);
}

#[test]
fn in_direct_mode_a_rotation_wraps_every_data_key_again() {
    let world = store_in("direct");
    let digest = world.put(b"hi\n");
    let old = world.json(&["status", &world.store(), "--verbose"])["key"]["versionedIdentifier"].clone();
    world.new_version("k");
    let text = world.ok(&["rotate", &world.store()]);
    assert!(text.text().contains("1 data key wrapped again under"), "{text:?}");
    assert!(text.text().contains(&format!("0 of 1 under {}", old.as_str().unwrap())), "{text:?}");
    let line = world.fails(2, &["rewrap", &world.store()]);
    assert!(line.contains("bulla rotate"), "{line}");
    // The old version is not needed any more.
    let version = old.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    world.ok(&["vault", "key", "disable", &world.path("vault"), "--name", "k", "--version", &version]);
    assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
}

/// Whoever leaves the service's key in direct mode keeps it until the sweep is done, however that is finished.
#[test]
fn the_service_key_is_destroyed_when_the_sweep_is_done_and_not_before() {
    let world = World::with_vault();
    let store = world.store();
    world.ok(&["init", &store, "--mode", "direct", "--revocation-bound", "500ms"]);
    let blobs = fill(&world);
    let kek = world.kek();
    let rotate = ["rotate", &store, "--kek", &kek, "--identity", "system", "--rate", "5/s"];
    world.ok(&[
        "vault",
        "set-policy",
        &world.path("vault"),
        "--identity",
        "system",
        "--key-permissions",
        "get",
        "wrapKey",
        "unwrapKey",
    ]);
    let mut child = world.command(&rotate).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_record(&world, 3);
    child.kill().unwrap();
    child.wait().unwrap();
    let services = || crate::world::files(world.config.join("service-vaults")).len();
    assert!(services() > 0);
    all_there(&world, &blobs);
    world.ok(&["rewrap", &store]);
    assert_eq!(services(), 0);
    all_there(&world, &blobs);
}
