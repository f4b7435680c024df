//! The bucket layer, gc, verify, rewrap, meta objects, upload sessions and the registry's gc against real servers: S3 (moto), Azure
//! Blob Storage (Azurite) and Google Cloud Storage (fake-gcs-server), and against what Bulla has by itself.
//!
//! Places and options are given as users give them: a URL, and object_store's variables in the environment of a process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla::bucket::{Bucket, BucketErrorKind, Conditional, StoreUrl};
use bulla::kek::{Identity, Providers};
use bulla::{
    Algorithm, CreateOptions, Digest, Engine, ErrorKind, GcOptions, Managed, MetaKind, MetaWrite, Mode,
    PutOptions, SessionOptions, Shredded, Store, SweepOptions, VerifyOptions,
};
use bulla_registry::{CollectOptions, PutManifest, Reference, Registry, RegistryOptions, Tag};
use bulla_testkit::provider::{SimProvider, key_id};
use bulla_testkit::runtime::SimRuntime;
use bulla_tests::part;
use bulla_tests::servers::Server;
use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};

/// Tells `store_of_the_environment` what to connect to. It is a test of its own process, because variables are
/// read from there and can't be set safely in a process with threads.
const URL: &str = "BULLA_TEST_STORE_URL";

fn run_with(url: &str, server: &Server) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "store_of_the_environment", "--nocapture"])
        .envs(server.environment())
        .env(URL, url)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{url}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "the test was renamed");
}

#[test]
fn s3() {
    let Some(program) = part("BULLA_MOTO_SERVER", "moto_server") else { return };
    let server = Server::moto(&program).unwrap();
    server.make_bucket("bulla").unwrap();
    run_with("s3://bulla/some/prefix", &server);
    run_with("s3://bulla", &server);
    run_with("s3://no-such-bucket/missing", &server);
}

#[test]
fn azure() {
    let Some(program) = part("BULLA_AZURITE_BLOB", "azurite-blob") else { return };
    let temp = env::temp_dir().join(format!("bulla-azurite-{}", std::process::id()));
    let server = Server::azurite(&program, &temp).unwrap();
    server.make_container("bulla").unwrap();
    run_with("az://bulla/some/prefix", &server);
    run_with("az://bulla", &server);
    run_with("az://no-such-container/missing", &server);
    drop(server);
    let _ = std::fs::remove_dir_all(temp);
}

#[test]
fn google() {
    let Some(program) = part("BULLA_FAKE_GCS_SERVER", "fake-gcs-server") else { return };
    let server = Server::gcs(&program, Duration::ZERO).unwrap();
    server.make_gcs_bucket("bulla").unwrap();
    run_with("gs://bulla/some/prefix", &server);
    run_with("gs://no-such-bucket/missing", &server);
}

/// Google takes one change a second of an object: what comes sooner is waited for, or, where that takes too long, told as what it
/// is.
#[test]
fn google_throttles_one_object() {
    let Some(program) = part("BULLA_FAKE_GCS_SERVER", "fake-gcs-server") else { return };
    for (pause, url) in [(1, "gs://bulla/one-a-second"), (3600, "gs://bulla/one-an-hour")] {
        let server = Server::gcs(&program, Duration::from_secs(pause)).unwrap();
        server.make_gcs_bucket("bulla").unwrap();
        run_with(url, &server);
    }
}

#[tokio::test]
async fn memory() {
    suite(StoreUrl::parse("memory:///real-stores").unwrap().connect(true).unwrap()).await;
}

#[tokio::test]
async fn folder() {
    let temp = env::temp_dir().join(format!("bulla-real-stores-{}", std::process::id()));
    suite(StoreUrl::parse(temp.to_str().unwrap()).unwrap().connect(true).unwrap()).await;
    std::fs::remove_dir_all(temp).unwrap();
}

/// Started by the others.
#[tokio::test]
async fn store_of_the_environment() {
    let Ok(url) = env::var(URL) else { return };
    let bucket = StoreUrl::parse(&url).unwrap().connect(false).unwrap();
    match url.rsplit('/').next() {
        Some("missing") => missing(bucket).await,
        Some("one-a-second") => one_a_second(bucket).await,
        Some("one-an-hour") => one_an_hour(bucket).await,
        _ => suite(bucket).await,
    }
}

