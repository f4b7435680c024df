//! The version check, tags, and the catalog.

use serde_json::json;

use crate::client::{Answer, Client};
use crate::support::Node;

#[tokio::test]
async fn the_version_check_says_yes() {
    let (_world, node) = Node::alone().await;
    for path in ["/v2/", "/v2"] {
        let answer = node.client.get(path).await.assert_status(200);
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

/// All pages, as `Link` leads from one to the next.
async fn pages(client: &Client, path: &str) -> Vec<Answer> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = client.get(&path).await.assert_status(200);
        let link = page.header("link").map(|link| link.strip_suffix(r#"; rel="next""#).unwrap());
        next = link.map(|link| link.trim_matches(['<', '>']).to_owned());
        pages.push(page);
    }
    pages
}

#[tokio::test]
async fn tags_are_listed_in_order_and_in_pages() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = client.push_image("app", "v2", b"layer").await;
    let manifest = client.get(&format!("/v2/app/manifests/{digest}")).await.body;
    for tag in ["v10", "_x", "Z", "a", "v1.0-rc_1"] {
        client.push_manifest("app", tag, crate::client::OCI_MANIFEST, &manifest).await;
    }
    let all = ["Z", "_x", "a", "v1.0-rc_1", "v10", "v2"];
    let answer = client.get("/v2/app/tags/list").await.assert_status(200);
    assert_eq!(answer.json(), json!({"name": "app", "tags": all}));
    assert_eq!(answer.header("link"), None);
    for n in 1..8 {
        let mut tags = Vec::new();
        for page in pages(&client, &format!("/v2/app/tags/list?n={n}")).await {
            let page: Vec<String> = serde_json::from_value(page.json()["tags"].clone()).unwrap();
            assert!(page.len() == n || tags.len() + page.len() == all.len());
            tags.extend(page);
        }
        assert_eq!(tags, all, "n={n}");
    }
    let tags =
        async |query: &str| client.get(&format!("/v2/app/tags/list?{query}")).await.json()["tags"].clone();
    assert_eq!(tags("last=v10").await, json!(["v2"]));
    assert_eq!(tags("last=b").await, json!(["v1.0-rc_1", "v10", "v2"]), "one that is no tag");
    assert_eq!(tags("last=zzz").await, json!([]));
    assert_eq!(tags("n=99999999999999999999999").await, json!(all));
    let none = client.get("/v2/app/tags/list?n=0").await.assert_status(200);
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (json!([]), None));
    for n in ["-1", "x", "1.5", ""] {
        for list in ["app/tags/list", "_catalog"] {
            let answer = client.get(&format!("/v2/{list}?n={n}")).await;
            answer.assert_error(400, "UNSUPPORTED");
            assert_eq!(answer.json()["errors"][0]["detail"], json!({ "n": n }));
        }
    }
    client.get("/v2/nowhere/tags/list").await.assert_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_repository_with_blobs_only_has_no_tags() {
    let (_world, node) = Node::alone().await;
    node.client.push_blob("app", b"layer").await;
    assert_eq!(node.client.get("/v2/app/tags/list").await.json(), json!({"name": "app", "tags": []}));
}

#[tokio::test]
async fn the_catalog_has_every_repository() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    assert_eq!(client.get("/v2/_catalog").await.json(), json!({"repositories": []}));
    let long = "x/".repeat(120) + "long";
    let mut all = vec!["b", "a/b/c", "a", "a-b", &long];
    for name in &all {
        client.push_blob(name, b"layer").await;
    }
    all.sort_unstable();
    assert_eq!(client.get("/v2/_catalog").await.json(), json!({"repositories": all}));
    let mut names = Vec::new();
    for page in pages(&client, "/v2/_catalog?n=2").await {
        names.extend(page.json()["repositories"].as_array().unwrap().clone());
    }
    assert_eq!(json!(names), json!(all));
    assert_eq!(
        client.get("/v2/_catalog?last=a-b").await.json(),
        json!({"repositories": ["a/b/c", "b", long]})
    );
}
