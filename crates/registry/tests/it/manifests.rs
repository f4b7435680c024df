//! Manifests: by tag and by digest, of any kind, and only what is complete.

use serde_json::json;

use crate::client::{Client, OCI_INDEX, OCI_MANIFEST, data, sha256, sha512};
use crate::support::Node;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

async fn put(client: &Client, reference: &str, kind: &str, body: &[u8]) -> crate::client::Answer {
    let path = format!("/v2/app/manifests/{reference}");
    client.send("PUT", &path, &[("Content-Type", kind)], body).await
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    let digest = sha256(&manifest).to_string();
    let answer = client.push_manifest("app", "v1", OCI_MANIFEST, &manifest).await;
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(answer.location(), format!("/v2/app/manifests/{digest}"));
    assert_eq!((answer.header("oci-subject"), answer.header("oci-tag")), (None, None));
    for reference in ["v1", &digest] {
        let path = format!("/v2/app/manifests/{reference}");
        for accept in ["*/*", OCI_MANIFEST, "text/html"] {
            let get = client.send("GET", &path, &[("Accept", accept)], b"").await.assert_status(200);
            let head = client.send("HEAD", &path, &[("Accept", accept)], b"").await.assert_status(200);
            assert_eq!(get.body, manifest);
            for answer in [get, head] {
                assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
                assert_eq!(answer.header("content-length"), Some(manifest.len().to_string().as_str()));
                assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
            }
        }
        let tag = format!("\"{digest}\"");
        client.send("GET", &path, &[("If-None-Match", &tag)], b"").await.assert_status(304);
        client.send("HEAD", &path, &[("If-None-Match", &tag)], b"").await.assert_status(304);
    }
}

#[tokio::test]
async fn by_digest_with_tags_of_any_algorithm() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    for digest in [sha256(&manifest), sha512(&manifest)] {
        let reference = format!("{digest}?tag=one&tag=two-2");
        let answer = put(&client, &reference, OCI_MANIFEST, &manifest).await.assert_status(201);
        assert_eq!(answer.headers("oci-tag"), ["one", "two-2"]);
        for tag in ["one", "two-2"] {
            let head = client.head(&format!("/v2/app/manifests/{tag}")).await;
            assert_eq!(head.header("docker-content-digest"), Some(digest.to_string().as_str()));
        }
        assert_eq!(client.get(answer.location()).await.body, manifest);
    }
    let digest = sha256(&manifest);
    put(&client, &format!("{digest}?tag=.bad"), OCI_MANIFEST, &manifest)
        .await
        .assert_error(400, "MANIFEST_INVALID");
    let many: String = (0..65).map(|i| format!("&tag=t{i}")).collect();
    put(&client, &format!("{digest}?{many}"), OCI_MANIFEST, &manifest)
        .await
        .assert_error(414, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_tag_moves() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let first = client.push_image("app", "latest", b"one").await;
    let second = client.push_image("app", "latest", b"two").await;
    let head = client.head("/v2/app/manifests/latest").await;
    assert_eq!(head.header("docker-content-digest"), Some(second.to_string().as_str()));
    client.get(&format!("/v2/app/manifests/{first}")).await.assert_status(200);
}

#[tokio::test]
async fn what_is_not_there_is_not_named() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    let absent = sha256(b"absent").to_string();
    let mut missing: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    missing["layers"][0]["digest"] = json!(absent);
    let answer = put(&client, "v1", OCI_MANIFEST, missing.to_string().as_bytes()).await;
    answer.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(answer.json()["errors"][0]["detail"], json!([absent]));
    client.get("/v2/app/manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");

    let index = |digest: &str| {
        let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1});
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).to_string().into_bytes()
    };
    put(&client, "i", OCI_INDEX, &index(&absent)).await.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    let child = client.push_image("app", "child", b"a layer").await;
    put(&client, "i", OCI_INDEX, &index(&child.to_string())).await.assert_status(201);
    // A blob of another repository does not count.
    let theirs = client.push_blob("theirs", b"their layer").await;
    missing["layers"][0]["digest"] = json!(theirs.to_string());
    let answer = put(&client, "v1", OCI_MANIFEST, missing.to_string().as_bytes()).await;
    answer.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn layers_that_may_not_be_distributed_are_not_asked_for() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    for kind in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let mut foreign: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let layer = json!({"mediaType": kind, "digest": sha256(b"elsewhere").to_string(), "size": 9,
            "urls": ["https://example.com/layer"]});
        foreign["layers"].as_array_mut().unwrap().push(layer);
        put(&client, "v1", OCI_MANIFEST, foreign.to_string().as_bytes()).await.assert_status(201);
    }
}

