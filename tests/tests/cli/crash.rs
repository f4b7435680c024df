//! Killed, interrupted, cut off, and two at once.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::world::{World, files, ran};

const MIB: usize = 1 << 20;

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A put of standard input that stays in its middle: data is in the store, and more is to come.
fn half_put(world: &World) -> Child {
    let mut child = world
        .command(&["put", &world.store(), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let stdin = child.stdin.as_mut().unwrap();
    while files(world.path("store/data")).is_empty() {
        stdin.write_all(&vec![42; MIB]).unwrap();
        assert!(started.elapsed() < Duration::from_secs(60), "no data object appears");
    }
    child
}

#[test]
fn killed_in_the_middle_of_a_put_nothing_half_is_visible() {
    let world = World::with_store();
    let digest = world.put(b"hi\n");
    for _ in 0..3 {
        let mut child = half_put(&world);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(world.ok(&["ls", &world.store()]).text().trim(), digest);
        assert_eq!(world.ok(&["get", &world.store(), &digest]).stdout, b"hi\n");
        for file in files(world.path("store/data")) {
            std::fs::remove_file(file).unwrap();
        }
    }
    let bytes = vec![42; 10 * MIB];
    let digest = world.put(&bytes);
    assert_eq!(world.ok(&["get", &world.store(), &digest, "--verify"]).stdout, bytes);
}

#[test]
fn an_interrupted_put_removes_what_it_uploaded() {
    let world = World::with_store();
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = half_put(&world);
        // Stays open: to its end the put would be done, and right.
        let stdin = child.stdin.take();
        signal(&child, name);
        let ended = ran(child.wait_with_output().unwrap());
        drop(stdin);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.starts_with("error: interrupted"), "{ended:?}");
        assert_eq!(ended.stdout, b"");
        assert!(files(world.path("store/data")).is_empty());
        assert_eq!(world.ok(&["ls", &world.store()]).stdout, b"");
    }
}

#[test]
fn an_interrupted_get_leaves_no_file() {
    let world = World::with_store();
    let digest = world.put(&vec![42; 64 * MIB]);
    // A pipe that nobody reads keeps `get` in its middle; a file beside shows that partial files go too.
    let mut child = world
        .command(&["get", &world.store(), &digest])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
    signal(&child, "-INT");
    assert_eq!(ran(child.wait_with_output().unwrap()).code, 130);

    // A data object that nobody ever writes keeps it in its middle too, with a file half written.
    let object = files(world.path("store/data")).pop().unwrap();
    std::fs::remove_file(&object).unwrap();
    assert!(Command::new("mkfifo").arg(&object).status().unwrap().success());
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let child = world
            .command(&["get", &world.store(), &digest, "-o", "out"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let part = || files(world.dir.path()).iter().any(|file| file.to_string_lossy().ends_with(".part"));
        let started = Instant::now();
        while !part() {
            assert!(started.elapsed() < Duration::from_secs(60), "no file appears");
            sleep(Duration::from_millis(1));
        }
        signal(&child, name);
        let ended = ran(child.wait_with_output().unwrap());
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.starts_with("error: interrupted"), "{ended:?}");
        assert!(!part() && !world.dir.path().join("out").exists());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error_worth_a_line() {
    let world = World::with_store();
    let digest = world.put(&vec![42; 8 * MIB]);
    let mut child = world
        .command(&["get", &world.store(), &digest])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let ended = ran(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (141, ""));
}

#[test]
fn two_writers_of_one_digest_both_succeed() {
    let world = World::with_store();
    let bytes: Vec<u8> = (0..4 * MIB).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let file = world.write("file", &bytes);
    let store = world.store();
    for _ in 0..3 {
        let writers: Vec<Child> = (0..3)
            .map(|_| {
                let mut command = world.command(&["put", &store, &file]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|child| ran(child.wait_with_output().unwrap())).collect();
        for one in &ended {
            assert_eq!((one.code, &one.stdout), (0, &ended[0].stdout), "{one:?}");
        }
        let digest = ended[0].text().trim();
        assert_eq!(world.ok(&["ls", &store]).text().trim(), digest);
        assert_eq!(world.ok(&["get", &store, digest, "--verify"]).stdout, bytes);
        world.ok(&["rm", &store, digest]);
    }
}
