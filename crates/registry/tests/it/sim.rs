//! Several nodes that push what they share, several that collect, one unreliable bucket, one seed.
//!
//! What must hold, whatever is lost, late, doubled, paused or killed:
//! - what a tag names is whole: its manifest and every layer can be read, and so is any other manifest for as long as it is there;
//! - a tag whose push was acknowledged, and that nobody deletes, is there;
//! - a signature that stays with its image is listed;
//! - no push fails for want of a blob or manifest that it found, if its steps follow one another within half of the grace;
//! - when all is quiet and the grace has passed, nothing is left but what the tags need.
//!
//! Seeds fail when what is relied on is not written again, and when gc removes a blob that was written since it looked; `model`
//! has the schedules that they seldom hit.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bulla::kek::{Identity, Providers, Runtime};
use bulla::{Algorithm, Anchor, Bucket, CreateOptions, Digest, Engine, Managed, Mode, OpenOptions, Trust};
use bulla_registry::facts::{LINK, MANIFEST};
use bulla_registry::{
    CollectOptions, ErrorCode, PutManifest, Reference, Registry, RegistryError, RegistryOptions, Repository,
    Tag,
};
use bulla_testkit::faults::Faults;
use bulla_testkit::provider::{SimProvider, key_id};
use bulla_testkit::runtime::SeededRandom;
use bulla_testkit::simulation::{SimNode, Simulation, for_each_seed};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use tokio::time::Instant;

use crate::client::{OCI_MANIFEST, sha256};

const GRACE: Duration = Duration::from_secs(40 * 60);
const REPOSITORIES: [&str; 2] = ["library/app", "library/other"];
const TAGS: [&str; 2] = ["stable", "edge"];
/// Everybody may delete it at any time.
const LOOSE: &str = "loose";

/// Blobs that all images share; one is too long for its envelope.
static LAYERS: LazyLock<Vec<(Digest, Vec<u8>)>> = LazyLock::new(|| {
    let layer = |index: u8| {
        let bytes = vec![index; if index == 0 { 90_000 } else { 100 }];
        (sha256(&bytes), bytes)
    };
    (0..5).map(layer).collect()
});

/// The tags whose push was acknowledged.
type Acknowledged = Arc<Mutex<BTreeSet<(String, String)>>>;

#[test]
fn pushes_and_collectors_keep_out_of_each_others_way() {
    for_each_seed(40, async |sim| scenario(sim, |_| Faults::SLOW).await);
}

#[test]
fn no_fault_makes_gc_take_what_a_push_needs() {
    for_each_seed(80, async |sim| scenario(sim, Faults::mixed).await);
}

async fn scenario(sim: &Simulation, faults: fn(&SeededRandom) -> Faults) {
    let provider = sim.provider("k");
    let maker = sim.node("maker");
    let options = CreateOptions {
        mode: Mode::Hierarchical,
        key: key_id("k"),
        identity: Identity::System,
        managed: Managed::Customer,
        revocation_bound: Duration::from_secs(60 * 60),
        allow_unprotected_key: false,
        second: None,
    };
    let store = engine(&maker, &provider).create(bucket(&maker), options).await.unwrap();
    let anchor = store.anchor();
    store.close().await;

    let acknowledged = Acknowledged::default();
    let working = Arc::new(Mutex::new(3_u32));
    let pushers = ["a", "b", "c"].map(|name| {
        let (acknowledged, working) = (Arc::clone(&acknowledged), Arc::clone(&working));
        let provider = &provider;
        async move {
            machine(sim, name, provider, anchor, faults, move |registry, random| {
                let acknowledged = Arc::clone(&acknowledged);
                async move { pushes(&registry, &random, &acknowledged).await }.boxed()
            })
            .await;
            *working.lock().unwrap() -= 1;
        }
    });
    let collectors = ["x", "y"].map(|name| {
        let (provider, working) = (&provider, Arc::clone(&working));
        async move {
            while *working.lock().unwrap() > 0 {
                machine(sim, name, provider, anchor, faults, |registry, random| {
                    async move { collects(&registry, &random).await }.boxed()
                })
                .await;
            }
        }
    });
    futures::join!(futures::future::join_all(pushers), futures::future::join_all(collectors));

    sim.sleep(4 * GRACE).await;
    let last = sim.node("last");
    let registry = open(last, provider, anchor).await.unwrap();
    let options = collect_options(Some(GRACE));
    for _ in 0..3 {
        let report = registry.collect(&options, &|_| {}).await.unwrap();
        assert_eq!(report.damaged, 0, "{report:?}");
        sim.sleep(2 * GRACE).await;
    }
    check_the_end(&registry, &acknowledged).await;
}