#[tokio::test]
async fn types_are_kept() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    let mut docker: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    docker["mediaType"] = json!(DOCKER_MANIFEST);
    let docker = docker.to_string();
    let entry = json!({"mediaType": DOCKER_MANIFEST, "digest": sha256(docker.as_bytes()).to_string(), "size": docker.len()});
    let list = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]}).to_string();
    let other = json!({"anything": ["at", "all"]}).to_string();
    let spaced = format!("  {}\n\n", String::from_utf8(manifest).unwrap());
    for (tag, kind, bytes) in [
        ("docker", DOCKER_MANIFEST, &docker),
        ("list", DOCKER_LIST, &list),
        ("other", "application/vnd.example.thing+json", &other),
        ("spaced", OCI_MANIFEST, &spaced),
    ] {
        put(&client, tag, kind, bytes.as_bytes()).await.assert_status(201);
        let get = client.get(&format!("/v2/app/manifests/{tag}")).await.assert_status(200);
        assert_eq!((get.header("content-type"), get.body.as_slice()), (Some(kind), bytes.as_bytes()));
    }
    // Without a header the manifest's own word counts.
    client.send("PUT", "/v2/app/manifests/own", &[], docker.as_bytes()).await.assert_status(201);
    let head = client.head("/v2/app/manifests/own").await;
    assert_eq!(head.header("content-type"), Some(DOCKER_MANIFEST));
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::from_slice(&manifest).unwrap();
        change(&mut value);
        value.to_string()
    };
    for (what, kind, body) in [
        ("nothing", OCI_MANIFEST, String::new()),
        ("cut off", OCI_MANIFEST, String::from_utf8(manifest[..50].to_vec()).unwrap()),
        ("no object", OCI_MANIFEST, "[]".into()),
        ("an empty object", OCI_MANIFEST, "{}".into()),
        ("an index without manifests", OCI_INDEX, with(&|m| m["mediaType"] = json!(OCI_INDEX))),
        ("another type inside", OCI_MANIFEST, with(&|m| m["mediaType"] = json!(DOCKER_MANIFEST))),
        ("two things at once", OCI_MANIFEST, with(&|m| m["manifests"] = json!([]))),
        ("a bad digest", OCI_MANIFEST, with(&|m| m["layers"][0]["digest"] = json!("sha256:1"))),
        ("schema 1", OCI_MANIFEST, with(&|m| m["schemaVersion"] = json!(1))),
        ("a type that is none", "no/type\"", with(&|m| m["mediaType"] = json!(null))),
        ("a subject that is none", OCI_MANIFEST, with(&|m| m["subject"] = json!({"digest": "x"}))),
        ("a hundred thousand brackets", OCI_MANIFEST, "[".repeat(100_000)),
        ("a list under an unknown type", "application/vnd.example+json", "[]".into()),
        ("a size below zero", OCI_MANIFEST, with(&|m| m["config"]["size"] = json!(-1))),
        ("a size above all numbers", OCI_MANIFEST, with(&|m| m["config"]["size"] = json!(u64::MAX))),
        ("an endless type", OCI_MANIFEST, with(&|m| m["artifactType"] = json!("a".repeat(100_000)))),
        ("a hash of another length", OCI_MANIFEST, {
            with(&|m| m["layers"][0]["digest"] = json!(format!("sha256:{}", "a".repeat(128))))
        }),
        ("a byte order mark", OCI_MANIFEST, with(&|_| ()).replacen('{', "\u{feff}{", 1)),
        ("a field twice", OCI_MANIFEST, with(&|_| ()).replacen('{', "{\"layers\": [],", 1)),
    ] {
        let answer = put(&client, "v1", kind, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{what}");
        answer.assert_error(400, "MANIFEST_INVALID");
    }
    client.get("/v2/app/manifests/v1").await.assert_error(404, "MANIFEST_UNKNOWN");
    let wrong = format!("{}", sha256(b"other"));
    put(&client, &wrong, OCI_MANIFEST, &manifest).await.assert_error(400, "DIGEST_INVALID");
    put(&client, "sha256:baddigeststring", OCI_MANIFEST, &manifest).await.assert_error(400, "DIGEST_INVALID");
    put(&client, ".INVALID", OCI_MANIFEST, &manifest).await.assert_error(400, "MANIFEST_INVALID");
    client.get("/v2/app/manifests/sha256:baddigeststring").await.assert_error(400, "DIGEST_INVALID");
    client.get("/v2/app/manifests/.INVALID").await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn four_mebibytes_are_accepted_and_far_more_are_not() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let large = |len: usize| {
        let mut value =
            json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"a": ""}});
        value["annotations"]["a"] = json!("x".repeat(len));
        value.to_string().into_bytes()
    };
    // Around the border between manifests inside their entries and those in blobs.
    for len in [50_000, 61_000, 61_440, 62_000, 70_000, 4 << 20] {
        let manifest = large(len);
        let digest = sha256(&manifest);
        put(&client, "large", OCI_INDEX, &manifest).await.assert_status(201);
        let get = client.get("/v2/app/manifests/large").await.assert_status(200);
        assert!(get.body == manifest, "{len}");
        put(&client, &digest.to_string(), OCI_INDEX, &manifest).await.assert_status(201);
    }
    put(&client, "huge", OCI_INDEX, &large(9 << 20)).await.assert_error(413, "SIZE_INVALID");
    let chunked = [("Content-Type", OCI_INDEX), ("Transfer-Encoding", "chunked")];
    let answer = client.send("PUT", "/v2/app/manifests/huge", &chunked, &large(9 << 20)).await;
    answer.assert_error(413, "SIZE_INVALID");
}

