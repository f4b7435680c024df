//! The model under virtual time: what relies on something keeps it from gc, and writes nothing that it need not.

use std::sync::Arc;
use std::time::Duration;

use bulla::kek::{Identity, Providers};
use bulla::{Bucket, CreateOptions, Digest, Engine, Managed, MetaKind, Mode};
use bulla_registry::facts::{LINK, MANIFEST, REFERRER, REPOSITORY, TAG};
use bulla_registry::{ErrorCode, PutManifest, Reference, Registry, RegistryOptions, Replaces, Repository};
use bulla_testkit::bucket::SimBucket;
use bulla_testkit::provider::{SimProvider, key_id};
use bulla_testkit::runtime::{SeededRandom, SimRuntime};
use bulla_testkit::scripted::{Op, ScriptedStore};
use bulla_testkit::store::SimStore;
use bulla_testkit::trace::Trace;
use tokio::time::Instant;

use crate::client::{OCI_MANIFEST, sha256};

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

pub(crate) struct World {
    pub(crate) script: ScriptedStore,
    runtime: SimRuntime,
    pub(crate) registry: Registry,
}

impl World {
    /// A registry whose gc's grace is a day.
    pub(crate) async fn new() -> Self {
        let start = Instant::now();
        let runtime = SimRuntime::new(start, 1);
        let bucket = SimBucket::new(start, false);
        let random = Arc::new(SeededRandom::new(2));
        let store = SimStore::new(&bucket, &runtime, &random, &Trace::new(start, false));
        let script = ScriptedStore::new(Arc::new(store));
        let provider = SimProvider::new(&runtime, "k");
        let engine = Engine::builder()
            .providers(Providers::new().with(Arc::new(provider)))
            .runtime(Arc::new(runtime.clone()))
            .build();
        let options = CreateOptions {
            mode: Mode::Hierarchical,
            key: key_id("k"),
            identity: Identity::System,
            managed: Managed::Customer,
            revocation_bound: Duration::from_secs(60),
            allow_unprotected_key: false,
            second: None,
        };
        let bucket = Bucket::from_object_store(Arc::new(script.clone()), "").unwrap();
        let store = engine.create(bucket, options).await.unwrap();
        let registry = Registry::new(store, RegistryOptions::default());
        script.take_requests();
        Self { script, runtime, registry }
    }

    pub(crate) fn repository(&self, name: &str) -> Repository {
        self.registry.repository(name.parse().unwrap())
    }

    /// How many envelopes were written again since the last time.
    fn renewed(&self) -> usize {
        let requests = self.script.take_requests();
        requests.iter().filter(|(op, key)| *op == Op::Update && key.starts_with("blobs/")).count()
    }

    /// How many meta objects were written since the last time.
    fn written(&self, kind: MetaKind) -> usize {
        let part = format!("/{}/", kind.name());
        let is_write = |op: Op| matches!(op, Op::Create | Op::Update);
        let requests = self.script.take_requests();
        requests
            .iter()
            .filter(|(op, key)| is_write(*op) && key.starts_with("meta/") && key.contains(&part))
            .count()
    }
}

pub(crate) async fn push(repository: &Repository, data: &'static [u8]) -> Digest {
    let digest = sha256(data);
    repository.put_blob_bytes(&digest, data).await.unwrap();
    digest
}

pub(crate) fn manifest(layer: &Digest) -> PutManifest {
    let part = |kind: &str| serde_json::json!({"mediaType": kind, "digest": layer.to_string(), "size": 1});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": part("application/vnd.oci.image.config.v1+json"),
        "layers": [part("application/vnd.oci.image.layer.v1.tar")],
    });
    PutManifest {
        tags: vec!["v1".parse().unwrap()],
        bytes: manifest.to_string().into(),
        ..PutManifest::default()
    }
}

