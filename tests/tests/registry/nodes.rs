//! Several servers over one bucket: one is killed in the middle of pushes, and nothing that was acknowledged is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::images::Tools;
use crate::node::Node;
use crate::places::Place;
use crate::world::{World, files};

const IMAGES: usize = 8;

/// What a search of the bucket must not find: names, tags, repositories, digests, media types, content.
fn search(haystack: &[u8], what: &str, needles: &[Vec<u8>]) {
    for needle in needles {
        let found = memchr::memmem::find(haystack, needle).is_some();
        assert!(!found, "{} in {what}", String::from_utf8_lossy(needle));
    }
}

fn needles(tools: &Tools) -> Vec<Vec<u8>> {
    let words =
        ["very-private", "conspicuous", "application/vnd.oci", "sha256:", "mediaType", "umoci", "rootfs"];
    let mut needles: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    for blob in tools.blobs("made") {
        let hex = blob.trim_start_matches("sha256:").to_owned();
        needles.push(data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap());
        needles.push(hex.into_bytes());
    }
    needles
}

/// Pushes to both nodes at once, kills one of them on the way, and looks at what the other has.
fn pushes_survive(world: &World, store: &str, tools: &Tools) {
    for image in 0..IMAGES {
        // The first layer is everybody's.
        tools.make("made", &format!("conspicuous{image}"), 2, 400_000, 40 + image as u64);
    }
    let (mut doomed, other) = (Node::of(world, store, &[]), Node::of(world, store, &[]));
    let name = |image: usize| format!("very-private/app{}:conspicuous{image}", image % 3);
    let (doomed_address, begun) = (doomed.image(""), AtomicBool::new(false));
    let push = |image: usize, to: &str| {
        let from = format!("oci:made:conspicuous{image}");
        let arguments = ["copy", "--dest-tls-verify=false", &from, &format!("{to}{}", name(image))];
        tools.try_skopeo(&arguments).code == 0
    };
    let retried: Vec<bool> = thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|client| {
                let (push, doomed, other, begun) = (&push, &doomed_address, &other, &begun);
                scope.spawn(move || {
                    let mine = (client..IMAGES).step_by(2);
                    let pushed = mine.map(|image| {
                        let at_once = push(image, doomed);
                        begun.store(true, Ordering::SeqCst);
                        assert!(at_once || push(image, &other.image("")), "image {image} can't be pushed");
                        !at_once
                    });
                    pushed.collect::<Vec<_>>()
                })
            })
            .collect();
        // After a push, while others are under way.
        while !begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        doomed.kill();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let retries = retried.iter().filter(|retried| **retried).count();
    assert!(
        (1..IMAGES).contains(&retries),
        "{retries} of {IMAGES} were retried: the kill was not in the middle"
    );

    // Everything is there: for the node that lived, and for one that never saw a push.
    let fresh = Node::of(world, store, &[]);
    for (node, at) in [(&other, "lived"), (&fresh, "fresh")] {
        for image in 0..IMAGES {
            let tag = format!("conspicuous{image}");
            tools.copy(&[], &node.image(&name(image)), &format!("oci:{at}:{tag}"));
            assert_eq!(tools.digest(at, &tag), tools.digest("made", &tag));
        }
        assert!(tools.blobs(at).len() > 2 * IMAGES, "each of which is what its name says");
    }
    // And all that is stored is sound.
    let verified = world.json(&["verify", store]);
    assert_eq!(verified["damaged"].as_array().map_or(0, Vec::len), 0, "{verified}");
}

#[test]
fn a_killed_server_loses_nothing_of_a_folder() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    pushes_survive(&world, &world.store(), &tools);
    let needles = needles(&tools);
    let bucket = world.dir.path().join("store");
    let all = files(&bucket);
    assert!(all.len() > IMAGES * 3);
    for file in all {
        let name = file.strip_prefix(&bucket).unwrap().display().to_string();
        search(name.as_bytes(), "a name", &needles);
        search(&std::fs::read(&file).unwrap(), &name, &needles);
    }
}

#[test]
fn a_killed_server_loses_nothing_of_s3() {
    if let (Some(tools), Some(place)) = (Tools::find(), Place::s3()) {
        nothing_is_lost_or_readable(&place, &tools);
    }
}

#[test]
fn a_killed_server_loses_nothing_of_azure() {
    let (Some(tools), Some(place)) = (Tools::find(), Place::azure()) else { return };
    pushes_survive(&place.world, place.store, &tools);
    let needles = needles(&tools);
    // Names and contents, as the server itself keeps them.
    let folder = place.folder.as_ref().unwrap().path();
    let all = files(folder);
    assert!(all.iter().any(|file| file.ends_with("__azurite_db_blob__.json")), "{all:?}");
    for file in all {
        search(&std::fs::read(&file).unwrap(), &file.display().to_string(), &needles);
    }
}

#[test]
fn a_killed_server_loses_nothing_of_google() {
    if let (Some(tools), Some(place)) = (Tools::find(), Place::google(Duration::ZERO)) {
        nothing_is_lost_or_readable(&place, &tools);
    }
}

/// Of a place that says itself what is in it.
fn nothing_is_lost_or_readable(place: &Place, tools: &Tools) {
    pushes_survive(&place.world, place.store, tools);
    let needles = needles(tools);
    let all = objects(&place.server.url());
    assert!(all.len() > IMAGES * 3);
    for (name, content) in all {
        search(name.as_bytes(), "a name", &needles);
        search(&content, &name, &needles);
    }
}

/// All that is in the bucket.
pub(crate) fn objects(url: &str) -> Vec<(String, Vec<u8>)> {
    let list = String::from_utf8(fetch(&format!("{url}/bucket?list-type=2"))).unwrap();
    assert!(!list.contains("<IsTruncated>true"), "there is another page");
    let names = list.split("<Key>").skip(1).map(|part| part.split("</Key>").next().unwrap().to_owned());
    names.map(|name| (name.clone(), fetch(&format!("{url}/bucket/{name}")))).collect()
}

/// What is there, by a client that knows nothing.
pub(crate) fn fetch(url: &str) -> Vec<u8> {
    crate::oci_client::tls();
    let fetched = async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().bytes().await.unwrap().to_vec()
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(fetched)
}
