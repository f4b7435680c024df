//! The key's owner disables it in the middle of pulls, and gives it back.

use std::time::{Duration, Instant};

use reqwest::Client;

use crate::images::noise;
use crate::node::Node;
use crate::world::{IDENTITY, World};

const R: Duration = Duration::from_secs(2);

/// The status, `Retry-After`, and the body: empty if it was cut off, as is seen by its length.
async fn get(client: &Client, node: &Node, path: &str) -> (u16, Option<u64>, Vec<u8>) {
    let response = client.get(format!("http://{}{path}", node.address())).send().await.unwrap();
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
    (status, after, response.bytes().await.unwrap_or_default().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_are_refused_within_r_and_served_again_when_the_key_is_back() {
    crate::oci_client::tls();
    let world = World::with_vault();
    let init =
        ["init", &world.store(), "--kek", &world.kek(), "--identity", IDENTITY, "--revocation-bound", "2s"];
    world.ok(&init);
    let node = Node::start(&world);
    let client = Client::builder().no_proxy().build().unwrap();
    let layer = noise(3_000_000, 30);
    let digest = crate::images::sha256(&layer);
    let post = format!("http://{}/v2/app/blobs/uploads/?digest={digest}", node.address());
    assert_eq!(client.post(post).body(layer.clone()).send().await.unwrap().status(), 201);
    let blob = format!("/v2/app/blobs/{digest}");

    let disabled = Instant::now();
    world.ok(&["vault", "key", "disable", &world.path("vault"), "--name", "k"]);
    let known = Instant::now();
    let (after, body) = loop {
        let asked = Instant::now();
        let (status, after, body) = get(&client, &node, &blob).await;
        match status {
            200 => {
                // What was asked for R later than the key was gone can't be served.
                assert!(asked < known + R, "served {:?} after the key was disabled", asked - disabled);
                // One that was under way is cut off, and does not look complete.
                assert!(body.is_empty() || body == layer);
            }
            _ => break (after.expect("a Retry-After"), body),
        }
    };
    assert!((1..=60).contains(&after));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["errors"][0]["code"], "UNAVAILABLE", "{body}");
    assert!(disabled.elapsed() < R + Duration::from_secs(5), "{:?}", disabled.elapsed());
    let (ready, _, why) = get(&client, &node, "/readyz").await;
    let why = String::from_utf8(why).unwrap();
    assert!(ready == 503 && why.to_lowercase().contains("revoked"), "{ready}: {why}");
    assert_eq!(get(&client, &node, "/healthz").await.0, 200, "the process is well");

    world.ok(&["vault", "key", "enable", &world.path("vault"), "--name", "k"]);
    let enabled = Instant::now();
    let back = loop {
        let (status, _, body) = get(&client, &node, &blob).await;
        if status == 200 {
            break body;
        }
        assert!(enabled.elapsed() < Duration::from_secs(30), "service does not resume");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(back == layer);
    // Which says what it saw for a second.
    while get(&client, &node, "/readyz").await.0 != 200 {
        assert!(enabled.elapsed() < Duration::from_secs(30), "it does not say that it is ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