/// FORMAT-R1, FORMAT-R2
#[tokio::test(start_paused = true)]
async fn what_is_written_is_as_format_md_says() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let written: Vec<String> = world.script.take_requests().into_iter().map(|(_, key)| key).collect();
    let at = |part: &str| written.iter().position(|key| key.contains(part)).unwrap();
    assert!(at("/repository/") < at("/link/"), "gc looks for links in the repositories that there are");

    let mut put = manifest(&layer);
    let subject = sha256(b"subject");
    let mut value: serde_json::Value = serde_json::from_slice(&put.bytes).unwrap();
    value["subject"] = serde_json::json!({"digest": subject.to_string()});
    value["annotations"] = serde_json::json!({"a": "b"});
    put.bytes = value.to_string().into();
    let (bytes, len) = (put.bytes.clone(), put.bytes.len());
    let digest = app.put_manifest(put).await.unwrap().digest.to_string();
    let mut long = value.clone();
    long["annotations"]["a"] = serde_json::json!("x".repeat(61_440));
    let long = PutManifest { bytes: long.to_string().into(), ..PutManifest::default() };
    let long_len = long.bytes.len();
    let long = app.put_manifest(long).await.unwrap().digest.to_string();
    world.repository("other").mount_blob(&layer, Some(app.name())).await.unwrap();

    let (layer, subject) = (layer.to_string(), subject.to_string());
    let config = "application/vnd.oci.image.config.v1+json";
    for (kind, path, payload) in [
        (REPOSITORY, &["app"] as &[&str], "{}".to_owned()),
        (LINK, &["app", &layer], r#"{"size":5}"#.to_owned()),
        (
            MANIFEST,
            &["app", &digest],
            format!(
                "{{\"mediaType\":\"{OCI_MANIFEST}\",\"size\":{len}}}\n{}",
                std::str::from_utf8(&bytes).unwrap()
            ),
        ),
        (MANIFEST, &["app", &long], format!("{{\"mediaType\":\"{OCI_MANIFEST}\",\"size\":{long_len}}}\n")),
        (TAG, &["app", "v1"], format!(r#"{{"digest":"{digest}"}}"#)),
        (
            REFERRER,
            &["app", &subject, &digest],
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":{len},"artifactType":"{config}","annotations":{{"a":"b"}}}}"#
            ),
        ),
        (
            REFERRER,
            &["app", &subject, &long],
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{long}","size":{long_len},"artifactType":"{config}","cut":true}}"#
            ),
        ),
    ] {
        let entry = world.registry.store().meta().get(kind, path).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&entry.payload).unwrap(), payload, "{path:?}");
    }
    // A later version may say more.
    let more = br#"{"size":5,"later":[1]}"#.as_slice();
    world.registry.store().meta().set(LINK, &["app", &layer], more).await.unwrap();
    assert!(app.stat_blob(&sha256(b"layer")).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_looked_for_is_written_again_once_it_is_half_of_the_grace_old() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    assert_eq!(world.written(LINK), 1);
    for (hours, writes) in [(1, 0), (10, 0), (2, 1), (11, 0), (2, 1)] {
        tokio::time::sleep(hours * HOUR).await;
        assert!(app.stat_blob(&layer).await.unwrap().is_some());
        assert_eq!(world.written(LINK), writes, "{hours} h later");
    }
    // Who only reads relies on nothing.
    tokio::time::sleep(20 * HOUR).await;
    app.open_blob(&layer).await.unwrap().unwrap();
    assert_eq!(world.written(LINK), 0);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_keeps_what_it_needs() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let put = app.put_manifest(manifest(&layer)).await.unwrap();
    tokio::time::sleep(13 * HOUR).await;
    world.script.take_requests();
    app.put_manifest(manifest(&layer)).await.unwrap();
    assert_eq!(world.written(LINK), 1);
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": crate::client::OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": put.digest.to_string(), "size": 1}],
    });
    tokio::time::sleep(13 * HOUR).await;
    world.script.take_requests();
    let index = PutManifest { bytes: index.to_string().into(), ..PutManifest::default() };
    app.put_manifest(index).await.unwrap();
    assert_eq!(world.written(MANIFEST), 3, "the index, pending and there, and its child again");
}

/// FORMAT-R5
#[tokio::test(start_paused = true)]
async fn a_blob_that_is_reused_is_renewed_once_it_is_half_of_the_grace_old() {
    let world = World::new().await;
    let (app, other) = (world.repository("app"), world.repository("other"));
    let layer = push(&app, b"layer").await;
    assert_eq!(world.renewed(), 0);
    assert!(other.mount_blob(&layer, Some(app.name())).await.unwrap());
    assert_eq!(world.renewed(), 0, "it is young");
    tokio::time::sleep(13 * HOUR).await;
    push(&world.repository("third"), b"layer").await;
    assert_eq!(world.renewed(), 1);
    assert!(app.stat_blob(&layer).await.unwrap().is_some());
    app.put_manifest(manifest(&layer)).await.unwrap();
    assert_eq!(world.renewed(), 0);
    for reuse in 0..3 {
        tokio::time::sleep(13 * HOUR).await;
        match reuse {
            0 => assert!(other.mount_blob(&layer, Some(app.name())).await.unwrap()),
            1 => assert!(app.stat_blob(&layer).await.unwrap().is_some()),
            _ => drop(app.put_manifest(manifest(&layer)).await.unwrap()),
        }
        assert_eq!(world.renewed(), 1);
    }
}

