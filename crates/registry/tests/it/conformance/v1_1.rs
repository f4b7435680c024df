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
    // One is pushed by a tag, the other by its digest; deleted before and after their blobs.
    for (round, manifests_first) in [true, false].into_iter().enumerate() {
        let layers = [blob(40, 2 * round), blob(40, 2 * round + 1)];
        let manifests =
            [client.image("org/repo", &layers[0]).await, client.image("org/repo", &layers[1]).await];
        let digests = [sha256(&manifests[0]).to_string(), sha256(&manifests[1]).to_string()];
        client.push_manifest("org/repo", "tagtest0", OCI_MANIFEST, &manifests[0]).await;
        client.push_manifest("org/repo", &digests[1], OCI_MANIFEST, &manifests[1]).await;
        let absent = sha256(b"hello world");
        for method in ["HEAD", "GET"] {
            let blob = format!("/v2/org/repo/blobs/{absent}");
            client.send(method, &blob, &[], b"").await.assert_status(404);
            for reference in [".INVALID_MANIFEST_NAME", "nonexistent", &absent.to_string()] {
                let answer =
                    client.send(method, &format!("/v2/org/repo/manifests/{reference}"), &[], b"").await;
                assert_eq!(answer.status, 404, "{method} {reference}");
            }
        }
        for layer in &layers {
            assert_blob(&client, "org/repo", &sha256(layer), layer).await;
        }
        for (reference, manifest) in
            [("tagtest0", &manifests[0]), (&digests[0], &manifests[0]), (&digests[1], &manifests[1])]
        {
            assert_manifest(&client, "org/repo", reference, OCI_MANIFEST, manifest).await;
        }
        // Later revisions ask by GET what earlier ones asked by PUT.
        let path = "/v2/org/repo/manifests/sha256:totallywrong";
        for (method, body) in [("GET", b"".as_slice()), ("PUT", b"blablabla")] {
            let answer = client.send(method, path, &[("Content-Type", OCI_MANIFEST)], body).await;
            answer.assert_error(400, "DIGEST_INVALID");
        }
        let mut paths: Vec<String> =
            digests.iter().map(|it| format!("/v2/org/repo/manifests/{it}")).collect();
        paths.extend(layers.iter().map(|it| format!("/v2/org/repo/blobs/{}", sha256(it))));
        if !manifests_first {
            paths.reverse();
        }
        for path in paths {
            client.delete(&path).await.assert_status(202);
            client.head(&path).await.assert_status(404);
        }
    }
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
    // By the location of the POST, as well as by that of the PATCH.
    client
        .send("PATCH", begun.location(), &first, &content[..25])
        .await
        .assert_error(416, "BLOB_UPLOAD_INVALID");
    for location in [begun.location(), patch.location()] {
        for method in ["GET", "HEAD"] {
            let state = client.send(method, location, &[], b"").await.assert_status(204);
            assert_eq!((state.header("range"), state.location()), (Some("0-24"), patch.location()));
        }
    }
    let patch = client.send("PATCH", patch.location(), &second, &content[25..]).await.assert_status(202);
    assert_eq!(patch.header("range"), Some("0-49"));
    let put = client.send("PUT", &ending(patch.location(), sha256(&content)), &[OCTETS], b"").await;
    assert_created(&client, put, &sha256(&content), &content).await;
    // Mounts.
    let mount = async |query: String| {
        client.send("POST", &format!("/v2/other/repo/blobs/uploads/?{query}"), &[], b"").await
    };
    for from in ["", "&from=org/repo"] {
        mount(format!("mount={}{from}", sha256(b"dummy"))).await.assert_status(202).location();
    }
    let mounted = mount(format!("mount={}&from=org/repo", sha256(&content))).await;
    assert_eq!(mounted.location(), format!("/v2/other/repo/blobs/{}", sha256(&content)));
    assert_created(&client, mounted, &sha256(&content), &content).await;
    assert_created(&client, mount(format!("mount={}", sha256(config))).await, &sha256(config), config).await;
    // Manifests.
    client.get("/v2/org/repo/manifests/nonexistent").await.assert_error(404, "MANIFEST_UNKNOWN");
    // The configuration's entry has its bytes, and a field that no specification has. Without layers, the manifest doesn't
    // say either what it is.
    let mut entry = descriptor(CONFIG, config, Algorithm::Sha256);
    entry["data"] = json!("eyJhcmNoaXRlY3R1cmUiOiJhbWQ2NCIsIm9zIjoibGludXgifQ==");
    entry["newUnspecifiedField"] = json!("aGVsbG8gd29ybGQ=");
    let manifests = [
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry,
            "layers": [descriptor(LAYER, &content, Algorithm::Sha256)]}),
        json!({"schemaVersion": 2, "config": entry, "layers": []}),
    ];
    for (i, manifest) in manifests.iter().enumerate() {
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
    // Five of them, three before their subject: two types, in the configuration or of their own; one is an index of the
    // first two. And one whose subject never comes.
    let (image, absent) = (client.image("org/repo", b"another layer").await, b"never pushed");
    let subject = sha256(&image);
    let empty = client.push_blob("org/repo", b"{}").await;
    let mut expected = BTreeMap::new();
    let mut of_absent = Vec::new();
    let asked = [
        (0, true, true),
        (0, false, true),
        (2, false, true),
        (1, true, true),
        (1, false, true),
        (1, false, false),
    ];
    for (i, (kind, of_config, is_there)) in asked.into_iter().enumerate() {
        if i == 3 {
            client.push_manifest("org/repo", "tagtest0", OCI_MANIFEST, &image).await;
        }
        let subject = descriptor(OCI_MANIFEST, if is_there { &image } else { absent }, Algorithm::Sha256);
        let annotations = json!({"org.opencontainers.conformance.test": i.to_string()});
        let entry = |kind: &str| json!({"mediaType": kind, "digest": empty.to_string(), "size": 2});
        let (media_type, artifact, manifest) = if kind == 2 {
            let of: Vec<_> = expected.values().cloned().collect();
            let manifest = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "artifactType": "application/x.index",
                "manifests": of, "subject": subject, "annotations": annotations});
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
        assert_eq!(put.header("oci-subject"), subject["digest"].as_str());
        let entry = json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": artifact,
            "annotations": annotations});
        if is_there {
            expected.insert(digest, entry);
        } else {
            of_absent.push(entry);
        }
    }
    assert_eq!(listed(&referrers(&sha256(absent), "").await), of_absent);
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
