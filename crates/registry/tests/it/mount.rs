//! Mounts: a blob of one repository in another, without its bytes.

use async_trait::async_trait;
use axum::http::HeaderMap;
use bulla_registry::RegistryOptions;
use bulla_registry::access::{Access, Needs, Refused};
use std::sync::Arc;

use crate::client::{data, ending, sha256};
use crate::support::{Node, World};

#[tokio::test]
async fn from_a_repository() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(100_000);
    let digest = client.push_blob("from", &bytes).await;
    let path = format!("/v2/to/blobs/uploads/?mount={digest}&from=from");
    let answer = client.send("POST", &path, &[], b"").await.assert_status(201);
    assert_eq!(answer.location(), format!("/v2/to/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(client.get(answer.location()).await.body, bytes);
    // It is the other's own from now on.
    client.delete(&format!("/v2/from/blobs/{digest}")).await.assert_status(202);
    assert_eq!(client.get(answer.location()).await.body, bytes);
}

#[tokio::test]
async fn what_can_not_be_mounted_can_be_uploaded() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let here = client.push_blob("from", b"here").await;
    for (mount, from) in [(sha256(b"absent"), "from"), (here.clone(), "nowhere"), (here.clone(), "to")] {
        let path = format!("/v2/to/blobs/uploads/?mount={mount}&from={from}");
        let begun = client.send("POST", &path, &[], b"").await.assert_status(202);
        let path = ending(begun.location(), sha256(b"more"));
        client.send("PUT", &path, &[], b"more").await.assert_status(201);
    }
    let post =
        async |query: &str| client.send("POST", &format!("/v2/to/blobs/uploads/?{query}"), &[], b"").await;
    post(&format!("mount={here}&from=NO")).await.assert_error(400, "NAME_INVALID");
    post("mount=sha256:1&from=from").await.assert_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn from_anywhere() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = client.push_blob("from", b"layer").await;
    let path = format!("/v2/to/blobs/uploads/?mount={digest}");
    client.send("POST", &path, &[], b"").await.assert_status(201);
    assert_eq!(client.get(&format!("/v2/to/blobs/{digest}")).await.body, b"layer");
    let path = format!("/v2/to/blobs/uploads/?mount={}", sha256(b"absent"));
    client.send("POST", &path, &[], b"").await.assert_status(202);
}

/// Everything but pulling from `theirs`.
#[derive(Debug)]
struct NotTheirs;

#[async_trait]
impl Access for NotTheirs {
    async fn check(&self, _: &HeaderMap, needs: Needs<'_>) -> Result<(), Refused> {
        match needs {
            Needs::Repository { name: "theirs", .. } => Err(Refused::Denied),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn who_may_not_pull_may_not_mount() {
    let world = World::new().await;
    let open = Node::start(&world).await;
    let digest = open.client.push_blob("theirs", b"a secret").await;
    let options = RegistryOptions::default();
    let client = Node::with(world.open().await, options, Arc::new(NotTheirs)).await;
    for query in [format!("?mount={digest}&from=theirs"), format!("?mount={digest}")] {
        let path = format!("/v2/ours/blobs/uploads/{query}");
        client.client.send("POST", &path, &[], b"").await.assert_status(202);
        open.client.head(&format!("/v2/ours/blobs/{digest}")).await.assert_status(404);
    }
    client.client.get(&format!("/v2/theirs/blobs/{digest}")).await.assert_error(403, "DENIED");
}
