//! Two servers over one bucket of S3 (moto), of Azure (Azurite) and of Google (fake-gcs-server): what the one did, the other goes on with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Client;
use serde_json::Value;

use crate::images::{OCI_MANIFEST, Tools, noise, sha256};
use crate::node::Node;
use crate::places::Place;
use crate::world::World;

const MIB: usize = 1 << 20;
const ROUNDS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_s3() {
    let (Some(tools), Some(place)) = (Tools::find(), Place::s3()) else { return };
    shared(&place.world, place.store, &tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_azure() {
    let (Some(tools), Some(place)) = (Tools::find(), Place::azure()) else { return };
    shared(&place.world, place.store, &tools).await;
}

/// Which says no to changes of one object that follow on each other too fast (there it is a second).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_google() {
    let pause = Duration::from_millis(200);
    let (Some(tools), Some(place)) = (Tools::find(), Place::google(pause)) else { return };
    shared(&place.world, place.store, &tools).await;
}

async fn shared(world: &World, store: &str, tools: &Tools) {
    crate::oci_client::tls();
    let (mut one, other) = (Node::of(world, store, &[]), Node::of(world, store, &[]));
    for seed in 0..4 {
        tools.make("made", &format!("v{seed}"), 2, 300_000, 60 + seed);
    }
    tools.copy(&[], "oci:made:v0", &one.image("app:v0"));
    tools.copy(&[], "oci:made:v1", &other.image("app:v1"));
    for (node, tag) in [(&other, "v0"), (&one, "v1")] {
        tools.copy(&[], &node.image(&format!("app:{tag}")), &format!("oci:got:{tag}"));
        assert_eq!(tools.digest("got", tag), tools.digest("made", tag));
    }
    moved_tags(&one, &other).await;
    gc_beside_pushes(world, store, tools, [&one, &other]);
    upload_goes_on(&mut one, &other).await;
    // Which is the last: no node remembers what the bucket has.
    let fresh = Node::of(world, store, &[]);
    for seed in 0..4 {
        let tag = format!("v{seed}");
        tools.copy(&[], &fresh.image(&format!("app:{tag}")), &format!("oci:fresh:{tag}"));
        assert_eq!(tools.digest("fresh", &tag), tools.digest("made", &tag));
    }
    let verified = world.json(&["verify", store]);
    assert_eq!(verified["damaged"].as_array().map_or(0, Vec::len), 0, "{verified}");
}

fn url(node: &Node, path: &str) -> String {
    format!("http://{}{path}", node.address())
}

async fn manifest(client: &Client, node: &Node, tag: &str) -> (String, Vec<u8>) {
    let get = client.get(url(node, &format!("/v2/app/manifests/{tag}"))).header("accept", OCI_MANIFEST);
    let response = get.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let digest = response.headers()["docker-content-digest"].to_str().unwrap().to_owned();
    (digest, response.bytes().await.unwrap().to_vec())
}

/// Both move one tag at once: every push succeeds, and all see the same of the two.
async fn moved_tags(one: &Node, other: &Node) {
    let client = Client::builder().no_proxy().build().unwrap();
    let images = [manifest(&client, one, "v0").await, manifest(&client, one, "v1").await];
    for _ in 0..ROUNDS {
        let moves = [one, other].into_iter().zip(&images).map(|(node, (_, bytes))| {
            let put = client.put(url(node, "/v2/app/manifests/moved"));
            put.header("content-type", OCI_MANIFEST).body(bytes.clone()).send()
        });
        for moved in join_all(moves).await {
            assert_eq!(moved.unwrap().status(), 201);
        }
        let seen = [manifest(&client, one, "moved").await, manifest(&client, other, "moved").await];
        assert!(seen[0] == seen[1] && images.contains(&seen[0]), "{} {}", seen[0].0, seen[1].0);
    }
}

/// Gc runs again and again while layers are pushed that are there already, and some that are not.
fn gc_beside_pushes(world: &World, store: &str, tools: &Tools, nodes: [&Node; 2]) {
    let done = AtomicBool::new(false);
    let runs = thread::scope(|scope| {
        let gc = scope.spawn(|| {
            let mut runs = 0;
            while !done.load(Ordering::SeqCst) {
                world.ok(&["gc", store, "--registry", "--untagged-after", "24h"]);
                runs += 1;
            }
            runs
        });
        for (node, seed) in nodes.into_iter().zip(2..) {
            tools.copy(&[], &format!("oci:made:v{seed}"), &node.image(&format!("app:v{seed}")));
            tools.copy(&[], "oci:made:v0", &node.image(&format!("again/app{seed}:v0")));
        }
        done.store(true, Ordering::SeqCst);
        gc.join().unwrap()
    });
    assert!(runs > 0);
    let report: Value = world.json(&["gc", store, "--registry"]);
    let registry = &report["registry"];
    assert_eq!((&registry["repositories"], &registry["removedBlobs"]["objects"]), (&3.into(), &0.into()));
    assert!(registry["links"].as_u64().unwrap() >= 4 * 3, "{report:#}");
}

/// The server that took the first part is killed; what it acknowledged is there.
async fn upload_goes_on(doomed: &mut Node, other: &Node) {
    let client = Client::builder().no_proxy().build().unwrap();
    let layer = noise(9 * MIB, 70);
    let post = client.post(url(doomed, "/v2/app/blobs/uploads/")).send().await.unwrap();
    let location = post.headers()["location"].to_str().unwrap().to_owned();
    let patch = async |node: &Node, at: usize, piece: &[u8]| {
        let range = format!("{at}-{}", at + piece.len() - 1);
        let patch = client.patch(url(node, &location)).header("content-range", range).body(piece.to_vec());
        let response = patch.send().await.unwrap();
        (response.status().as_u16(), response.headers()["range"].to_str().unwrap().to_owned())
    };
    let end = |at: usize| format!("0-{}", at - 1);
    assert_eq!(patch(doomed, 0, &layer[..5 * MIB]).await, (202, end(5 * MIB)));
    doomed.kill();
    let status = client.get(url(other, &location)).send().await.unwrap();
    assert_eq!(status.headers()["range"], end(5 * MIB));
    // Not where it is.
    assert_eq!(patch(other, 6 * MIB, &layer[6 * MIB..]).await, (416, end(5 * MIB)));
    assert_eq!(patch(other, 5 * MIB, &layer[5 * MIB..]).await, (202, end(9 * MIB)));
    let digest = sha256(&layer);
    let put = client.put(format!("{}?digest={digest}", url(other, &location))).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let got = client.get(url(other, &format!("/v2/app/blobs/{digest}"))).send().await.unwrap();
    assert!(got.bytes().await.unwrap() == layer);
}
