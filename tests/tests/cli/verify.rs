//! `bulla verify`: what it prints, how it ends.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::world::{World, files, ran};

const MIB: usize = 1 << 20;

#[test]
fn a_sound_store_and_a_damaged_one() {
    let world = World::with_store();
    let store = world.store();
    let small = world.put(b"hi\n");
    let large = world.put(&vec![42; 5 * MIB]);
    let report = world.json(&["verify", &store]);
    assert_eq!(
        (&report["blobs"], &report["damaged"], &report["complete"]),
        (&json!(2), &json!([]), &json!(true))
    );
    assert_eq!(report["read"]["blobs"], 0);
    let report = world.json(&["verify", &store, "--deep"]);
    assert_eq!(report["read"], json!({ "blobs": 2, "bytes": 5 * MIB + 3 }));
    assert!(world.ok(&["verify", &store, "--sample", "100%"]).text().contains("read     2 of them"));
    assert!(world.fails(2, &["verify", &store, "--sample", "2"]).contains("such as 1%"));

    let data = files(world.path("store/data"));
    let mut bytes = std::fs::read(&data[0]).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&data[0], bytes).unwrap();
    assert_eq!(world.json(&["verify", &store])["damaged"], json!([]), "only reading shows it");
    let ran = world.run(&["verify", &store, "--deep"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    let object = data[0].strip_prefix(world.path("store")).unwrap().display().to_string();
    let line = ran.text().lines().next().unwrap().to_owned();
    assert!(line.starts_with(&format!("damaged  {large}  {object}: ")), "{line}");
    assert!(ran.stderr.contains("1 object is damaged; put these blobs again"), "{ran:?}");

    std::fs::remove_file(&data[0]).unwrap();
    let ran = world.run(&["verify", &store, "--json"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["damaged"], json!([{ "digest": large, "object": object, "what": "is missing" }]));
    // It says how to heal it, and that works.
    assert_eq!(world.put(&vec![42; 5 * MIB]), large);
    world.ok(&["verify", &store, "--deep"]);
    world.deny();
    world.fails(4, &["verify", &store]);
    let _ = small;
}

#[test]
fn an_interrupt_tells_what_was_seen_so_far() {
    let world = World::with_store();
    let store = world.store();
    for byte in 0..6_u8 {
        world.put(&vec![byte; 24 * MIB]);
    }
    let mut told = false;
    // However fast the machine is and whatever else it does, some moment is in the middle.
    for wait in (0..400_u64).map(|step| Duration::from_millis(step * 37 % 2000)) {
        let mut command = world.command(&["verify", &store, "--deep", "--json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        sleep(wait);
        // It may be done already.
        Command::new("kill").args(["-INT", &child.id().to_string()]).output().unwrap();
        let ended = ran(child.wait_with_output().unwrap());
        if ended.code == 130 && !ended.stdout.is_empty() {
            let report: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
            assert_eq!((&report["complete"], &report["damaged"]), (&json!(false), &json!([])));
            told = true;
            break;
        }
    }
    assert!(told, "on a machine this fast, put more");
}
