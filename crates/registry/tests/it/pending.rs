//! Manifests that are being put: for nobody there yet, but what they need stays, however long that takes.

use std::time::Duration;

use bulla::Digest;
use bulla_registry::facts::{LINK, MANIFEST, REFERRER};
use bulla_registry::{ErrorCode, PutManifest, Reference, Repository};
use bulla_testkit::scripted::Op;
use serde_json::{Value, json};

use crate::client::{OCI_INDEX, OCI_MANIFEST, sha256};
use crate::model::{HOUR, World, manifest, push};

/// Until what was begun before has sent what is held.
async fn a_moment() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn is_there(repository: &Repository, digest: &Digest) -> bool {
    let reference = Reference::Digest(digest.clone());
    let (read, stat) = (repository.manifest(&reference).await, repository.stat_manifest(&reference).await);
    let is_there = read.unwrap().is_some();
    assert_eq!(stat.unwrap().is_some(), is_there);
    is_there
}

impl World {
    /// The manifests' entries, pending ones among them.
    async fn entries(&self) -> Vec<String> {
        self.registry.store().meta().list(MANIFEST, &["app"], None, 10).await.unwrap().names
    }
}

/// `bytes` of `put`, with more in them.
fn with(put: &PutManifest, change: impl FnOnce(&mut Value)) -> PutManifest {
    let mut value: Value = serde_json::from_slice(&put.bytes).unwrap();
    change(&mut value);
    PutManifest { bytes: value.to_string().into(), ..put.clone() }
}

/// FORMAT-R7
#[tokio::test(start_paused = true)]
async fn what_is_being_put_is_not_there_yet() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let subject = sha256(b"subject");
    let put =
        with(&manifest(&layer), |manifest| manifest["subject"] = json!({"digest": subject.to_string()}));
    let digest = sha256(&put.bytes);
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest.to_string(), "size": 1}],
    });
    let index = PutManifest { bytes: index.to_string().into(), ..PutManifest::default() };
    let listed = async || app.referrers(&subject, None, None, 10).await.unwrap().items.len();
    let held = world.script.hold(Op::Update, "/manifest/");
    let (done, ()) = tokio::join!(app.put_manifest(put.clone()), async {
        a_moment().await;
        let path = ["app", &digest.to_string()];
        let entry = world.registry.store().meta().get(MANIFEST, &path).await.unwrap().unwrap();
        let head = format!(r#"{{"mediaType":"{OCI_MANIFEST}","size":{},"pending":true}}"#, put.bytes.len());
        assert_eq!(entry.payload, [head.as_bytes(), b"\n", &put.bytes].concat());
        assert!(!is_there(&app, &digest).await);
        assert_eq!(listed().await, 0);
        assert_eq!(app.tag(&"v1".parse().unwrap()).await.unwrap(), None);
        let refused = app.put_manifest(index.clone()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
        assert!(!app.delete_manifest(&digest).await.unwrap());
        drop(held);
    });
    done.unwrap();
    assert!(is_there(&app, &digest).await);
    assert_eq!(listed().await, 1);
    app.put_manifest(index).await.unwrap();
}

/// A process that stands still in the middle, with a gc whose grace is over for the layers and not for the manifest.
#[tokio::test(start_paused = true)]
async fn what_it_needs_stays_while_it_is_put() {
    for (op, key) in [(Op::Get, "/link/"), (Op::Update, "/manifest/"), (Op::Create, "/tag/")] {
        let world = World::new().await;
        let app = world.repository("app");
        let layer = push(&app, b"layer").await;
        tokio::time::sleep(5 * HOUR).await;
        let held = world.script.hold(op, key);
        let (done, ()) = tokio::join!(app.put_manifest(manifest(&layer)), async {
            tokio::time::sleep(20 * HOUR).await;
            let report = world.collect(None, false).await;
            assert_eq!((report.removed_links, report.removed_blobs.objects), (0, 0), "{op:?} {key}");
            drop(held);
        });
        let digest = done.unwrap().digest;
        assert!(world.script.is_done(), "{op:?} {key}");
        assert!(is_there(&app, &digest).await);
        assert!(app.open_blob(&layer).await.unwrap().is_some());
    }
}

/// However late it comes: a manifest whose layers gc has removed is refused, and is there for nobody.
#[tokio::test(start_paused = true)]
async fn what_comes_too_late_is_refused() {
    for (op, key) in [(Op::Create, "/manifest/"), (Op::Get, "/link/"), (Op::Update, "/manifest/")] {
        let world = World::new().await;
        let app = world.repository("app");
        let layer = push(&app, b"layer").await;
        let held = world.script.hold(op, key);
        let (done, ()) = tokio::join!(app.put_manifest(manifest(&layer)), async {
            tokio::time::sleep(25 * HOUR).await;
            let report = world.collect(None, false).await;
            assert_eq!((report.removed_links, report.removed_blobs.objects), (1, 1), "{op:?} {key}");
            assert_eq!(report.removed_manifests, 0, "it was none yet");
            drop(held);
        });
        assert_eq!(done.unwrap_err().code(), ErrorCode::ManifestBlobUnknown, "{op:?} {key}");
        assert!(world.script.is_done(), "{op:?} {key}");
        assert_eq!(app.tag(&"v1".parse().unwrap()).await.unwrap(), None);
        assert!(!is_there(&app, &sha256(&manifest(&layer).bytes)).await);
        push(&app, b"layer").await;
        app.put_manifest(manifest(&layer)).await.unwrap();
    }
}

/// A process that is killed after an entry that comes too late leaves no manifest, and gc takes the rest.
#[tokio::test(start_paused = true)]
async fn what_comes_too_late_of_a_killed_process_is_no_manifest() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let put = with(&manifest(&layer), |manifest| manifest["subject"] = json!({"digest": layer.to_string()}));
    let digest = sha256(&put.bytes);
    let late = world.script.hold(Op::Create, "/manifest/");
    let killed = async {
        tokio::select! {
            _ = app.put_manifest(put) => panic!("it is killed before"),
            () = tokio::time::sleep(26 * HOUR) => {}
        }
    };
    let ((), never) = tokio::join!(killed, async {
        tokio::time::sleep(25 * HOUR).await;
        assert_eq!(world.collect(None, false).await.removed_blobs.objects, 1);
        let never = world.script.hold(Op::Get, "/link/");
        drop(late);
        never
    });
    drop(never);
    assert_eq!(world.entries().await, [digest.to_string()], "this is what is meant");
    assert!(!is_there(&app, &digest).await);
    tokio::time::sleep(25 * HOUR).await;
    let report = world.collect(None, false).await;
    assert_eq!((report.manifests, report.removed_manifests, report.damaged), (0, 0, 0));
    assert!(world.entries().await.is_empty());
}

