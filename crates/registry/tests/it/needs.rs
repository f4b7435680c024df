//! What every request needs of its sender, and that who may not learns nothing.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::http::HeaderMap;
use bulla_registry::RegistryOptions;
use bulla_registry::access::{Access, Needs, Refused};

use crate::client::{Answer, OCI_MANIFEST, sha256};
use crate::support::{Node, World};

/// Remembers what was asked, and allows what is in the list.
#[derive(Debug, Default)]
struct Listed {
    allowed: Vec<&'static str>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Access for Listed {
    async fn check(&self, _: &HeaderMap, needs: Needs<'_>) -> Result<(), Refused> {
        let needs = match needs {
            Needs::Login => "login".to_owned(),
            Needs::Catalog => "catalog".to_owned(),
            Needs::Repository { name, action } => format!("{} {name}", action.as_str()),
            Needs::Mount { name, from } => format!("push {name} from {from}"),
        };
        let may = self.allowed.contains(&needs.as_str());
        self.asked.lock().unwrap().push(needs);
        if may { Ok(()) } else { Err(Refused::Denied) }
    }
}

async fn node(world: &World, allowed: &[&'static str]) -> (Node, Arc<Listed>) {
    let access = Arc::new(Listed { allowed: allowed.to_vec(), ..Listed::default() });
    let node = Node::with(world.open().await, RegistryOptions::default(), access.clone()).await;
    (node, access)
}

#[tokio::test]
async fn every_request_needs_what_it_does_and_the_refusal_says_nothing() {
    let world = World::new().await;
    let everybodys = Node::start(&world).await;
    let open = everybodys.client;
    let there = open.push_image("app", "v1", b"a layer").await;
    let blob = sha256(b"a layer");
    let begun = open.begin("app").await;
    let begun = open.send("PATCH", &begun, &[], b"some").await.assert_status(202).location().to_owned();
    let begun = begun.rsplit('/').next().unwrap();
    let (node, access) = node(&world, &[]).await;
    let absent = sha256(b"absent");
    // For each request the same about what is not there.
    for (methods, path, other, needs) in [
        ("GET HEAD", "", "", "login"),
        ("GET HEAD", "_catalog", "_catalog?n=1", "catalog"),
        ("GET HEAD", "app/tags/list", "app/tags/list?last=x", "pull app"),
        ("GET HEAD", "app/manifests/v1", "app/manifests/v2", "pull app"),
        ("GET HEAD", &format!("app/manifests/{there}"), &format!("app/manifests/{absent}"), "pull app"),
        ("GET HEAD", &format!("app/blobs/{blob}"), &format!("app/blobs/{absent}"), "pull app"),
        ("GET HEAD", &format!("app/referrers/{there}"), "app/referrers/sha256:none", "pull app"),
        ("PUT", "app/manifests/v1", "app/manifests/.none", "push app"),
        ("DELETE", "app/manifests/v1", "app/manifests/v2", "delete app"),
        ("DELETE", &format!("app/manifests/{there}"), &format!("app/manifests/{absent}"), "delete app"),
        ("DELETE", &format!("app/blobs/{blob}"), &format!("app/blobs/{absent}"), "delete app"),
        ("POST", "app/blobs/uploads/", &format!("app/blobs/uploads/?mount={blob}&from=.no"), "push app"),
        (
            "POST",
            &format!("app/blobs/uploads/?mount={blob}&from=other"),
            &format!("app/blobs/uploads/?mount={absent}&from=other"),
            "push app from other",
        ),
        ("POST", "app/blobs/uploads", "app/blobs/uploads?digest=none", "push app"),
        (
            "GET HEAD PATCH PUT DELETE",
            &format!("app/blobs/uploads/{begun}"),
            "app/blobs/uploads/none",
            "push app",
        ),
        // Names that look like paths: what is asked for is what is served.
        ("GET", "app/tags/list/tags/list", "app/blobs/uploads/tags/list", "pull app/"),
        ("PUT", "app/blobs/uploads/manifests/v1", "app/tags/manifests/v1", "push app/"),
    ] {
        for method in methods.split(' ') {
            let mut answers: Vec<Answer> = Vec::new();
            for path in [path, other] {
                let answer = node.client.send(method, &format!("/v2/{path}"), &[], b"").await;
                assert_eq!(answer.status, 403, "{method} {path}");
                let asked = std::mem::take(&mut *access.asked.lock().unwrap());
                assert_eq!(asked.len(), 1, "{method} {path}: {asked:?}");
                assert!(asked[0].starts_with(needs), "{method} {path}: {asked:?}");
                answers.push(answer);
            }
            assert_eq!(answers[0].body, answers[1].body, "{method} {path}");
        }
    }
    open.get("/v2/app/manifests/v1").await.assert_status(200);
    let upload = open.get(&format!("/v2/app/blobs/uploads/{begun}")).await.assert_status(204);
    assert_eq!(upload.header("range"), Some("0-3"), "nothing came to it");
}

#[tokio::test]
async fn a_mount_that_is_not_allowed_looks_like_one_that_finds_nothing() {
    let world = World::new().await;
    let everybodys = Node::start(&world).await;
    let open = everybodys.client;
    let secret = open.push_blob("theirs", b"a secret").await;
    open.push_blob("ours", b"something").await;
    let (node, access) =
        node(&world, &["push ours", "push ours from theirs", "push ours from nowhere", "pull ours"]).await;
    let mut answers = Vec::new();
    for query in [
        format!("mount={secret}&from=theirs"),
        format!("mount={}&from=theirs", sha256(b"absent")),
        format!("mount={secret}&from=nowhere"),
        format!("mount={secret}"),
    ] {
        let path = format!("/v2/ours/blobs/uploads/?{query}");
        let answer = node.client.send("POST", &path, &[], b"").await.assert_status(202);
        assert!(answer.location().starts_with("/v2/ours/blobs/uploads/"));
        let asked = std::mem::take(&mut *access.asked.lock().unwrap());
        assert!(asked.iter().all(|needs| !needs.starts_with("push t")), "{asked:?}");
        let range = answer.header("range").map(str::to_owned);
        answers.push((answer.body, range));
        open.head(&format!("/v2/ours/blobs/{secret}")).await.assert_status(404);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    // Nor does a manifest make it theirs.
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": {"mediaType": "a/b", "digest": secret.to_string(), "size": 8}});
    let headers = [("Content-Type", OCI_MANIFEST)];
    let manifest = manifest.to_string().into_bytes();
    let answer = node.client.send("PUT", "/v2/ours/manifests/v1", &headers, &manifest).await;
    answer.assert_error(400, "MANIFEST_BLOB_UNKNOWN");
}
