//! The draft's suite: manifests of every kind that it knows, from push to deletion.

use std::collections::BTreeSet;

use bulla::{Algorithm, Digest};
use serde_json::{Map, Value, json};

use super::{CONFIG, EMPTY, EXAMPLE, LAYER, OCTETS, assert_blob, assert_manifest, blob, descriptor};
use crate::client::{OCI_INDEX, OCI_MANIFEST, ending, sha256};
use crate::support::Node;

#[tokio::test]
async fn what_was_never_pushed_to_is_empty() {
    let (_world, node) = Node::alone().await;
    node.client.get("/v2/").await.assert_status(200);
    node.client.get("/v2/conformance/repo1/tags/list").await.assert_error(404, "NAME_UNKNOWN");
    let path = format!("/v2/conformance/repo1/referrers/{}", sha256(b"never pushed"));
    let answer = node.client.get(&path).await.assert_status(200);
    assert_eq!(answer.json(), json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}));
}

/// What the draft's suite makes: manifests, those that others need first, with the blobs that they need.
struct Data {
    algorithm: Algorithm,
    number: usize,
    blobs: Vec<Vec<u8>>,
    manifests: Vec<(&'static str, Vec<u8>)>,
}

impl Data {
    fn new(algorithm: Algorithm, number: usize) -> Self {
        Self { algorithm, number: number * 100, blobs: Vec::new(), manifests: Vec::new() }
    }

    fn blob(&mut self, kind: &str) -> Value {
        self.number += 1;
        let content = blob(400, self.number);
        let entry = descriptor(kind, &content, self.algorithm);
        self.blobs.push(content);
        entry
    }

    /// An image with so many layers, and with more fields.
    fn image(&mut self, layers: usize, more: Value) -> Value {
        let config = self.blob(CONFIG);
        let layers: Vec<Value> = (0..layers).map(|_| self.blob(LAYER)).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
        self.manifest(OCI_MANIFEST, manifest, more)
    }