/// The bytes of a long manifest are a blob, which may be there or not when the process is killed.
#[tokio::test(start_paused = true)]
async fn a_long_manifest_that_is_given_up_goes_with_its_blob() {
    for (op, key) in [(Op::Create, "blobs/"), (Op::Get, "/link/"), (Op::Update, "/manifest/")] {
        let world = World::new().await;
        let app = world.repository("app");
        let layer = push(&app, b"layer").await;
        let put = with(&manifest(&layer), |manifest| {
            manifest["annotations"] = json!({"long": "x".repeat(70_000)});
        });
        let digest = sha256(&put.bytes);
        let never = world.script.hold(op, key);
        let killed = tokio::time::timeout(Duration::from_secs(5), app.put_manifest(put.clone())).await;
        assert!(killed.is_err(), "{op:?} {key}");
        drop(never);
        assert_eq!(world.entries().await, [digest.to_string()], "this is what is meant");
        assert!(!is_there(&app, &digest).await);
        assert_eq!(world.collect(None, false).await.damaged, 0, "{op:?} {key}");
        // It is gone on with by who comes again.
        tokio::time::sleep(20 * HOUR).await;
        app.put_manifest(put).await.unwrap();
        assert!(is_there(&app, &digest).await);
        assert!(app.delete_manifest(&digest).await.unwrap());
        tokio::time::sleep(49 * HOUR).await;
        world.collect(None, false).await;
        assert!(!world.registry.store().contains(&digest).await.unwrap());
    }
}

