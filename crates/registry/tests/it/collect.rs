//! What a gc of the registry removes, and what it leaves; under virtual time.

use std::time::Duration;

use bulla::Digest;
use bulla_registry::facts::{LINK, MANIFEST, REFERRER, TAG};
use bulla_registry::{CollectOptions, CollectReport, PutManifest, Reference, Repository};
use serde_json::{Value, json};

use crate::client::{OCI_MANIFEST, sha256};
use crate::model::{HOUR, World, push};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl World {
    pub(crate) async fn collect(&self, untagged_after: Option<Duration>, dry_run: bool) -> CollectReport {
        let mut options = CollectOptions::default();
        (options.untagged_after, options.dry_run) = (untagged_after, dry_run);
        self.registry.collect(&options, &|_| {}).await.unwrap()
    }
}

async fn put(repository: &Repository, tag: Option<&str>, manifest: Value) -> Digest {
    let tags = tag.iter().map(|tag| tag.parse().unwrap()).collect();
    let put = PutManifest { tags, bytes: manifest.to_string().into(), ..PutManifest::default() };
    repository.put_manifest(put).await.unwrap().digest
}

fn part(digest: &Digest) -> Value {
    json!({"mediaType": "application/x", "digest": digest.to_string(), "size": 1})
}

fn image(layer: &Digest) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": part(layer), "layers": [part(layer)]})
}