/// A gc that stood still between finding that nobody has a blob and removing it leaves it to who put it meanwhile; however
/// late its request arrives. FORMAT-R5
#[tokio::test(start_paused = true)]
async fn a_blob_that_is_reused_is_not_removed_by_a_gc_that_looked_before() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    app.delete_blob(&layer).await.unwrap();
    tokio::time::sleep(25 * HOUR).await;
    let removal = world.script.hold(Op::Update, "blobs/");
    let (report, ()) = tokio::join!(world.collect(None, false), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        push(&app, b"layer").await;
        drop(removal);
    });
    assert!(world.script.is_done());
    assert_eq!((report.removed_blobs.objects, report.too_young), (0, 1));
    assert!(app.stat_blob(&layer).await.unwrap().is_some());
}

/// A mount that stood still until gc had removed the blob says that it is not there, and the link that it wrote too late is
/// not taken for the blob by anybody.
#[tokio::test(start_paused = true)]
async fn a_link_that_came_too_late_is_no_blob() {
    let world = World::new().await;
    let (app, other) = (world.repository("app"), world.repository("other"));
    let layer = push(&app, b"layer").await;
    // The repository is there, so that the link is what is held.
    push(&other, b"another").await;
    let held = world.script.hold(Op::Create, "/link/");
    let (mounted, ()) = tokio::join!(other.mount_blob(&layer, Some(app.name())), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.delete_blob(&layer).await.unwrap();
        tokio::time::sleep(25 * HOUR).await;
        assert_eq!(world.collect(None, false).await.removed_blobs.objects, 2);
        drop(held);
    });
    assert!(!mounted.unwrap());
    let link = world.registry.store().meta().get(LINK, &["other", &layer.to_string()]).await.unwrap();
    assert!(link.is_some(), "this is what is meant");
    assert!(other.stat_blob(&layer).await.unwrap().is_none());
    let put = other.put_manifest(manifest(&layer)).await;
    assert_eq!(put.unwrap_err().code(), ErrorCode::ManifestBlobUnknown);
    push(&other, b"layer").await;
    other.put_manifest(manifest(&layer)).await.unwrap();
}

/// Deleted while it is put again: either it is gone with its tag, or all of it is there. FORMAT-R6
#[tokio::test(start_paused = true)]
async fn a_tag_that_is_set_while_its_manifest_is_deleted_names_something() {
    for (op, key) in
        [(Op::Create, "/tag/"), (Op::Update, "/tag/"), (Op::Get, "/manifest/"), (Op::Update, "/manifest/")]
    {
        let world = World::new().await;
        let app = world.repository("app");
        let layer = push(&app, b"layer").await;
        let digest = app.put_manifest(manifest(&layer)).await.unwrap().digest;
        if op == Op::Create {
            app.delete_tag(&"v1".parse().unwrap()).await.unwrap();
        }
        // So that the entry is written again.
        tokio::time::sleep(13 * HOUR).await;
        let held = world.script.hold(op, key);
        let (put, ()) = tokio::join!(app.put_manifest(manifest(&layer)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            app.delete_manifest(&digest).await.unwrap();
            drop(held);
        });
        put.unwrap();
        assert!(world.script.is_done(), "{op:?} {key}");
        let tag = app.tag(&"v1".parse().unwrap()).await.unwrap();
        let is_there = app.manifest(&Reference::Digest(digest.clone())).await.unwrap().is_some();
        assert_eq!((tag.as_ref(), is_there), (Some(&digest), true), "{op:?} {key}");
    }
}

/// FORMAT-R6
#[tokio::test(start_paused = true)]
async fn nothing_of_a_deleted_signature_stays() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let subject = sha256(b"subject");
    let mut value: serde_json::Value = serde_json::from_slice(&manifest(&layer).bytes).unwrap();
    value["subject"] = serde_json::json!({"digest": subject.to_string()});
    let put = PutManifest { bytes: value.to_string().into(), ..PutManifest::default() };
    let digest = app.put_manifest(put).await.unwrap().digest;
    let meta = world.registry.store().meta();
    let listed = async || meta.list(REFERRER, &["app", &subject.to_string()], None, 10).await.unwrap().names;
    assert_eq!(listed().await, [digest.to_string()]);
    assert!(app.delete_manifest(&digest).await.unwrap());
    assert!(listed().await.is_empty());
}