    fn artifact(&mut self, kind: &str, more: Value) -> Value {
        self.blobs.push(b"{}".to_vec());
        let config = descriptor(EMPTY, b"{}", self.algorithm);
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind, "config": config,
            "layers": [self.blob(kind)]});
        self.manifest(OCI_MANIFEST, manifest, more)
    }

    fn index(&mut self, of: Vec<Value>, more: Value) -> Value {
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": of});
        self.manifest(OCI_INDEX, manifest, more)
    }

    fn manifest(&mut self, kind: &'static str, mut manifest: Value, more: Value) -> Value {
        self.number += 1;
        manifest["annotations"]["number"] = json!(self.number.to_string());
        let more: Map<String, Value> = serde_json::from_value(more).unwrap();
        manifest.as_object_mut().unwrap().extend(more);
        let bytes = manifest.to_string().into_bytes();
        let entry = descriptor(kind, &bytes, self.algorithm);
        self.manifests.push((kind, bytes));
        entry
    }

    fn of(what: &str, number: usize) -> Self {
        let is_sha512 = what.contains("sha512");
        let mut data = Self::new(if is_sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 }, number);
        let nothing = || json!({});
        match what {
            "image" => drop(data.image(2, nothing())),
            "large manifest" => {
                let large: Map<String, Value> =
                    (0..390).map(|i| (format!("large-annotation-{i}"), json!("A".repeat(10_000)))).collect();
                data.image(2, json!({ "annotations": large }));
            }
            "nested index" => {
                let images = vec![data.image(2, nothing()), data.image(2, nothing())];
                let inner = vec![data.index(images, nothing()), data.index(vec![], nothing())];
                data.index(inner, nothing());
            }
            "empty index" => drop(data.index(vec![], nothing())),
            "artifact" => drop(data.artifact(EXAMPLE[0], nothing())),
            "artifact without layers" => {
                let empty = descriptor(EMPTY, b"{}", data.algorithm);
                data.artifact(EXAMPLE[0], json!({ "layers": [empty] }));
            }
            "artifact index" => {
                let of = vec![data.artifact(EXAMPLE[0], nothing()), data.artifact(EXAMPLE[0], nothing())];
                data.index(of, json!({ "artifactType": EXAMPLE[0] }));
            }
            "subject" => {
                let subject = data.image(2, nothing());
                data.image(1, json!({ "subject": subject }));
                data.artifact(EXAMPLE[0], json!({ "subject": subject }));
                data.artifact(EXAMPLE[1], json!({ "subject": subject }));
            }
            "index with subject" => {
                let subject = data.index(vec![], nothing());
                let of = vec![data.artifact(EXAMPLE[0], nothing())];
                data.index(of, json!({ "artifactType": EXAMPLE[0], "subject": subject }));
            }
            "missing subject" => {
                let subject = descriptor(OCI_MANIFEST, b"missing content", Algorithm::Sha256);
                data.artifact(EXAMPLE[0], json!({ "subject": subject }));
            }
            "data field" => {
                let mut config = descriptor(EMPTY, b"{}", Algorithm::Sha256);
                config["data"] = json!("e30=");
                data.blobs.push(b"{}".to_vec());
                data.image(1, json!({ "config": config }));
            }
            "non-distributable layers" => {
                let mut layer = descriptor(
                    "application/vnd.oci.image.layer.nondistributable.v1.tar",
                    b"elsewhere",
                    Algorithm::Sha256,
                );
                layer["urls"] = json!(["https://store.example.com/blobs"]);
                let here = data.blob(LAYER);
                data.image(0, json!({ "layers": [layer, here] }));
            }
            "custom fields" => {
                let of = vec![data.image(1, json!({ "org.example.more": {"a": [1, null]} }))];
                data.index(of, json!({ "org.example.more": "b" }));
            }
            "no layers" => drop(data.image(0, nothing())),
            // Also by digest, with tags as parameters.
            _ => {
                let of = vec![data.image(2, nothing()), data.image(2, nothing())];
                data.index(of, nothing());
            }
        }
        data
    }
}

