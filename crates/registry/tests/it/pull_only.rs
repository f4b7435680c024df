//! A node that may not write to the bucket any more: who pulls does not notice, and nobody relies on what gc could take away.

use std::sync::Arc;

use bulla::Bucket;
use bulla_testkit::scripted::ScriptedStore;

use crate::client::{OCI_MANIFEST, sha256};
use crate::support::{Node, World};

#[tokio::test]
async fn who_may_not_write_serves_pulls_and_nothing_else() {
    let objects = ScriptedStore::in_memory();
    let bucket = || Bucket::from_object_store(Arc::new(objects.clone()), "").unwrap();
    let world = World::over(bucket()).await;
    let pushed = Node::start_at(&world, bucket()).await;
    let manifest = pushed.client.image("app", b"a layer").await;
    pushed.client.push_manifest("app", "v1", OCI_MANIFEST, &manifest).await;
    // It has no clock of the bucket yet, which is read by writing.
    let node = Node::start_at(&world, bucket()).await;
    let client = node.client;
    objects.set_read_only();
    let layer = sha256(b"a layer");
    for path in [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/app/tags/list".to_owned(),
        "/v2/app/manifests/v1".to_owned(),
        format!("/v2/app/manifests/{}", sha256(&manifest)),
        format!("/v2/app/blobs/{layer}"),
        format!("/v2/app/referrers/{}", sha256(&manifest)),
    ] {
        client.get(&path).await.assert_status(200);
        let head = client.head(&path).await.assert_status(200);
        assert!(!path.contains("blobs") || head.header("content-length") == Some("7"));
    }
    client.head(&format!("/v2/app/blobs/{}", sha256(b"another"))).await.assert_status(404);
    client.head(&format!("/v2/other/blobs/{layer}")).await.assert_status(404);

    // Nothing is promised to who pushes.
    for from in ["&from=app", ""] {
        let mount = format!("/v2/app/blobs/uploads/?mount={layer}{from}");
        assert!(client.send("POST", &mount, &[], b"").await.status >= 500, "{mount}");
    }
    let put = client.send("PUT", "/v2/app/manifests/v2", &[("Content-Type", OCI_MANIFEST)], &manifest).await;
    assert!(put.status >= 500);
    client.head("/v2/app/manifests/v2").await.assert_status(404);
}
