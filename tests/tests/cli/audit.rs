//! The audit log from the shell: kept, exported, verified by somebody with nothing else, and held against the bucket.

use std::fs;

use serde_json::Value;

use crate::world::{Ran, World, copy};

/// A store with an audit log, and the operator's keys.
fn audited() -> World {
    let world = World::with_store();
    world.ok(&["audit", "start", &world.store()]);
    // By a name alone, in the folder where one is.
    let public = world.ok(&["audit", "keygen", &world.store(), "--out", "audit.key"]);
    fs::write(world.path("audit.pub"), &public.stdout).unwrap();
    world
}

fn checkpoint(world: &World, name: &str) -> String {
    let note = world.ok(&["audit", "checkpoint", &world.store(), "--key", &world.path("audit.key")]);
    world.write(name, &note.stdout)
}

fn export(world: &World) -> String {
    let path = world.path("audit.export");
    world.ok(&["audit", "export", &world.store(), "--key", &world.path("audit.key"), "-o", &path]);
    path
}

/// As an auditor on another machine: no configuration, no store, no vault.
fn verify(world: &World, arguments: &[&str]) -> Ran {
    let auditor = World::new();
    for name in ["audit.export", "audit.pub", "early"] {
        if let Ok(bytes) = fs::read(world.path(name)) {
            auditor.write(name, &bytes);
        }
    }
    auditor.run(&[&["audit", "verify", "audit.export", "--key", "audit.pub", "--json"], arguments].concat())
}