#[tokio::test]
async fn deleting_a_tag_leaves_the_manifest_and_deleting_that_takes_its_tags() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = client.push_image("app", "one", b"a layer").await;
    client.push_image("app", "two", b"a layer").await;
    client.push_image("app", "other", b"another layer").await;
    client.delete("/v2/app/manifests/one").await.assert_status(202);
    client.delete("/v2/app/manifests/one").await.assert_error(404, "MANIFEST_UNKNOWN");
    client.get("/v2/app/manifests/one").await.assert_error(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/app/manifests/{digest}")).await.assert_status(200);
    client.delete(&format!("/v2/app/manifests/{digest}")).await.assert_status(202);
    client.delete(&format!("/v2/app/manifests/{digest}")).await.assert_error(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/app/manifests/{digest}")).await.assert_error(404, "MANIFEST_UNKNOWN");
    client.get("/v2/app/manifests/two").await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(client.get("/v2/app/tags/list").await.json()["tags"], json!(["other"]));
    client.delete("/v2/nowhere/manifests/v1").await.assert_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn pushing_a_manifest_again_is_no_error() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", &data(10)).await;
    for reference in ["v1", "v1", &sha256(&manifest).to_string()] {
        put(&client, reference, OCI_MANIFEST, &manifest).await.assert_status(201);
    }
}

/// What nobody here reads may be as it likes, and costs no stack.
#[tokio::test]
async fn what_is_deep_is_kept_and_removed() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let image = String::from_utf8(client.image("app", b"a layer").await).unwrap();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        let manifest = image.replacen('{', &format!("{{\"x\": {deep},"), 1).into_bytes();
        put(&client, "deep", OCI_MANIFEST, &manifest).await.assert_status(201);
        assert!(client.get("/v2/app/manifests/deep").await.body == manifest);
        client.delete(&format!("/v2/app/manifests/{}", sha256(&manifest))).await.assert_status(202);
    }
}

/// Whoever needs much learns of the first that are missing.
#[tokio::test]
async fn a_manifest_of_a_hundred_thousand_parts_is_answered_shortly() {
    let (_world, node) = Node::alone().await;
    let entry =
        |i: usize| json!({"mediaType": OCI_MANIFEST, "digest": format!("sha256:{i:064x}"), "size": 1});
    let entries: Vec<_> = (0..50_000).map(entry).collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
    let answer = put(&node.client, "v1", OCI_INDEX, index.as_bytes()).await;
    answer.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(answer.json()["errors"][0]["detail"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn a_tag_that_was_moved_is_not_overwritten_under_a_condition() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let (one, two) = (client.image("app", b"one").await, client.image("app", b"two").await);
    let tag = |manifest: &[u8]| format!("\"{}\"", sha256(manifest));
    let send = async |method: &str, condition: (&str, &str), body: &[u8]| {
        let headers = [("Content-Type", OCI_MANIFEST), condition];
        client.send(method, "/v2/app/manifests/v1", &headers, body).await.status
    };
    assert_eq!(send("PUT", ("If-Match", "*"), &one).await, 412, "there is nothing yet");
    assert_eq!(send("DELETE", ("If-Match", "*"), b"").await, 412);
    assert_eq!(send("PUT", ("If-None-Match", "*"), &one).await, 201);
    assert_eq!(send("PUT", ("If-None-Match", "*"), &two).await, 412);
    assert_eq!(send("PUT", ("If-None-Match", &tag(&one)), &two).await, 412);
    assert_eq!(send("PUT", ("If-Match", &tag(&two)), &two).await, 412);
    assert_eq!(send("DELETE", ("If-Match", &tag(&two)), b"").await, 412);
    assert_eq!(client.get("/v2/app/manifests/v1").await.body, one);
    assert_eq!(send("PUT", ("If-Match", &format!("{}, {}", tag(&two), tag(&one))), &two).await, 201);
    assert_eq!(client.get("/v2/app/manifests/v1").await.body, two);
    assert_eq!(send("DELETE", ("If-Match", &tag(&two)), b"").await, 202);
    client.get("/v2/app/manifests/v1").await.assert_status(404);
}
