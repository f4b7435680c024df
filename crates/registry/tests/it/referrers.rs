//! Referrers: what was said about a manifest.

use bulla::Digest;
use serde_json::{Value, json};

use crate::client::{Answer, Client, OCI_INDEX, OCI_MANIFEST, sha256};
use crate::support::Node;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

async fn attach(client: &Client, subject: &Digest, kind: Option<&str>, annotation: &str) -> (Digest, Answer) {
    let config = client.push_blob("app", b"{}").await.to_string();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": EMPTY, "digest": config, "size": 2},
        "layers": [{"mediaType": EMPTY, "digest": config, "size": 2}],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject.to_string(), "size": 1},
        "annotations": {"note": annotation},
    });
    if let Some(kind) = kind {
        manifest["artifactType"] = json!(kind);
    }
    let bytes = manifest.to_string().into_bytes();
    let digest = sha256(&bytes);
    let answer = client.push_manifest("app", &digest.to_string(), OCI_MANIFEST, &bytes).await;
    (digest, answer)
}

async fn list(client: &Client, subject: &Digest, query: &str) -> (Vec<Value>, Answer) {
    let answer = client.get(&format!("/v2/app/referrers/{subject}{query}")).await.assert_status(200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    let body = answer.json();
    assert_eq!((&body["schemaVersion"], &body["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    (body["manifests"].as_array().unwrap().clone(), answer)
}

#[tokio::test]
async fn what_refers_to_a_manifest_is_listed() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let absent = sha256(b"absent");
    assert_eq!(list(&client, &absent, "").await.0, Vec::<Value>::new(), "of nothing");
    let subject = client.push_image("app", "v1", b"a layer").await;
    let (signature, answer) = attach(&client, &subject, Some("application/vnd.example.sig"), "signed").await;
    assert_eq!(answer.header("oci-subject"), Some(subject.to_string().as_str()));
    let (bill, _) = attach(&client, &subject, None, "a bill").await;
    let (listed, answer) = list(&client, &subject, "").await;
    assert_eq!((listed.len(), answer.header("oci-filters-applied")), (2, None));
    let find = |digest: &Digest| listed.iter().find(|entry| entry["digest"] == digest.to_string()).unwrap();
    let size = client.get(&format!("/v2/app/manifests/{signature}")).await.body.len();
    assert_eq!(
        *find(&signature),
        json!({"mediaType": OCI_MANIFEST, "digest": signature.to_string(), "size": size,
            "artifactType": "application/vnd.example.sig", "annotations": {"note": "signed"}})
    );
    assert_eq!(find(&bill)["artifactType"], EMPTY, "its configuration's type");

    let (filtered, answer) = list(&client, &subject, "?artifactType=application%2Fvnd.example.sig").await;
    assert_eq!(filtered, [find(&signature).clone()]);
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    assert!(list(&client, &subject, "?artifactType=other").await.0.is_empty());
    client.get("/v2/app/referrers/sha256:1").await.assert_error(400, "DIGEST_INVALID");

    client.delete(&format!("/v2/app/manifests/{bill}")).await.assert_status(202);
    assert_eq!(list(&client, &subject, "").await.0.len(), 1);
    // The subject may go; what was said of it stays.
    client.delete(&format!("/v2/app/manifests/{subject}")).await.assert_status(202);
    assert_eq!(list(&client, &subject, "").await.0.len(), 1);
}

#[tokio::test]
async fn a_subject_may_come_later() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let manifest = client.image("app", b"a layer").await;
    let subject = sha256(&manifest);
    let (signature, _) = attach(&client, &subject, Some("a/b"), "early").await;
    client.push_manifest("app", "v1", OCI_MANIFEST, &manifest).await;
    assert_eq!(list(&client, &subject, "").await.0[0]["digest"], signature.to_string());
}

#[tokio::test]
async fn pages_follow_one_another() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let subject = client.push_image("app", "v1", b"a layer").await;
    let mut all = Vec::new();
    for i in 0..5 {
        let kind = if i == 0 { "x/other" } else { "x/y" };
        all.push(attach(&client, &subject, Some(kind), &i.to_string()).await.0.to_string());
    }
    all.sort();
    for (query, count) in [("?n=2", 5), ("?n=2&artifactType=x/y", 4), ("?n=1&artifactType=x/other", 1)] {
        let mut seen = Vec::new();
        let mut path = Some(format!("/v2/app/referrers/{subject}{query}"));
        while let Some(at) = path {
            let answer = client.get(&at).await.assert_status(200);
            let listed = answer.json()["manifests"].as_array().unwrap().clone();
            seen.extend(listed.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
            path = answer.header("link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
        }
        assert_eq!(seen.len(), count, "{query}");
        assert!(seen.is_sorted() && seen.iter().all(|digest| all.contains(digest)));
    }
}

/// Annotations that don't fit into an entry are read from the manifest; answers stay of a length that clients read.
#[tokio::test]
async fn large_annotations_are_listed() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let subject = client.push_image("app", "v1", b"a layer").await;
    let long = "x".repeat(2 << 20);
    attach(&client, &subject, Some("a/b"), &long).await;
    attach(&client, &subject, Some("a/b"), &(long.clone() + "y")).await;
    let (listed, answer) = list(&client, &subject, "").await;
    assert_eq!(listed.len(), 1, "two would be more than 4 MiB");
    assert!(listed[0]["annotations"]["note"].as_str().unwrap().starts_with(&long));
    assert!(answer.header("link").is_some());
}