async fn is_there(repository: &Repository, digest: &Digest) -> bool {
    repository.manifest(&Reference::Digest(digest.clone())).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn blobs_without_a_manifest_go_after_the_grace() {
    let world = World::new().await;
    let app = world.repository("app");
    let (needed, loose) = (push(&app, b"needed").await, push(&app, b"loose").await);
    put(&app, Some("v1"), image(&needed)).await;
    tokio::time::sleep(23 * HOUR).await;
    let report = world.collect(None, false).await;
    assert_eq!((report.links, report.removed_links, report.removed_blobs.objects), (2, 0, 0));
    tokio::time::sleep(2 * HOUR).await;
    let dry = world.collect(None, true).await;
    assert!(app.open_blob(&loose).await.unwrap().is_some(), "a dry run removes nothing");
    let report = world.collect(None, false).await;
    assert_eq!(report, dry);
    assert_eq!((report.links, report.removed_links, report.removed_blobs.objects), (1, 1, 1));
    assert_eq!((report.removed_blobs.bytes, report.manifests, report.repositories), (5, 1, 1));
    assert!(app.open_blob(&loose).await.unwrap().is_none());
    assert!(!world.registry.store().contains(&loose).await.unwrap());
    assert!(app.open_blob(&needed).await.unwrap().is_some());
}

/// A layer that one repository does not need any more is another's.
#[tokio::test(start_paused = true)]
async fn a_blob_stays_while_any_repository_has_it() {
    let world = World::new().await;
    let (app, other) = (world.repository("app"), world.repository("other"));
    let layer = push(&app, b"layer").await;
    assert!(other.mount_blob(&layer, Some(app.name())).await.unwrap());
    put(&other, Some("v1"), image(&layer)).await;
    tokio::time::sleep(25 * HOUR).await;
    let report = world.collect(None, false).await;
    assert_eq!((report.links, report.removed_links, report.removed_blobs.objects), (1, 1, 0));
    assert!(app.open_blob(&layer).await.unwrap().is_none());
    assert!(other.open_blob(&layer).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_looked_for_stays_for_another_grace() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    tokio::time::sleep(25 * HOUR).await;
    assert!(app.stat_blob(&layer).await.unwrap().is_some());
    assert_eq!(world.collect(None, false).await.removed_links, 0);
    tokio::time::sleep(11 * HOUR).await;
    assert_eq!(world.collect(None, false).await.removed_links, 0);
    put(&app, Some("v1"), image(&layer)).await;
    tokio::time::sleep(48 * HOUR).await;
    assert_eq!(world.collect(None, false).await.removed_links, 0);
    assert!(app.open_blob(&layer).await.unwrap().is_some());
}

/// Children of an index and what refers to a manifest stay with it; all go together.
#[tokio::test(start_paused = true)]
async fn untagged_manifests_go_with_what_hangs_on_them() {
    let world = World::new().await;
    let app = world.repository("app");
    let (layer, signature) = (push(&app, b"layer").await, push(&app, b"signature").await);
    let child = put(&app, None, image(&layer)).await;
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [part(&child)]});
    let index = put(&app, Some("v1"), index).await;
    let mut signing = image(&signature);
    signing["subject"] = part(&index);
    let signing = put(&app, None, signing).await;
    let alone = put(&app, None, image(&signature)).await;

    tokio::time::sleep(8 * 24 * HOUR).await;
    let report = world.collect(None, false).await;
    assert_eq!((report.manifests, report.removed_manifests), (4, 0), "untagged ones stay unless it is asked");
    let week = Some(7 * 24 * HOUR);
    let report = world.collect(week, false).await;
    assert_eq!((report.manifests, report.removed_manifests), (3, 1));
    assert!(!is_there(&app, &alone).await);
    for digest in [&child, &index, &signing] {
        assert!(is_there(&app, digest).await);
    }

    assert!(app.delete_tag(&"v1".parse().unwrap()).await.unwrap());
    tokio::time::sleep(6 * 24 * HOUR).await;
    assert_eq!(world.collect(week, false).await.removed_manifests, 0, "the week begins when the tag goes");
    tokio::time::sleep(2 * 24 * HOUR).await;
    let report = world.collect(week, false).await;
    assert_eq!((report.manifests, report.removed_manifests, report.removed_blobs.objects), (0, 3, 2));
    let meta = world.registry.store().meta();
    for kind in [LINK, MANIFEST] {
        assert!(meta.list(kind, &["app"], None, 10).await.unwrap().names.is_empty());
    }
    let listed = meta.list(REFERRER, &["app", &index.to_string()], None, 10).await.unwrap();
    assert!(listed.names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_moves_leaves_the_old_manifest_its_time() {
    let world = World::new().await;
    let app = world.repository("app");
    let layers = [push(&app, b"one").await, push(&app, b"two").await];
    let old = put(&app, Some("latest"), image(&layers[0])).await;
    tokio::time::sleep(30 * 24 * HOUR).await;
    push(&app, b"two").await;
    put(&app, Some("latest"), image(&layers[1])).await;
    tokio::time::sleep(20 * HOUR).await;
    let two_days = Some(48 * HOUR);
    assert_eq!(world.collect(two_days, false).await.removed_manifests, 0);
    assert!(is_there(&app, &old).await);
    tokio::time::sleep(30 * HOUR).await;
    assert_eq!(world.collect(two_days, false).await.removed_manifests, 1);
    assert!(!is_there(&app, &old).await);
}

/// A tag that its put could not take back names nothing, and goes; one that came just now is somebody's who puts.
#[tokio::test(start_paused = true)]
async fn a_tag_of_nothing_goes() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    put(&app, Some("v1"), image(&layer)).await;
    let fact = format!(r#"{{"digest":"{}"}}"#, sha256(b"gone"));
    let meta = world.registry.store().meta();
    meta.set(TAG, &["app", "dangling"], fact).await.unwrap();
    assert_eq!(world.collect(None, false).await.removed_tags, 0);
    tokio::time::sleep(25 * HOUR).await;
    assert_eq!(world.collect(None, true).await.removed_tags, 1);
    assert_eq!(world.collect(None, false).await.removed_tags, 1);
    assert_eq!(meta.list(TAG, &["app"], None, 10).await.unwrap().names, ["v1"]);
}

/// A gc that was killed after it removed a signature's manifest leaves nothing that is listed and not there.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_listed() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let subject = put(&app, Some("v1"), image(&layer)).await;
    let mut signing = image(&layer);
    signing["subject"] = part(&subject);
    let digest = put(&app, None, signing.clone()).await;
    let listed = async || app.referrers(&subject, None, None, 10).await.unwrap().items.len();
    assert_eq!(listed().await, 1);
    let (meta, path) = (world.registry.store().meta(), ["app", &digest.to_string()]);
    let version = meta.get(MANIFEST, &path).await.unwrap().unwrap().version;
    assert!(meta.remove(MANIFEST, &path, &version).await.unwrap().is_done());
    assert_eq!(listed().await, 0);
    put(&app, None, signing).await;
    assert_eq!(listed().await, 1);
}

/// What a damaged manifest needs is unknown, so nothing that it might need goes, and the report names it.
#[tokio::test(start_paused = true)]
async fn what_is_damaged_keeps_everything() {
    let world = World::new().await;
    let (app, other) = (world.repository("app"), world.repository("other"));
    let layer = push(&app, b"layer").await;
    let digest = sha256(b"manifest").to_string();
    let meta = world.registry.store().meta();
    meta.set(MANIFEST, &["app", &digest], b"not one".as_slice()).await.unwrap();
    let loose = push(&other, b"loose").await;
    tokio::time::sleep(48 * HOUR).await;
    let report = world.collect(Some(24 * HOUR), false).await;
    assert_eq!(report.damaged, 1);
    assert!(report.damaged_names[0].contains(&digest) && report.damaged_names[0].contains("app"));
    assert_eq!(report.removed_blobs.objects, 0);
    assert!(app.open_blob(&layer).await.unwrap().is_some());
    assert!(world.registry.store().contains(&loose).await.unwrap());
    meta.remove(
        MANIFEST,
        &["app", &digest],
        &meta.get(MANIFEST, &["app", &digest]).await.unwrap().unwrap().version,
    )
    .await
    .map(|removed| assert!(removed.is_done()))
    .unwrap();
    assert_eq!(world.collect(None, false).await.removed_blobs.objects, 2);
}
