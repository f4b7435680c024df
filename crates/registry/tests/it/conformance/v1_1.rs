//! The suite of version 1.1.

use std::collections::BTreeMap;

use bulla::{Algorithm, Digest};
use serde_json::{Value, json};

use super::{
    CONFIG, EMPTY, EXAMPLE, LAYER, OCTETS, assert_blob, assert_created, assert_manifest, blob, descriptor,
};
use crate::client::{Answer, OCI_INDEX, OCI_MANIFEST, ending, sha256};
use crate::support::Node;

#[tokio::test]
async fn pull() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("org/repo", b"a layer").await;
    client.push_manifest("org/repo", "tagtest0", OCI_MANIFEST, &manifest).await;
    let digest = sha256(&manifest).to_string();
    let absent = sha256(b"hello world");
    for method in ["HEAD", "GET"] {
        let blob = format!("/v2/org/repo/blobs/{absent}");
        client.send(method, &blob, &[], b"").await.assert_status(404);
        for reference in [".INVALID_MANIFEST_NAME", "nonexistent", &absent.to_string()] {
            let answer = client.send(method, &format!("/v2/org/repo/manifests/{reference}"), &[], b"").await;
            assert_eq!(answer.status, 404, "{method} {reference}");
        }
    }
    assert_blob(&client, "org/repo", &sha256(b"a layer"), b"a layer").await;
    for reference in ["tagtest0", &digest] {
        assert_manifest(&client, "org/repo", reference, OCI_MANIFEST, &manifest).await;
    }
    let path = "/v2/org/repo/manifests/sha256:totallywrong";
    let answer = client.send("PUT", path, &[("Content-Type", OCI_MANIFEST)], b"blablabla").await;
    answer.assert_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn push() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let uploads = "/v2/org/repo/blobs/uploads/";
    // Streamed.
    let content = b"NBA Jam on my NBA toast".as_slice();
    let begun = client.send("POST", uploads, &[], b"").await.assert_status(202);
    let patch = client.send("PATCH", begun.location(), &[OCTETS], content).await.assert_status(202);
    let put = client.send("PUT", &ending(patch.location(), sha256(content)), &[OCTETS], b"").await;
    assert_created(&client, put, &sha256(content), content).await;
    // Monolithic.
    let absent = format!("/v2/org/repo/blobs/{}", sha256(b"absent"));
    client.get(&absent).await.assert_status(404);
    let config = br#"{"architecture":"amd64","os":"linux"}"#.as_slice();
    let path = format!("{uploads}?digest={}", sha256(config));
    let post = client.send("POST", &path, &[OCTETS], config).await;
    assert_created(&client, post, &sha256(config), config).await;
    let begun = client.send("POST", uploads, &[], b"").await.assert_status(202);
    let put = client.send("PUT", &ending(begun.location(), sha256(config)), &[OCTETS], config).await;
    assert_created(&client, put, &sha256(config), config).await;
    // Chunked; the upload goes on at the place that each answer names.
    let content = blob(50, 1);
    let begun = client.send("POST", uploads, &[("Content-Length", "0")], b"").await.assert_status(202);
    let second = [OCTETS, ("Content-Range", "25-49")];
    client
        .send("PATCH", begun.location(), &second, &content[25..])
        .await
        .assert_error(416, "BLOB_UPLOAD_INVALID");
    let first = [OCTETS, ("Content-Range", "0-24")];
    let patch = client.send("PATCH", begun.location(), &first, &content[..25]).await.assert_status(202);
    assert_eq!(patch.header("range"), Some("0-24"));
    client
        .send("PATCH", patch.location(), &first, &content[..25])
        .await
        .assert_error(416, "BLOB_UPLOAD_INVALID");
    let state = client.get(patch.location()).await.assert_status(204);
    assert_eq!(state.header("range"), Some("0-24"));
    let put = client.send("PUT", &ending(state.location(), sha256(&content)), &second, &content[25..]).await;
    assert_created(&client, put, &sha256(&content), &content).await;
    // Mounts.
    let mount = async |query: String| {
        client.send("POST", &format!("/v2/other/repo/blobs/uploads/?{query}"), &[], b"").await
    };
    mount(format!("mount={}&from=org/repo", sha256(b"dummy"))).await.assert_status(202);
    let mounted = mount(format!("mount={}&from=org/repo", sha256(&content))).await;
    assert_eq!(mounted.location(), format!("/v2/other/repo/blobs/{}", sha256(&content)));
    assert_created(&client, mounted, &sha256(&content), &content).await;
    assert_created(&client, mount(format!("mount={}", sha256(config))).await, &sha256(config), config).await;
    // Manifests.
    client.get("/v2/org/repo/manifests/nonexistent").await.assert_error(404, "MANIFEST_UNKNOWN");
    let layers = [json!([descriptor(LAYER, &content, Algorithm::Sha256)]), json!([])];
    for (i, layers) in layers.iter().enumerate() {
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(CONFIG, config, Algorithm::Sha256), "layers": layers});
        let manifest = manifest.to_string().into_bytes();
        for tag in 0..4 {
            let put =
                client.push_manifest("org/repo", &format!("test{i}-{tag}"), OCI_MANIFEST, &manifest).await;
            assert_manifest(
                &client,
                "org/repo",
                put.location().rsplit('/').next().unwrap(),
                OCI_MANIFEST,
                &manifest,
            )
            .await;
        }
    }
}