/// A machine with several lives, each of which ends when its work is done or it is killed.
async fn machine(
    sim: &Simulation,
    name: &str,
    provider: &SimProvider,
    anchor: Anchor,
    faults: fn(&SeededRandom) -> Faults,
    work: impl Fn(Registry, Arc<SeededRandom>) -> BoxFuture<'static, ()>,
) {
    let random = sim.random();
    for life in 0..2 {
        let node = sim.node(&format!("{name}{life}"));
        node.set_faults(faults(random));
        if random.chance(500) {
            node.crash_after(1 + random.below(*random.pick(&[50, 300, 1000])));
        }
        let opening = open(node.clone(), provider.for_node(node.runtime()), anchor);
        if let Some(Some(registry)) = node.run(opening).await {
            let working = work(registry.clone(), Arc::clone(random));
            node.run(async move {
                working.await;
                registry.store().close().await;
            })
            .await;
        }
        node.kill();
        sim.sleep(random.duration(Duration::from_secs(60))).await;
    }
}

async fn pushes(registry: &Registry, random: &SeededRandom, acknowledged: &Acknowledged) {
    for _ in 0..5 {
        tokio::time::sleep(random.duration(GRACE)).await;
        let name = *random.pick(&REPOSITORIES);
        let repository = registry.repository(name.parse().unwrap());
        if random.chance(200) {
            let deleting = stopping(delete_loose(&repository, random), random, 300, GRACE).await;
            let _ = deleting.map_err(acceptable);
            continue;
        }
        let tag = *random.pick(&[TAGS[0], TAGS[1], LOOSE]);
        let begun = Instant::now();
        let pushing = stopping(push(&repository, tag, random), random, 300, GRACE).await;
        match pushing {
            Ok(()) => {
                check(&repository, tag, tag == LOOSE).await;
                if tag != LOOSE {
                    acknowledged.lock().unwrap().insert((name.to_owned(), tag.to_owned()));
                }
            }
            // What was found was kept for half of the grace, and no longer.
            Err(error) if error.code() == ErrorCode::ManifestBlobUnknown => {
                assert!(begun.elapsed() > GRACE / 2, "after {:?}: {error}", begun.elapsed());
            }
            Err(error) => acceptable(error),
        }
        let name = *random.pick(&REPOSITORIES);
        let tag: &str = random.pick::<&str>(&TAGS);
        let repository = registry.repository(name.parse().unwrap());
        check(&repository, tag, true).await;
        check_any(&repository, random).await;
    }
}

/// Its tag, or the manifest with all its tags.
async fn delete_loose(repository: &Repository, random: &SeededRandom) -> Result<(), RegistryError> {
    let tag: Tag = LOOSE.parse().unwrap();
    if random.chance(500) {
        repository.delete_tag(&tag).await?;
    } else if let Some(digest) = repository.tag(&tag).await? {
        repository.delete_manifest(&digest).await?;
    }
    Ok(())
}

/// One image: two to four shared layers, and sometimes an index around it, or a signature.
async fn push(repository: &Repository, tag: &str, random: &SeededRandom) -> Result<(), RegistryError> {
    let mut layers = Vec::new();
    for _ in 0..2 + random.below(3) {
        let (digest, bytes) = random.pick(&LAYERS);
        layers.push(digest.clone());
        pause(random).await;
        if repository.stat_blob(digest).await?.is_some() {
            continue;
        }
        let from = *random.pick(&REPOSITORIES);
        if random.chance(500) && repository.mount_blob(digest, Some(&from.parse().unwrap())).await? {
            continue;
        }
        if random.chance(500) {
            repository.put_blob_bytes(digest, bytes.clone()).await?;
        } else {
            let mut session = repository.start_upload(Algorithm::Sha256).await?;
            session.append_bytes(0, bytes.clone()).await?;
            pause(random).await;
            repository.finish_upload(&mut session, digest, None).await?;
        }
    }
    pause(random).await;
    let is_index = random.chance(300);
    let tags = |tagged: bool| if tagged { vec![tag.parse::<Tag>().unwrap()] } else { Vec::new() };
    let bytes = image(&layers, tag == LOOSE && !is_index, None).into();
    let put = PutManifest { bytes, tags: tags(!is_index), ..PutManifest::default() };
    let put = repository.put_manifest(put).await?;
    if random.chance(300) {
        pause(random).await;
        let bytes = image(&layers[..1], false, Some(&put.digest)).into();
        repository.put_manifest(PutManifest { bytes, ..PutManifest::default() }).await?;
    }
    if is_index {
        pause(random).await;
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"mediaType": OCI_MANIFEST, "digest": put.digest.to_string(), "size": 1}],
            "annotations": {"loose": (tag == LOOSE).to_string()},
        });
        let index =
            PutManifest { bytes: index.to_string().into(), tags: tags(true), ..PutManifest::default() };
        repository.put_manifest(index).await?;
    }
    Ok(())
}