/// A refusal leaves nothing that waits for gc, and nothing that anybody else put.
#[tokio::test(start_paused = true)]
async fn what_is_refused_leaves_nothing() {
    let world = World::new().await;
    let app = world.repository("app");
    let missing = sha256(b"missing");
    let put = with(&manifest(&missing), |manifest| {
        manifest["subject"] = json!({"digest": missing.to_string()});
    });
    for _ in 0..2 {
        let refused = app.put_manifest(put.clone()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
        assert!(world.entries().await.is_empty());
    }
    let meta = world.registry.store().meta();
    let listed = meta.list(REFERRER, &["app", &missing.to_string()], None, 10).await.unwrap();
    assert!(listed.names.is_empty());

    // One that is there stays, though its layer was deleted.
    let layer = push(&app, b"layer").await;
    let digest = app.put_manifest(manifest(&layer)).await.unwrap().digest;
    assert!(app.delete_blob(&layer).await.unwrap());
    let refused = app.put_manifest(manifest(&layer)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
    assert!(is_there(&app, &digest).await);
}

/// Of several who put the same at the same time, each is acknowledged, whoever makes it a manifest.
#[tokio::test(start_paused = true)]
async fn several_put_the_same() {
    for (op, key) in [(Op::Create, "/manifest/"), (Op::Get, "/link/"), (Op::Update, "/manifest/")] {
        let world = World::new().await;
        let app = world.repository("app");
        let layer = push(&app, b"layer").await;
        let held = world.script.hold(op, key);
        let (first, ()) = tokio::join!(app.put_manifest(manifest(&layer)), async {
            a_moment().await;
            app.put_manifest(manifest(&layer)).await.unwrap();
            drop(held);
        });
        let digest = first.unwrap().digest;
        assert!(world.script.is_done(), "{op:?} {key}");
        assert!(is_there(&app, &digest).await);
        assert_eq!(app.tag(&"v1".parse().unwrap()).await.unwrap(), Some(digest));
        assert_eq!(
            world.registry.store().meta().list(LINK, &["app"], None, 10).await.unwrap().names.len(),
            1
        );
    }
}

/// A manifest that is known by another media type stays there while it is put as this one.
#[tokio::test(start_paused = true)]
async fn a_manifest_changes_its_media_type_at_once() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let mut put =
        with(&manifest(&layer), |manifest| drop(manifest.as_object_mut().unwrap().remove("mediaType")));
    let digest = app.put_manifest(put.clone()).await.unwrap().digest;
    put.media_type = Some("application/vnd.docker.distribution.manifest.v2+json".to_owned());
    let held = world.script.hold(Op::Get, "/link/");
    let (done, ()) = tokio::join!(app.put_manifest(put.clone()), async {
        a_moment().await;
        assert!(is_there(&app, &digest).await);
        drop(held);
    });
    done.unwrap();
    let there = app.manifest(&Reference::Digest(digest)).await.unwrap().unwrap();
    assert_eq!(Some(there.media_type), put.media_type);
}

/// A signature that is put while an earlier one is deleted, by who is killed before it is done, is listed.
#[tokio::test(start_paused = true)]
async fn a_signature_that_is_put_while_it_is_deleted_is_listed() {
    for (op, key) in
        [(Op::Create, "/manifest/"), (Op::Get, "/link/"), (Op::Update, "/referrer/"), (Op::Update, "/tag/")]
    {
        let world = World::new().await;
        let app = world.repository("app");
        let layer = push(&app, b"layer").await;
        let subject = sha256(b"subject");
        let put = with(&manifest(&layer), |manifest| {
            manifest["subject"] = json!({"digest": subject.to_string()});
        });
        let digest = app.put_manifest(put.clone()).await.unwrap().digest;
        let held = world.script.hold(op, key);
        let (done, ()) = tokio::join!(app.put_manifest(put), async {
            a_moment().await;
            assert!(app.delete_manifest(&digest).await.unwrap());
            drop(held);
        });
        done.unwrap();
        assert!(world.script.is_done(), "{op:?} {key}");
        assert!(is_there(&app, &digest).await, "{op:?} {key}");
        let listed = app.referrers(&subject, None, None, 10).await.unwrap().items;
        assert_eq!(listed.len(), 1, "{op:?} {key}");
    }
}