#[tokio::test]
async fn discovery() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let image = client.image("org/repo", b"a layer").await;
    let mut tags: Vec<String> = (0..4).map(|i| format!("test{i}")).collect();
    for tag in &tags {
        client.push_manifest("org/repo", tag, OCI_MANIFEST, &image).await;
    }
    tags.sort();
    let list = async |query: &str| {
        let answer = client.get(&format!("/v2/org/repo/tags/list{query}")).await.assert_status(200);
        serde_json::from_value::<Vec<String>>(answer.json()["tags"].clone()).unwrap()
    };
    assert_eq!(list("").await, tags);
    assert_eq!(list("?n=2").await, tags[..2]);
    assert_eq!(list(&format!("?n=2&last={}", tags[1])).await, tags[2..]);

    let referrers = async |subject: &Digest, query: &str| {
        let answer = client.get(&format!("/v2/org/repo/referrers/{subject}{query}")).await.assert_status(200);
        assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
        answer
    };
    let listed = |answer: &Answer| answer.json()["manifests"].as_array().unwrap().clone();
    assert!(listed(&referrers(&sha256(b"dummy"), "").await).is_empty());
    // Five of them, two before the subject: two types, in the configuration or of their own; one is an index.
    let subject = sha256(&image);
    let empty = client.push_blob("org/repo", b"{}").await;
    let mut expected = BTreeMap::new();
    for (i, (kind, of_config)) in
        [(0, true), (0, false), (1, true), (1, false), (2, false)].into_iter().enumerate()
    {
        let subject = json!({"mediaType": OCI_MANIFEST, "digest": subject.to_string(), "size": image.len()});
        let annotations = json!({"org.opencontainers.conformance.test": i.to_string()});
        let entry = |kind: &str| json!({"mediaType": kind, "digest": empty.to_string(), "size": 2});
        let (media_type, artifact, manifest) = if kind == 2 {
            let manifest = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "artifactType": "application/x.index",
                "manifests": [], "subject": subject, "annotations": annotations});
            (OCI_INDEX, "application/x.index", manifest)
        } else {
            let mut manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "config": entry(if of_config { EXAMPLE[kind] } else { EMPTY }), "layers": [entry(EMPTY)],
                "subject": subject, "annotations": annotations});
            if !of_config {
                manifest["artifactType"] = json!(EXAMPLE[kind]);
            }
            (OCI_MANIFEST, EXAMPLE[kind], manifest)
        };
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes).to_string();
        let put = client.push_manifest("org/repo", &digest, media_type, &bytes).await;
        assert_eq!(put.header("oci-subject"), Some(sha256(&image).to_string().as_str()));
        let entry = json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": artifact,
            "annotations": annotations});
        expected.insert(digest, entry);
    }
    let all = listed(&referrers(&subject, "").await);
    assert_eq!(all, expected.values().cloned().collect::<Vec<_>>());
    let answer = referrers(&subject, &format!("?artifactType={}", EXAMPLE[0])).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    let of_type = |entry: &&Value| entry["artifactType"] == EXAMPLE[0];
    assert_eq!(listed(&answer), expected.values().filter(of_type).cloned().collect::<Vec<_>>());
}

#[tokio::test]
async fn management() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("org/repo", b"a layer").await;
    let digest = sha256(&manifest);
    for tag in ["tagtest0", "tagtest1"] {
        client.push_manifest("org/repo", tag, OCI_MANIFEST, &manifest).await;
    }
    client.delete("/v2/org/repo/manifests/tagtest0").await.assert_status(202);
    client.get("/v2/org/repo/manifests/tagtest0").await.assert_status(404);
    client.get("/v2/org/repo/manifests/tagtest1").await.assert_status(200);
    client.delete(&format!("/v2/org/repo/manifests/{digest}")).await.assert_status(202);
    for reference in ["tagtest1", &digest.to_string()] {
        client.get(&format!("/v2/org/repo/manifests/{reference}")).await.assert_status(404);
    }
    let tags = client.get("/v2/org/repo/tags/list").await.assert_status(200).json()["tags"].clone();
    assert_eq!(tags, json!([]));
    let blob = format!("/v2/org/repo/blobs/{}", sha256(b"a layer"));
    client.delete(&blob).await.assert_status(202);
    client.get(&blob).await.assert_error(404, "BLOB_UNKNOWN");
    client.delete(&blob).await.assert_error(404, "BLOB_UNKNOWN");
}