fn image(layers: &[Digest], loose: bool, subject: Option<&Digest>) -> String {
    let part = |digest: &Digest| serde_json::json!({"mediaType": "application/x", "digest": digest.to_string(), "size": 1});
    let mut image = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": part(&layers[0]),
        "layers": layers.iter().map(part).collect::<Vec<_>>(),
        // What may be deleted is nobody else's.
        "annotations": {"loose": loose.to_string()},
    });
    if let Some(subject) = subject {
        image["subject"] = part(subject);
    }
    image.to_string()
}

/// Mostly short; seldom so long that what was found may be gone.
async fn pause(random: &SeededRandom) {
    let longest = if random.chance(40) { 2 * GRACE } else { GRACE / 20 };
    tokio::time::sleep(random.duration(longest)).await;
}

async fn collects(registry: &Registry, random: &SeededRandom) {
    for _ in 0..12 {
        tokio::time::sleep(random.duration(GRACE / 2)).await;
        let options = collect_options(random.chance(700).then_some(GRACE));
        let collecting = async {
            match registry.collect(&options, &|_| {}).await {
                Ok(report) => assert_eq!(report.damaged, 0, "{report:?}"),
                Err(error) => acceptable(error),
            }
        };
        if random.chance(150) {
            // It is dropped in the middle.
            let _ = tokio::time::timeout(random.duration(Duration::from_secs(20)), collecting).await;
        } else {
            stopping(collecting, random, 400, 3 * GRACE).await;
        }
    }
}

/// Sometimes the process stands still, once, while what it has sent arrives.
async fn stopping<T>(
    work: impl Future<Output = T>,
    random: &SeededRandom,
    permille: u64,
    longest: Duration,
) -> T {
    let mut work = std::pin::pin!(work);
    if random.chance(permille) {
        let until = random.duration(*random.pick(&[Duration::from_secs(1), Duration::from_secs(100)]));
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(until) => {}
        }
        tokio::time::sleep(random.duration(longest)).await;
    }
    work.await
}

/// What the tag names is whole.
async fn check(repository: &Repository, tag: &str, may_be_absent: bool) {
    let reference: Reference = tag.parse().unwrap();
    let manifest = match repository.manifest(&reference).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            // The tag may have been moved twice between two reads; but it names something.
            let named = repository.tag(&tag.parse().unwrap()).await;
            if let Ok(Some(digest)) = named {
                match repository.manifest(&Reference::Digest(digest.clone())).await {
                    // While a manifest is deleted its tags are the last to go.
                    Ok(manifest) => {
                        assert!(manifest.is_some() || tag == LOOSE, "{tag} names {digest}, which is gone");
                    }
                    Err(error) => acceptable(error),
                }
            } else if let Ok(None) = named {
                assert!(may_be_absent, "the tag {tag} is gone");
            }
            return;
        }
        Err(error) => return acceptable(error),
    };
    if let Some(missing) = missing(repository, &manifest.bytes).await {
        panic!("{missing}, which {tag} needs, is gone from {}", repository.name());
    }
}

/// Any manifest, tagged or not, or half put by somebody who was killed: if it is there, it is whole.
async fn check_any(repository: &Repository, random: &SeededRandom) {
    let meta = repository.registry().store().meta();
    let Ok(page) = meta.list(MANIFEST, &[repository.name().as_str()], None, 1000).await else { return };
    if page.names.is_empty() {
        return;
    }
    let digest: Digest = random.pick(&page.names).parse().unwrap();
    // It may be deleted, and put again, between two reads.
    for _ in 0..3 {
        match repository.manifest(&Reference::Digest(digest.clone())).await {
            Ok(Some(manifest)) if missing(repository, &manifest.bytes).await.is_some() => {}
            Ok(_) => return,
            Err(error) => return acceptable(error),
        }
    }
    panic!("{digest} is there, and what it needs is gone from {}", repository.name());
}

