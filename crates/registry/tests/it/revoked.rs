//! The key's owner takes it away: 503 and why, until it is given back; nothing else is needed.

use std::time::Duration;

use crate::client::{Answer, data, ending, sha256};
use crate::support::{Node, World};

/// Asks until the answer is as wanted: R and the next probe are in real time here.
async fn until(mut ask: impl AsyncFnMut() -> Answer, wanted: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..600 {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the answer never came");
}

#[tokio::test]
async fn revoked_is_503_and_restored_heals() {
    let world = World::revocable().await;
    let node = Node::start(&world).await;
    let client = node.client;
    let digest = client.push_image("app", "v1", b"a layer").await;
    let blob = client.push_blob("app", b"a layer").await;
    let location = client.begin("app").await;
    let manifest = client.get("/v2/app/manifests/v1").await.body;
    world.revoke();
    let refused =
        until(async || client.get(&format!("/v2/app/blobs/{blob}")).await, |a| a.status == 503).await;
    refused.assert_error(503, "UNAVAILABLE");
    let absent = sha256(b"new");
    let put = ending(&location, &absent);
    let post = format!("/v2/app/blobs/uploads/?digest={absent}");
    for (method, path, body) in [
        ("GET", "/v2/app/manifests/v1", b"" as &[u8]),
        ("GET", &format!("/v2/app/manifests/{digest}"), b""),
        ("GET", "/v2/app/tags/list", b""),
        ("GET", "/v2/_catalog", b""),
        ("GET", &format!("/v2/app/referrers/{digest}"), b""),
        ("PUT", "/v2/app/manifests/v2", &manifest),
        ("POST", "/v2/app/blobs/uploads/", b""),
        ("POST", &post, b"new"),
        ("PATCH", &location, b"new"),
        ("PUT", &put, b"new"),
        ("DELETE", &location, b""),
        ("DELETE", "/v2/app/manifests/v1", b""),
    ] {
        let answer = client.send(method, path, &[], body).await;
        answer.assert_error(503, "UNAVAILABLE");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{method} {path}");
    }
    client.head("/v2/app/manifests/v1").await.assert_status(503);
    client.head(&format!("/v2/app/blobs/{blob}")).await.assert_status(503);
    // This asks for nothing that is sealed.
    client.get("/v2/").await.assert_status(200);
    world.restore();
    let healed = until(async || client.get("/v2/app/manifests/v1").await, |a| a.status == 200).await;
    assert_eq!(healed.body, manifest);
    client.send("PUT", &put, &[], b"new").await.assert_status(201);
}

/// No answer is shorter than it says and looks complete.
#[tokio::test]
async fn a_pull_that_is_cut_off_does_not_look_complete() {
    let (world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(12 << 20);
    let digest = client.push_blob("app", &bytes).await;
    client.get(&format!("/v2/app/blobs/{digest}")).await.assert_status(200);
    // The data of the last extent is gone: an object store that lost something, or somebody who removed it.
    let mut extents = files(&world.bucket().join("data"));
    extents.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    std::fs::remove_file(extents.last().unwrap()).unwrap();
    let answer = client.get(&format!("/v2/app/blobs/{digest}")).await;
    if answer.status == 200 {
        assert!(!answer.complete && bytes.starts_with(&answer.body));
    } else {
        answer.assert_error(500, "UNKNOWN");
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