fn proven(world: &World, arguments: &[&str]) -> Value {
    let ran = verify(world, arguments);
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn refused(world: &World, arguments: &[&str]) -> String {
    let ran = verify(world, arguments);
    assert_eq!((ran.code, ran.text()), (8, ""), "{ran:?}");
    ran.stderr
}

#[test]
fn an_export_proves_which_key_versions_opened_the_store_and_its_rotations() {
    let world = audited();
    world.put(b"some bytes");
    checkpoint(&world, "early");
    world.new_version("k");
    world.ok(&["rotate", &world.store()]);
    world.ok(&["ls", &world.store()]);
    export(&world);
    let report = proven(&world, &["--from", "early"]);
    let keys = report["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2, "{report:#}");
    assert!(keys.iter().all(|key| key["unwraps"].as_u64().unwrap() > 0));
    assert_eq!(report["rotations"].as_array().unwrap().len(), 1);
    assert_eq!((&report["rotations"][0]["outcome"], &report["logRecord"]), (&"done".into(), &3.into()));
    assert!(report["opened"].as_array().unwrap().len() >= 4);
    assert!(report["continues"].as_u64().unwrap() > 0);
    let text = String::from_utf8(world.read("audit.export")).unwrap();
    assert!(text.starts_with("bulla-audit-export-v1\n") && text.contains("\nbulla-log 3 "), "{text}");
}

#[test]
fn an_export_that_was_tampered_with_is_refused_with_exit_code_8() {
    let world = audited();
    world.put(b"some bytes");
    checkpoint(&world, "early");
    world.put(b"other bytes");
    let path = export(&world);
    proven(&world, &[]);
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let mut removed = lines.clone();
    removed.remove(3);
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    let mut altered = lines.clone();
    altered[2] = altered[3];
    let mut truncated = lines.clone();
    truncated.truncate(4);
    for (tampered, says) in
        [(removed, "removed"), (swapped, "altered"), (altered, "altered"), (truncated, "not an export")]
    {
        fs::write(&path, tampered.join("\n") + "\n").unwrap();
        let line = refused(&world, &[]);
        assert!(line.contains(says), "{says}: {line}");
    }
    // An older export than the auditor's checkpoint.
    fs::write(&path, &good).unwrap();
    checkpoint(&world, "early");
    let line = refused(&world, &["--from", "early"]);
    assert!(line.contains("truncated or is older"), "{line}");
}

#[test]
fn an_export_needs_the_right_key() {
    let world = audited();
    export(&world);
    world.ok(&["audit", "keygen", &world.store(), "--out", &world.path("other.key")]);
    let other = world.ok(&["audit", "export", &world.store(), "--key", &world.path("other.key")]);
    fs::write(world.path("audit.export"), other.stdout).unwrap();
    assert!(refused(&world, &[]).contains("not signed by this key"));
    let line = world.fails(7, &["audit", "keygen", &world.store(), "--out", &world.path("audit.key")]);
    assert!(line.contains("never overwritten"), "{line}");
    let line = world.fails(2, &["audit", "export", &world.store(), "--key", &world.path("audit.pub")]);
    assert!(line.contains("keygen"), "{line}");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(world.path("audit.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A key of another store.
    let second = World::with_store();
    second.ok(&["audit", "start", &second.store()]);
    let line = second.fails(2, &["audit", "checkpoint", &second.store(), "--key", &world.path("audit.key")]);
    assert!(line.contains("the key is for bulla-audit/"), "{line}");
}

#[test]
fn there_is_no_log_until_one_is_started() {
    let world = World::with_store();
    world.ok(&["audit", "keygen", &world.store(), "--out", &world.path("audit.key")]);
    let line = world.fails(3, &["audit", "export", &world.store(), "--key", &world.path("audit.key")]);
    assert!(line.contains("bulla audit start"), "{line}");
    assert_eq!(world.json(&["audit", "start", &world.store()])["started"], true);
    assert_eq!(world.json(&["audit", "start", &world.store()])["started"], false);
}

#[test]
fn a_fresh_machine_with_a_checkpoint_refuses_a_bucket_rolled_back() {
    let world = audited();
    world.put(b"some bytes");
    let status = world.json(&["status", &world.store(), "--verbose"]);
    let anchor = status["store"]["anchor"].as_str().unwrap().to_owned();
    copy(world.dir.path().join("store").as_path(), world.dir.path().join("yesterday").as_path());
    world.new_version("k");
    world.ok(&["rotate", &world.store()]);
    let checkpoint = checkpoint(&world, "today");
    let attach = |world: &World, more: &[&str]| {
        let start = ["attach", &world.store(), "--kek", &world.kek(), "--anchor", &anchor].map(str::to_owned);
        let start: Vec<&str> = start.iter().map(String::as_str).collect();
        world.run(&[&start[..], more].concat())
    };
    let floor =
        ["--checkpoint", &checkpoint, "--checkpoint-key", &world.path("audit.pub")].map(str::to_owned);
    let floor: Vec<&str> = floor.iter().map(String::as_str).collect();
    let fresh = |world: World, name: &str| World { config: world.dir.path().join(name), ..world };
    let world = fresh(world, "fresh-1");
    assert_eq!(attach(&world, &floor).code, 0);
    fs::rename(world.path("store"), world.path("newest")).unwrap();
    fs::rename(world.path("yesterday"), world.path("store")).unwrap();
    let world = fresh(world, "fresh-2");
    let ran = attach(&world, &floor);
    assert_eq!(ran.code, 8, "{ran:?}");
    assert!(ran.stderr.contains("rolled back"), "{ran:?}");
    // Without it nothing tells.
    let world = fresh(world, "fresh-3");
    assert_eq!(attach(&world, &[]).code, 0);
}

#[test]
fn one_entry_is_proven_to_somebody_who_sees_no_other() {
    let world = audited();
    world.put(b"some bytes");
    world.new_version("k");
    world.ok(&["rotate", &world.store()]);
    let export = export(&world);
    let entries = world.ok(&["audit", "verify", &export, "--key", "audit.pub", "--entries"]);
    let entries = entries.text().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let rotated = entries.clone().find(|entry| entry["action"] == "rotate_end").unwrap();
    let number = rotated["entry"].to_string();
    world.ok(&["audit", "prove", &export, "--key", "audit.pub", "--entry", &number, "-o", "proof"]);

    let auditor = World::new();
    for name in ["proof", "audit.pub"] {
        auditor.write(name, &world.read(name));
    }
    let mut proven = auditor.json(&["audit", "verify", "proof", "--key", "audit.pub"]);
    let log = proven.as_object_mut().unwrap().remove("log").unwrap();
    assert!(log.as_str().unwrap().starts_with("bulla-audit/"));
    assert!(proven.as_object_mut().unwrap().remove("entries").unwrap().as_u64() > rotated["entry"].as_u64());
    assert_eq!(proven, rotated);
    let other = entries.clone().find(|entry| entry["action"] == "open").unwrap();
    let text = String::from_utf8(world.read("proof")).unwrap();
    auditor.write(
        "proof",
        text.replace(&format!("index {number}"), &format!("index {}", other["entry"])).as_bytes(),
    );
    let line = auditor.fails(8, &["audit", "verify", "proof", "--key", "audit.pub"]);
    assert!(line.contains("does not have this entry"), "{line}");
    let line = world.fails(3, &["audit", "prove", &export, "--key", "audit.pub", "--entry", "1000000"]);
    assert!(line.contains("give a number from 0 to"), "{line}");
}
