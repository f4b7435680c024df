//! Requests that no client sends by accident.

use crate::client::{OCI_MANIFEST, ending, sha256};
use crate::support::Node;

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = sha256(b"x");
    for name in
        ["UPPER", "a//b", "-a", "a_", "a..b", "a/../b", "..", "%00", "a%20b", &"a".repeat(256), "%C3%A4"]
    {
        for path in ["tags/list".to_owned(), format!("blobs/{digest}"), "manifests/v1".to_owned()] {
            let answer = client.get(&format!("/v2/{name}/{path}")).await;
            answer.assert_error(400, "NAME_INVALID");
        }
        client
            .send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"")
            .await
            .assert_error(400, "NAME_INVALID");
    }
    for path in [
        "/",
        "/v1/",
        "//v2/",
        "/v2/a",
        "/v2/a/",
        "/v2//",
        "/v2/a%2Fb/tags/list",
        "/v2/%ff/tags/list",
        "/v2/tags/list",
        "/v2/a/b/c",
    ] {
        client.get(path).await.assert_error(404, "NAME_UNKNOWN");
    }
}

#[tokio::test]
async fn digests_that_are_none_are_refused() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    client.push_blob("app", b"x").await;
    let upper = sha256(b"x").to_string().to_uppercase();
    for digest in ["sha256:", "sha256:zz", "sha256", "..", "%2e%2e", "sha384:00", &upper, "a"] {
        client.get(&format!("/v2/app/blobs/{digest}")).await.assert_error(400, "DIGEST_INVALID");
        client.delete(&format!("/v2/app/blobs/{digest}")).await.assert_error(400, "DIGEST_INVALID");
        client.get(&format!("/v2/app/referrers/{digest}")).await.assert_error(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn methods_that_make_no_sense_are_405() {
    let (_world, node) = Node::alone().await;
    let digest = sha256(b"x");
    for (method, path, allowed) in [
        ("POST", "/v2/", "GET, HEAD"),
        ("DELETE", "/v2/_catalog", "GET, HEAD"),
        ("PUT", "/v2/app/tags/list", "GET, HEAD"),
        ("PUT", &format!("/v2/app/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("PATCH", "/v2/app/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("GET", "/v2/app/blobs/uploads/", "POST"),
        ("POST", "/v2/app/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"),
        ("OPTIONS", &format!("/v2/app/referrers/{digest}"), "GET, HEAD"),
        ("BREW", "/v2/", "GET, HEAD"),
    ] {
        let answer = node.client.send(method, path, &[], b"").await;
        answer.assert_error(405, "UNSUPPORTED");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

/// What is in a name of a repository never becomes part of another path or header.
#[tokio::test]
async fn nothing_is_injected() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"layer").await;
    for kind in ["application/x%0d%0aSet-Cookie: a", "application/ä+json", "a/b c"] {
        let answer = client.send("PUT", "/v2/app/manifests/v1", &[("Content-Type", kind)], &manifest).await;
        answer.assert_error(400, "MANIFEST_INVALID");
    }
    client.push_manifest("app", "v1", OCI_MANIFEST, &manifest).await;
    let answer = client.get("/v2/app/tags/list?n=1&last=%0d%0aSet-Cookie:%20a").await;
    assert_eq!(answer.header("set-cookie"), None);
    let answer = client.get("/v2/app/referrers/sha256:0?artifactType=%0d%0a").await;
    answer.assert_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn lengths_that_lie_make_no_blob() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = sha256(b"content");
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    client.break_off("POST", &path, 8, b"content").await;
    client.break_off("POST", &path, 7, b"conten").await;
    let location = client.begin("app").await;
    client.break_off("PUT", &ending(&location, &digest), 8, b"content").await;
    client.head(&format!("/v2/app/blobs/{digest}")).await.assert_status(404);
    client.send("PUT", &ending(&location, &digest), &[], b"content").await.assert_status(201);
}