async fn one_a_second(bucket: Bucket) {
    bucket.probe([1; 16]).await.unwrap();
    let Conditional::Done(mut version) = bucket.put_create("a", "0").await else { panic!() };
    for n in 1..4 {
        let Conditional::Done(next) = bucket.put_update("a", n.to_string(), &version).await else { panic!() };
        assert!(matches!(bucket.put_update("a", "x", &version).await, Conditional::Lost));
        version = next;
    }
    assert!(bucket.remove("a", &version, [7; 16]).await.is_done());
}

async fn one_an_hour(bucket: Bucket) {
    let Conditional::Done(version) = bucket.put_create("a", "0").await else { panic!() };
    let Conditional::Unknown(error) = bucket.put_update("a", "1", &version).await else { panic!() };
    assert_eq!(error.kind(), BucketErrorKind::Throttled, "{error:?}");
}

async fn suite(bucket: Bucket) {
    bucket.probe([1; 16]).await.unwrap();
    assert_eq!(bucket.list("jobs").count().await, 0, "the probe leaves nothing");
    definite_losers(&bucket).await;
    removed_objects(&bucket).await;
    sizes_and_ranges(&bucket).await;
    listings(&bucket).await;
    races(&bucket).await;
    garbage(&bucket).await;
    rewrapped(&bucket).await;
    small_facts(&bucket).await;
    uploads_in_pieces(&bucket).await;
    registry_garbage(&bucket).await;
}

/// A container that is not there is an error, and not an empty one.
async fn missing(bucket: Bucket) {
    let error = bucket.probe([1; 16]).await.unwrap_err();
    assert_eq!(error.kind(), BucketErrorKind::NotFound, "{error:?}");
    let error = bucket.get("a", 10).await.unwrap_err();
    assert_eq!(error.kind(), BucketErrorKind::NotFound, "{error:?}");
}

async fn definite_losers(bucket: &Bucket) {
    let Conditional::Done(first) = bucket.put_create("a/b", "1").await else { panic!() };
    assert!(matches!(bucket.put_create("a/b", "x").await, Conditional::Lost));
    let Conditional::Done(second) = bucket.put_update("a/b", "2", &first).await else { panic!() };
    assert!(matches!(bucket.put_update("a/b", "x", &first).await, Conditional::Lost));
    assert!(matches!(bucket.put_update("none", "x", &first).await, Conditional::Lost));
    assert!(matches!(bucket.remove("a/b", &first, [7; 16]).await, Conditional::Lost));
    let object = bucket.get("a/b", 10).await.unwrap().unwrap();
    assert_eq!(object.bytes, "2");
    assert_eq!(object.version.e_tag, second.e_tag);
    let age = SystemTime::now().duration_since(object.last_modified).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
    // What a read gives is as good for the next write as what a write gives.
    assert!(bucket.put_update("a/b", "3", &object.version).await.is_done());
    let entry = bucket.head("a/b").await.unwrap().unwrap();
    assert!(bucket.put_update("a/b", "4", &entry.version).await.is_done());
}

async fn removed_objects(bucket: &Bucket) {
    let Conditional::Done(version) = bucket.put_create("removed", "1").await else { panic!() };
    assert!(bucket.remove("removed", &version, [7; 16]).await.is_done());
    assert!(matches!(bucket.remove("removed", &version, [7; 16]).await, Conditional::Lost));
    match bucket.get("removed", 64).await.unwrap() {
        None => assert!(bucket.put_create("removed", "2").await.is_done()),
        Some(tombstone) => {
            assert!(tombstone.is_tombstone());
            assert!(matches!(bucket.put_create("removed", "x").await, Conditional::Lost));
            assert!(bucket.put_update("removed", "2", &tombstone.version).await.is_done());
        }
    }
    assert_eq!(bucket.get("removed", 64).await.unwrap().unwrap().bytes, "2");
}