/// An image that is pushed again by a process that then stands still keeps its manifest, whatever becomes of that push.
#[tokio::test(start_paused = true)]
async fn a_push_that_fails_late_leaves_what_was_there() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let digest = app.put_manifest(manifest(&layer)).await.unwrap().digest;
    tokio::time::sleep(13 * HOUR).await;
    let (runtime, script) = (world.runtime.clone(), world.script.clone());
    world.script.after(Op::Update, "/manifest/", move || {
        runtime.suspend(7 * HOUR);
        script.before(Op::Get, "/link/", || Some(bulla_testkit::scripted::precondition()));
        None
    });
    app.put_manifest(manifest(&layer)).await.unwrap_err();
    assert!(world.script.is_done());
    assert!(app.manifest(&Reference::Digest(digest)).await.unwrap().is_some());
}

/// Deleting goes on where it was interrupted: the tags go although the manifest is gone.
#[tokio::test(start_paused = true)]
async fn a_delete_that_was_interrupted_is_finished_by_the_next() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let digest = app.put_manifest(manifest(&layer)).await.unwrap().digest;
    world.script.before(Op::Update, "/tag/", || Some(bulla_testkit::scripted::broken_connection()));
    let cut = tokio::time::timeout(Duration::from_millis(1), app.delete_manifest(&digest)).await;
    assert!(cut.is_err(), "it waits to send it again");
    assert_eq!(app.tag(&"v1".parse().unwrap()).await.unwrap(), Some(digest.clone()));
    assert!(!app.delete_manifest(&digest).await.unwrap());
    assert_eq!(app.tag(&"v1".parse().unwrap()).await.unwrap(), None);
}

/// What can't be read names nothing, and keeps nobody from deleting the others.
#[tokio::test(start_paused = true)]
async fn a_damaged_tag_keeps_no_other_from_going() {
    let world = World::new().await;
    let app = world.repository("app");
    let layer = push(&app, b"layer").await;
    let put = PutManifest { tags: ["a", "b"].map(|tag| tag.parse().unwrap()).to_vec(), ..manifest(&layer) };
    world.script.take_requests();
    let digest = app.put_manifest(put).await.unwrap().digest;
    let written = world.script.take_requests();
    let (_, first) = written.iter().find(|(_, key)| key.contains("/tag/")).unwrap();
    world.script.write(first, b"damage".to_vec()).await.unwrap();
    assert!(app.delete_manifest(&digest).await.unwrap());
    assert_eq!(app.tag(&"b".parse().unwrap()).await.unwrap(), None);
}

/// Two who want to replace the same thing at the same moment: one of them does, and the other one is told. RFC 9110 §13.1.1
#[tokio::test(start_paused = true)]
async fn of_two_who_replace_the_same_one_is_the_first() {
    let world = World::new().await;
    let app = world.repository("app");
    let put = async |data: &'static [u8], replaces: Replaces| {
        let layer = push(&app, data).await;
        app.put_manifest(PutManifest { replaces, ..manifest(&layer) }).await.map(|put| put.digest)
    };
    let tag = "v1".parse().unwrap();
    let held = world.script.hold(Op::Create, "/tag/");
    let (late, early) = tokio::join!(put(b"late", Replaces::Nothing), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let early = put(b"early", Replaces::Nothing).await.unwrap();
        drop(held);
        early
    });
    assert_eq!(late.unwrap_err().code(), ErrorCode::Denied);
    let held = world.script.hold(Op::Update, "/tag/");
    let (late, ()) = tokio::join!(put(b"later", Replaces::Only(early.clone())), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = put(b"sooner", Replaces::Only(early.clone())).await.unwrap();
        drop(held);
        assert_eq!(app.tag(&tag).await.unwrap(), Some(now));
    });
    assert_eq!(late.unwrap_err().code(), ErrorCode::Denied);
    // Nor is what somebody has just put removed.
    let now = app.tag(&tag).await.unwrap().unwrap();
    let held = world.script.hold(Op::Update, "/tag/");
    let (removed, ()) = tokio::join!(app.delete_tag_of(&tag, &now), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        put(b"latest", Replaces::Only(now.clone())).await.unwrap();
        drop(held);
    });
    assert_eq!(removed.unwrap_err().code(), ErrorCode::Denied);
    assert_ne!(app.tag(&tag).await.unwrap(), Some(now));
}