/// The first that a manifest needs and that is not there.
async fn missing(repository: &Repository, manifest: &[u8]) -> Option<Digest> {
    let value: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    for child in value["manifests"].as_array().into_iter().flatten() {
        let digest: Digest = child["digest"].as_str().unwrap().parse().unwrap();
        match repository.manifest(&Reference::Digest(digest.clone())).await {
            Ok(Some(manifest)) => {
                if let Some(missing) = Box::pin(missing(repository, &manifest.bytes)).await {
                    return Some(missing);
                }
            }
            Ok(None) => return Some(digest),
            Err(error) => acceptable(error),
        }
    }
    for layer in value["layers"].as_array().into_iter().flatten() {
        let digest: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
        match repository.open_blob(&digest).await {
            Ok(Some(blob)) => match blob.bytes().await {
                Ok(bytes) => assert_eq!(sha256(&bytes), digest),
                Err(error) => acceptable(error.into()),
            },
            Ok(None) => return Some(digest),
            Err(error) => acceptable(error),
        }
    }
    None
}

async fn check_the_end(registry: &Registry, acknowledged: &Acknowledged) {
    let tagged = acknowledged.lock().unwrap().clone();
    for (name, tag) in tagged {
        check(&registry.repository(name.parse().unwrap()), &tag, false).await;
    }
    let meta = registry.store().meta();
    let mut linked = BTreeSet::new();
    for name in REPOSITORIES {
        let repository = registry.repository(name.parse().unwrap());
        let mut needed: HashMap<String, ()> = HashMap::new();
        let mut reached = BTreeSet::new();
        for tag in repository.tags(None, 100).await.unwrap().items {
            let mut next = vec![repository.tag(&tag).await.unwrap().unwrap()];
            while let Some(digest) = next.pop() {
                reached.insert(digest.to_string());
                let referrers = repository.referrers(&digest, None, None, 100).await.unwrap().items;
                next.extend(referrers.into_iter().map(|referrer| referrer.digest));
                let manifest = repository.manifest(&Reference::Digest(digest)).await.unwrap().unwrap();
                let value: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
                let digests = |key: &str| -> Vec<String> {
                    let parts = value[key].as_array().into_iter().flatten();
                    parts.map(|part| part["digest"].as_str().unwrap().to_owned()).collect()
                };
                next.extend(digests("manifests").iter().map(|digest| digest.parse::<Digest>().unwrap()));
                needed.extend(digests("layers").into_iter().map(|digest| (digest, ())));
            }
        }
        let manifests = meta.list(MANIFEST, &[name], None, 1000).await.unwrap().names;
        assert_eq!(manifests.into_iter().collect::<BTreeSet<_>>(), reached, "{name}");
        let links: BTreeSet<String> =
            meta.list(LINK, &[name], None, 1000).await.unwrap().names.into_iter().collect();
        assert_eq!(links, needed.into_keys().collect(), "{name}");
        linked.extend(links);
    }
    let blobs: BTreeSet<String> =
        registry.store().list().map_ok(|blob| blob.digest.to_string()).try_collect().await.unwrap();
    assert_eq!(blobs, linked);
}

#[allow(clippy::needless_pass_by_value, reason = "it is the end of the error")]
fn acceptable(error: RegistryError) {
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
}

fn collect_options(untagged_after: Option<Duration>) -> CollectOptions {
    let mut options = CollectOptions::default();
    options.untagged_after = untagged_after;
    options
}

async fn open(node: SimNode, provider: SimProvider, anchor: Anchor) -> Option<Registry> {
    let engine = engine(&node, &provider);
    for _ in 0..20 {
        let options = OpenOptions { trust: Trust::Anchor(anchor), floor: None };
        if let Ok(store) = engine.open(bucket(&node), options).await {
            let mut options = RegistryOptions::default();
            options.grace = GRACE;
            return Some(Registry::new(store, options));
        }
        node.runtime().sleep(Duration::from_secs(10)).await;
    }
    None
}

fn engine(node: &SimNode, provider: &SimProvider) -> Engine {
    let providers = Providers::new().with(Arc::new(provider.clone()));
    Engine::builder().providers(providers).runtime(node.shared_runtime()).build()
}

fn bucket(node: &SimNode) -> Bucket {
    Bucket::from_object_store(node.shared_store(), "registry").unwrap()
}