async fn sizes_and_ranges(bucket: &Bucket) {
    let big = Bytes::from((0..5_000_000_u32).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
    bucket.put_new("data/big", big.clone().into()).await.unwrap();
    assert_eq!(bucket.get("data/big", 4_999_999).await.unwrap_err().kind(), BucketErrorKind::TooLarge);
    assert_eq!(bucket.get("data/big", 5_000_000).await.unwrap().unwrap().bytes, big);
    assert_eq!(bucket.get_range("data/big", 56..1_000_056).await.unwrap(), big.slice(56..1_000_056));
    for range in [0..5_000_001, 5_000_000..5_000_001, 6_000_000..6_000_010] {
        let error = bucket.get_range("data/big", range).await.unwrap_err();
        assert_eq!(error.kind(), BucketErrorKind::ShortObject, "{error:?}");
    }
    assert_eq!(bucket.get_range("none", 0..1).await.unwrap_err().kind(), BucketErrorKind::NotFound);
    assert!(bucket.get("none", 10).await.unwrap().is_none());
    assert!(bucket.head("none").await.unwrap().is_none());
    bucket.delete_data("data/big").await.unwrap();
    bucket.delete_data("data/big").await.unwrap();
    assert!(bucket.head("data/big").await.unwrap().is_none());
}

async fn listings(bucket: &Bucket) {
    for key in ["list/a/b", "list/a/c/d", "list/ab"] {
        bucket.put_new(key, "x".into()).await.unwrap();
    }
    let mut keys: Vec<_> = bucket.list("list/a").map_ok(|entry| entry.key).try_collect().await.unwrap();
    keys.sort();
    assert_eq!(keys, ["list/a/b", "list/a/c/d"]);
    assert_eq!(bucket.list("nothing/here").count().await, 0);
}

/// Several writers add to one number, each as often; every one of them follows the rule: after anything but `Done`,
/// look. Their texts differ, so that one's own lost answer can be told from somebody else's write.
async fn races(bucket: &Bucket) {
    const WRITERS: usize = 6;
    const TIMES: usize = 5;
    assert!(bucket.put_create("count", "0 -").await.is_done());
    let parse = |bytes: &Bytes| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let writer = |writer: usize| async move {
        for time in 0..TIMES {
            loop {
                let read = bucket.get("count", 100).await.unwrap().unwrap();
                let text = format!("{} {writer}.{time}", parse(&read.bytes) + 1);
                if bucket.put_update("count", text.clone(), &read.version).await.is_done() {
                    break;
                }
                if bucket.get("count", 100).await.unwrap().unwrap().bytes == text {
                    break;
                }
            }
        }
    };
    join_all((0..WRITERS).map(writer)).await;
    let total = bucket.get("count", 100).await.unwrap().unwrap();
    assert_eq!(parse(&total.bytes), WRITERS * TIMES);

    let creates = join_all((0..WRITERS).map(|writer| bucket.put_create("raced", writer.to_string()))).await;
    assert_eq!(creates.iter().filter(|outcome| outcome.is_done()).count(), 1);
}

async fn store(bucket: &Bucket, gc_grace: Duration, revocation_bound: Duration) -> Store {
    let clock = SimRuntime::new(tokio::time::Instant::now(), 1);
    let provider = Arc::new(SimProvider::new(&clock, "k"));
    let engine = Engine::builder().providers(Providers::new().with(provider)).gc_grace(gc_grace).build();
    let options = CreateOptions {
        mode: Mode::Hierarchical,
        key: key_id("k"),
        identity: Identity::System,
        managed: Managed::Customer,
        revocation_bound,
        allow_unprotected_key: false,
        second: None,
    };
    engine.create(bucket.clone(), options).await.unwrap()
}

/// Another store in the same place: two handles share a rewrap, what was deleted stays away, and the old key is shredded.
async fn rewrapped(bucket: &Bucket) {
    let before: Vec<_> = bucket.list("").map_ok(|entry| entry.key).try_collect().await.unwrap();
    bucket.delete_all(&before).await.unwrap();
    let store = store(bucket, Duration::from_secs(3600), Duration::from_secs(2)).await;
    let mut digests = Vec::new();
    for n in 0..20_u32 {
        let bytes = n.to_be_bytes().repeat(100);
        digests.push(store.put_bytes(bytes, PutOptions::default()).await.unwrap().digest);
    }
    let deleted = digests.remove(7);
    store.delete(&deleted).await.unwrap();
    let run = || store.rewrap(SweepOptions::default(), |_| {});
    let (one, other) = tokio::join!(run(), run());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((&one.to, one.rewrapped + other.rewrapped), (&other.to, 19));
    assert_eq!((one.count.envelopes, one.count.under(&one.to)), (19, 19));
    let shredded = store.shred(Duration::ZERO, SweepOptions::default(), |_| {}).await.unwrap();
    assert_eq!((shredded.store_keys, shredded.records), (one.from, 3));
    let again = store.shred(Duration::ZERO, SweepOptions::default(), |_| {}).await.unwrap();
    assert_eq!(again, Shredded::default());
    for digest in &digests {
        assert_eq!(store.get(digest).await.unwrap().bytes().await.unwrap().len(), 400);
    }
    assert!(!store.contains(&deleted).await.unwrap());
}

/// A store is made here; what is deleted is collected, by the server's clock and in its rounding, and the rest is sound.
async fn garbage(bucket: &Bucket) {
    const GRACE: Duration = Duration::from_secs(6);
    let store = store(bucket, GRACE, Duration::from_secs(60)).await;
    let put = async |bytes: Vec<u8>| store.put_bytes(bytes, PutOptions::default()).await.unwrap().digest;
    let (kept, deleted) = (put(vec![1; 200_000]).await, put(vec![2; 300_000]).await);
    store.delete(&deleted).await.unwrap();
    let gc = async || store.gc(GcOptions::default(), |_| {}).await.unwrap();
    let report = gc().await;
    assert_eq!((report.envelopes, report.removed.objects, report.data.objects), (1, 0, 2));
    tokio::time::sleep(GRACE + Duration::from_secs(2)).await;
    // What has to outrun a gc is copied: a copy has a time of its own.
    let data: Vec<_> = bucket.list("data").try_collect().await.unwrap();
    bucket.copy(&data[0].key, "copied").await.unwrap();
    let copied = bucket.head("copied").await.unwrap().unwrap();
    assert_eq!(copied.size, data[0].size);
    assert!(copied.last_modified.duration_since(data[0].last_modified).unwrap() >= GRACE);
    let report = gc().await;
    assert_eq!((report.removed.objects, report.too_young.objects, report.data.objects), (1, 0, 2));
    assert_eq!(bucket.list("data").count().await, 1);
    assert!(!put(vec![1; 200_000]).await.to_string().is_empty());
    assert_eq!(bucket.list("data").count().await, 1, "old, seen by every gc, and shared");
    let report = store.verify(VerifyOptions { read: 1.0 }, |_| {}).await.unwrap();
    assert_eq!((report.blobs, report.read.objects, report.damaged, report.unnamed.objects), (1, 1, 0, 0));
    assert_eq!(store.get(&kept).await.unwrap().bytes().await.unwrap(), vec![1; 200_000]);
    bucket.delete_all(&["copied".to_owned(), "never there".to_owned()]).await.unwrap();
    assert!(bucket.head("copied").await.unwrap().is_none());
}

/// Meta objects: of two writers one is told what is there, names come back in pages, and
/// what is removed is gone.
async fn small_facts(bucket: &Bucket) {
    const TAG: MetaKind = MetaKind::new("tag", 2);
    let before: Vec<_> = bucket.list("").map_ok(|entry| entry.key).try_collect().await.unwrap();
    bucket.delete_all(&before).await.unwrap();
    let store = store(bucket, Duration::from_secs(3600), Duration::from_secs(60)).await;
    let meta = store.meta();
    let write = |payload: &'static str| meta.create(TAG, &["app", "latest"], payload);
    let (one, other) = tokio::join!(write("one"), write("other"));
    let (version, there) = match (one.unwrap(), other.unwrap()) {
        (MetaWrite::Done(version), MetaWrite::Changed(Some(there)))
        | (MetaWrite::Changed(Some(there)), MetaWrite::Done(version)) => (version, there),
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(there.version, version);
    let MetaWrite::Done(newer) = meta.update(TAG, &["app", "latest"], "two", &version).await.unwrap() else {
        panic!("the version was the newest")
    };
    let stale = meta.update(TAG, &["app", "latest"], "three", &version).await.unwrap();
    assert!(matches!(stale, MetaWrite::Changed(Some(there)) if there.payload == "two"));
    let long = "n".repeat(200);
    for name in ["v1", "v2", &long] {
        meta.set(TAG, &["app", name], "x").await.unwrap();
    }
    meta.set(TAG, &["another", "v3"], "x").await.unwrap();
    let page = meta.list(TAG, &["app"], None, 3).await.unwrap();
    assert_eq!((page.names, page.more), (vec!["latest".into(), long.clone(), "v1".into()], true));
    let page = meta.list(TAG, &["app"], Some("v1"), 3).await.unwrap();
    assert_eq!((page.names, page.more), (vec!["v2".into()], false));
    assert!(meta.remove(TAG, &["app", "latest"], &newer).await.unwrap().is_done());
    assert!(meta.get(TAG, &["app", "latest"]).await.unwrap().is_none());
    assert_eq!(meta.list(TAG, &["app"], None, 9).await.unwrap().names.len(), 3);
    meta.set(TAG, &["app", "latest"], "back").await.unwrap();
    assert_eq!(meta.get(TAG, &["app", "latest"]).await.unwrap().unwrap().payload, "back");
    store.close().await;
}

/// A registry's gc, by the server's clock and in its rounding: what a tag needs stays, what nothing needs goes.
async fn registry_garbage(bucket: &Bucket) {
    const GRACE: Duration = Duration::from_secs(8);
    let before: Vec<_> = bucket.list("").map_ok(|entry| entry.key).try_collect().await.unwrap();
    bucket.delete_all(&before).await.unwrap();
    let store = store(bucket, GRACE, Duration::from_secs(60)).await;
    let mut options = RegistryOptions::default();
    options.grace = GRACE;
    let registry = Registry::new(store.clone(), options);
    let repository = registry.repository("app".parse().unwrap());
    let put = async |bytes: Vec<u8>| {
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        repository.put_blob_bytes(&digest, bytes).await.unwrap();
        digest
    };
    let push = async |layer: &Digest, tags: Vec<Tag>| {
        let part = serde_json::json!({"mediaType": "a/b", "digest": layer.to_string(), "size": 1});
        let bytes = serde_json::json!({"schemaVersion": 2, "config": part, "layers": []}).to_string().into();
        let put = PutManifest { tags, bytes, ..PutManifest::default() };
        repository.put_manifest(put).await.unwrap().digest
    };
    let (kept, untagged, loose) =
        (put(vec![1; 9000]).await, put(vec![2; 9000]).await, put(vec![3; 9000]).await);
    let tag: Tag = "latest".parse().unwrap();
    let manifest = push(&kept, vec![tag.clone()]).await;
    push(&untagged, Vec::new()).await;
    let mut options = CollectOptions::default();
    options.untagged_after = Some(GRACE);
    let collect = async || registry.collect(&options, &|_| {}).await.unwrap();
    let report = collect().await;
    assert_eq!((report.removed_manifests, report.removed_links, report.removed_blobs.objects), (0, 0, 0));
    tokio::time::sleep(GRACE + Duration::from_secs(2)).await;
    let report = collect().await;
    assert_eq!((report.removed_manifests, report.removed_links, report.removed_blobs.objects), (1, 2, 2));
    assert_eq!((report.manifests, report.links, report.damaged), (1, 1, 0));
    assert!(!store.contains(&untagged).await.unwrap() && !store.contains(&loose).await.unwrap());
    assert_eq!(repository.manifest(&Reference::Tag(tag)).await.unwrap().unwrap().digest, manifest);
    let bytes = repository.open_blob(&kept).await.unwrap().unwrap().bytes().await.unwrap();
    assert_eq!(bytes, vec![1; 9000]);
    store.close().await;
}

/// Upload sessions: another handle goes on, of two that go on at once one is told, and the commit leaves a blob and no session.
async fn uploads_in_pieces(bucket: &Bucket) {
    let before: Vec<_> = bucket.list("").map_ok(|entry| entry.key).try_collect().await.unwrap();
    bucket.delete_all(&before).await.unwrap();
    let store = store(bucket, Duration::from_secs(3600), Duration::from_secs(60)).await;
    let whole: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut session = store.create_session(SessionOptions::default()).await.unwrap();
    assert_eq!(session.append_bytes(0, whole[..1_000_000].to_vec()).await.unwrap(), 1_000_000);
    let id = *session.id();
    let (mut one, mut other) =
        (store.resume_session(&id).await.unwrap(), store.resume_session(&id).await.unwrap());
    let piece = || whole[1_000_000..1_000_100].to_vec();
    let (a, b) = tokio::join!(one.append_bytes(1_000_000, piece()), other.append_bytes(1_000_000, piece()));
    let lost = [a, b].into_iter().filter_map(Result::err).map(|error| error.kind()).collect::<Vec<_>>();
    assert_eq!(lost, [ErrorKind::Conflict]);
    let mut session = store.resume_session(&id).await.unwrap();
    assert_eq!(session.offset(), 1_000_100);
    session.append_bytes(1_000_100, whole[1_000_100..].to_vec()).await.unwrap();
    let listed: Vec<_> = store.sessions().try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|entry| (entry.id, entry.offset)).collect::<Vec<_>>(), [(id, 3_000_000)]);
    let digest = Digest::of(Algorithm::Sha256, &whole);
    session.commit(&digest, Some(3_000_000)).await.unwrap();
    assert_eq!(store.get(&digest).await.unwrap().bytes().await.unwrap(), whole);
    assert_eq!(store.resume_session(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.sessions().count().await, 0);
    // One that is given up leaves nothing that a listing shows.
    let mut session = store.create_session(SessionOptions::default()).await.unwrap();
    session.append_bytes(0, whole[..200_000].to_vec()).await.unwrap();
    session.cancel().await.unwrap();
    assert_eq!(store.sessions().count().await, 0);
    store.close().await;
}