#[tokio::test]
async fn every_kind_of_data() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let repo = "conformance/repo1";
    let kinds = [
        "image",
        "large manifest",
        "index",
        "nested index",
        "empty index",
        "artifact",
        "artifact without layers",
        "artifact index",
        "subject",
        "index with subject",
        "missing subject",
        "data field",
        "non-distributable layers",
        "custom fields",
        "no layers",
        "sha512",
        "tag parameter sha256",
        "tag parameter sha512",
    ];
    for (i, what) in kinds.into_iter().enumerate() {
        let data = Data::of(what, i + 1);
        for content in &data.blobs {
            let digest = Digest::of(data.algorithm, content);
            let path = ending(&client.begin(repo).await, &digest);
            client.send("PUT", &path, &[OCTETS], content).await.assert_status(201);
            assert_blob(&client, repo, &digest, content).await;
        }
        let (mut tags, mut referred) = (Vec::new(), Vec::new());
        for (number, (kind, bytes)) in data.manifests.iter().enumerate() {
            let digest = Digest::of(data.algorithm, bytes).to_string();
            let tag = format!("tag-{number}");
            let as_parameter = what.starts_with("tag parameter");
            // The last one, which needs the others, has two.
            let mut new = vec![tag.clone()];
            if as_parameter && number + 1 == data.manifests.len() {
                new.push(format!("{tag}-top"));
            }
            let query = if as_parameter { format!("?tag={}", new.join("&tag=")) } else { String::new() };
            let put = client.push_manifest(repo, &format!("{digest}{query}"), kind, bytes).await;
            assert_eq!(put.header("docker-content-digest"), Some(digest.as_str()), "{what}");
            assert_manifest(&client, repo, put.location().rsplit('/').next().unwrap(), kind, bytes).await;
            let manifest: Value = serde_json::from_slice(bytes).unwrap();
            let subject = manifest["subject"]["digest"].as_str();
            assert_eq!(put.header("oci-subject"), subject, "{what}");
            if let Some(subject) = subject {
                // A type, or the configuration's if there is none.
                let artifact = manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str());
                let entry = json!({"mediaType": kind, "digest": digest, "size": bytes.len(),
                    "artifactType": artifact, "annotations": manifest["annotations"]});
                referred.push((subject.to_owned(), entry));
            }
            if as_parameter {
                assert_eq!(put.headers("oci-tag"), new);
            } else if what != "sha512" {
                let put = client.push_manifest(repo, &tag, kind, bytes).await;
                assert_eq!(put.header("docker-content-digest"), Some(digest.as_str()), "{what}");
            } else {
                continue;
            }
            for tag in new {
                assert_manifest(&client, repo, &tag, kind, bytes).await;
                tags.push(tag);
            }
        }
        let list = async |query: &str| {
            client.get(&format!("/v2/{repo}/tags/list{query}")).await.assert_status(200).json()["tags"]
                .clone()
        };
        assert_eq!(list("").await, json!(tags), "{what}");
        for (i, last) in tags.iter().enumerate() {
            assert_eq!(list(&format!("?last={last}")).await, json!(tags[i + 1..]), "{what}");
        }
        for (subject, entry) in &referred {
            let kind = entry["artifactType"].as_str().unwrap().replace('+', "%2B");
            for query in [String::new(), format!("?artifactType={kind}")] {
                let answer =
                    client.get(&format!("/v2/{repo}/referrers/{subject}{query}")).await.assert_status(200);
                assert!(answer.json()["manifests"].as_array().unwrap().contains(entry), "{what}: {entry}");
                assert!(query.is_empty() || answer.header("oci-filters-applied") == Some("artifactType"));
            }
        }
        for tag in &tags {
            client.delete(&format!("/v2/{repo}/manifests/{tag}")).await.assert_status(202);
            client.head(&format!("/v2/{repo}/manifests/{tag}")).await.assert_status(404);
        }
        for (_, bytes) in data.manifests.iter().rev() {
            let path = format!("/v2/{repo}/manifests/{}", Digest::of(data.algorithm, bytes));
            client.delete(&path).await.assert_status(202);
            client.head(&path).await.assert_status(404);
        }
        let blobs: BTreeSet<_> =
            data.blobs.iter().map(|content| Digest::of(data.algorithm, content).to_string()).collect();
        for digest in blobs {
            let path = format!("/v2/{repo}/blobs/{digest}");
            client.delete(&path).await.assert_status(202);
            client.head(&path).await.assert_status(404);
        }
        for (subject, _) in &referred {
            let answer = client.get(&format!("/v2/{repo}/referrers/{subject}")).await.assert_status(200);
            assert_eq!(answer.json()["manifests"], json!([]), "{what}");
        }
    }
}

#[tokio::test]
async fn manifests_that_are_missing_or_wrong() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let repo = "conformance/repo1";
    let manifest = client.image(repo, b"a layer").await;
    for reference in [sha256(b"missing").to_string(), "missing-tag".to_owned()] {
        client.get(&format!("/v2/{repo}/manifests/{reference}")).await.assert_error(404, "MANIFEST_UNKNOWN");
    }
    let invalid = format!("/v2/{repo}/manifests/sha256:baddigeststring");
    let put = client.send("PUT", &invalid, &[("Content-Type", OCI_MANIFEST)], &manifest).await;
    put.assert_error(400, "DIGEST_INVALID");
    client.get(&invalid).await.assert_error(400, "DIGEST_INVALID");
    let spaced = [&manifest[..], b"  "].concat();
    let path = format!("/v2/{repo}/manifests/{}", sha256(&manifest));
    let put = client.send("PUT", &path, &[("Content-Type", OCI_MANIFEST)], &spaced).await;
    put.assert_error(400, "DIGEST_INVALID");
    client.head(&path).await.assert_status(404);
}
