//! `bulla gc`: what it prints, and killed at any moment while others put.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::thread::{self, sleep};
use std::time::Duration;

use serde_json::json;

use crate::world::{IDENTITY, World, files, ran};

const KIB: usize = 1 << 10;

/// With a revocation bound that a gc with a short grace can wait for.
fn world() -> World {
    let world = World::with_vault();
    let store = world.store();
    world.ok(&["init", &store, "--kek", &world.kek(), "--identity", IDENTITY, "--revocation-bound", "2s"]);
    world
}

/// Bytes unlike any others.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 509 + seed * 97 + seed / 256) % 256).unwrap()).collect()
}

#[test]
fn deleted_blobs_go_and_what_is_young_stays() {
    let world = world();
    let store = world.store();
    let kept = world.put(&bytes(1, 100 * KIB));
    let deleted = world.put(&bytes(2, 200 * KIB));
    world.ok(&["rm", &store, &deleted]);
    let report = world.json(&["gc", &store]);
    assert_eq!((&report["blobs"], &report["removed"]["objects"]), (&json!(1), &json!(0)));
    assert_eq!(report["tooYoung"]["objects"], 1);
    let before = files(world.path("store"));
    let dry = world.json(&["gc", &store, "--grace", "0s", "--dry-run"]);
    assert_eq!((&dry["dryRun"], &dry["removed"]["objects"]), (&json!(true), &json!(1)));
    assert!(world.ok(&["gc", &store, "--grace", "0s", "--dry-run"]).text().contains("would go  1 object"));
    assert_eq!(files(world.path("store")), before);
    let text = world.ok(&["gc", &store, "--grace", "0s"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("removed  1 object, 200.") && !text.contains("too young"), "{text}");
    assert_eq!(files(world.path("store/data")).len(), 1);
    assert_eq!(world.ok(&["get", &store, &kept, "--verify"]).stdout, bytes(1, 100 * KIB));
}

#[test]
fn what_it_can_not_read_stops_it_and_the_error_says_what_to_do() {
    let world = world();
    let store = world.store();
    let digest = world.put(&bytes(1, 10));
    let deleted = world.put(&bytes(2, 200 * KIB));
    world.ok(&["rm", &store, &deleted]);
    let envelope = files(world.path("store/blobs")).pop().unwrap();
    std::fs::write(&envelope, b"damage").unwrap();
    let error = world.fails(8, &["gc", &store, "--grace", "0s"]);
    assert!(error.contains(&digest) && error.contains("`bulla rm`"), "{error}");
    world.ok(&["rm", &store, &digest]);
    world.ok(&["gc", &store, "--grace", "0s"]);
    assert!(files(world.path("store/data")).is_empty());
    world.deny();
    world.fails(4, &["gc", &store]);
}

/// Nothing that a put printed the digest of is ever lost, and the last gc leaves no garbage.
#[test]
fn killed_at_random_moments_while_others_put_it_loses_nothing() {
    let world = world();
    let store = world.store();
    let mut moment = 12_345_u64;
    let mut put = BTreeSet::new();
    for round in 0..8_usize {
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = Duration::from_millis((moment >> 33) % 3500);
        let gc = || {
            let mut command = world.command(&["gc", &store, "--grace", "0s"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let (mut killed, other) = (gc(), gc());
        let puts = thread::scope(|scope| {
            let puts: Vec<_> = (0..2)
                .map(|writer| {
                    let seed = round * 10 + writer;
                    let (world, store) = (&world, &store);
                    scope.spawn(move || {
                        let file = world.write(&format!("file{writer}"), &bytes(seed, 300 * KIB));
                        let put = world.run(&["put", store, &file]);
                        (seed, put)
                    })
                })
                .collect();
            sleep(wait);
            // It may have ended by itself.
            let _ = killed.kill();
            killed.wait().unwrap();
            puts.into_iter().map(|put| put.join().unwrap()).collect::<Vec<_>>()
        });
        for (seed, ran) in puts {
            // One that the gc has overtaken says so.
            assert!(ran.code == 0 || (ran.code == 7 && ran.stderr.contains("put the blob again")), "{ran:?}");
            if ran.code == 0 {
                put.insert((seed, ran.text().trim().to_owned()));
            }
        }
        let ended = ran(other.wait_with_output().unwrap());
        assert_eq!(ended.code, 0, "{ended:?}");
        if round % 3 == 0
            && let Some((_, digest)) = put.pop_first()
        {
            world.ok(&["rm", &store, &digest]);
        }
    }
    world.ok(&["gc", &store, "--grace", "0s"]);
    assert!(put.len() > 8, "{put:?}");
    for (seed, digest) in &put {
        assert_eq!(world.ok(&["get", &store, digest, "--verify"]).stdout, bytes(*seed, 300 * KIB));
    }
    let report = world.json(&["verify", &store, "--deep"]);
    assert_eq!((&report["damaged"], &report["unnamed"]["objects"]), (&json!([]), &json!(0)));
    assert_eq!(report["blobs"], json!(put.len()));
}
