//! What CNCF Distribution has stored is taken over: under virtual time, stopped at every single request, and beside a gc.

use std::time::Duration;

use bulla::{Algorithm, Digest};
use bulla_registry::adopt::{AdoptCause, AdoptOptions, AdoptReport};
use bulla_registry::{CollectOptions, Reference, Registry};
use bulla_testkit::scripted::{Op, ScriptedStore, broken_connection};
use serde_json::json;

use crate::client::sha256;
use crate::distribution::{Source, assert_has, data_key, image, path};
use crate::model::{HOUR, World};

fn keeping() -> AdoptOptions {
    AdoptOptions::default()
}

fn removing() -> AdoptOptions {
    let mut options = AdoptOptions::default();
    (options.delete_source, options.drop_unlinked) = (true, true);
    options
}

async fn adopt(registry: &Registry, source: &Source, options: AdoptOptions) -> AdoptReport {
    registry.adopt(&source.bucket, options, &|_| {}).await.unwrap()
}

/// Clients that know the referrers API find what others had to find by a tag named after the digest.
#[tokio::test(start_paused = true)]
async fn referrers_of_a_source_without_their_api_are_in_the_api() {
    let (world, (source, filled)) = (World::new().await, Source::filled().await);
    let report = adopt(&world.registry, &source, removing()).await;
    assert_eq!((report.failures, report.unsealed, report.tags), (vec![], 0, 3));
    assert_has(&world.repository("app"), &filled).await;
    let app = world.repository("app");
    let tag = Reference::Tag(filled.image.to_string().replace(':', "-").parse().unwrap());
    assert!(app.manifest(&tag).await.unwrap().is_some(), "and old clients find it as before");
}

/// Whatever request is the last that a killed run sent, another run ends as if there had been no other.
#[tokio::test(start_paused = true)]
async fn killed_after_any_write_or_removal_it_is_gone_on_with() {
    let (world, (source, _)) = (World::new().await, Source::filled().await);
    source.script.take_requests();
    adopt(&world.registry, &source, removing()).await;
    let count =
        |script: &ScriptedStore, kind| script.take_requests().iter().filter(|(op, _)| *op == kind).count();
    let (creates, deletes) = (count(&world.script, Op::Create), count(&source.script, Op::Delete));
    assert!(creates > 15 && deletes > 15, "{creates} {deletes}");
    let kills = (0..creates).map(|nth| (Op::Create, nth)).chain((0..deletes).map(|nth| (Op::Delete, nth)));
    for (op, nth) in kills {
        let (world, (source, filled)) = (World::new().await, Source::filled().await);
        let all = source.len().await;
        let scripts = (world.script.clone(), source.script.clone());
        let silence = move || {
            scripts.0.set_hanging(Some(""));
            scripts.1.set_hanging(Some(""));
            None
        };
        let script = if op == Op::Create { &world.script } else { &source.script };
        script.before_nth(op, "", nth, silence);
        let killed = tokio::time::timeout(
            Duration::from_secs(1),
            world.registry.adopt(&source.bucket, removing(), &|_| {}),
        );
        let killed = killed.await.is_err();
        // Nothing is asked after the last removal but a listing, which always answers.
        assert!(killed || (op, nth) == (Op::Delete, deletes - 1), "{op:?} {nth}");
        world.script.set_hanging(None);
        source.script.set_hanging(None);
        let left = source.len().await;
        assert!(if op == Op::Create { left == all } else { left < all }, "{op:?} {nth}: {left} of {all}");

        let again = Registry::new(world.registry.store().clone(), world.registry.options().clone());
        if left > 0 {
            let report = adopt(&again, &source, removing()).await;
            assert_eq!((report.failures, report.unsealed), (vec![], 0), "{op:?} {nth}");
        }
        assert_eq!(source.len().await, 0);
        assert_has(&again.repository("app".parse().unwrap()), &filled).await;
    }
}

/// Layers that take longer than gc leaves them without a manifest are there all the same when the manifest comes.
#[tokio::test(start_paused = true)]
async fn a_gc_in_the_middle_of_a_slow_adoption_loses_nothing() {
    let (world, (source, filled)) = (World::new().await, Source::filled().await);
    let held = source.script.hold(Op::Get, &data_key(&filled.image));
    let adopting = adopt(&world.registry, &source, keeping());
    let collecting = async {
        // Time goes on when all else waits: all layers are there, and the first manifest is not.
        tokio::time::sleep(25 * HOUR).await;
        let app = world.repository("app");
        assert!(app.open_blob(&filled.layers[0]).await.unwrap().is_some());
        let report = world.registry.collect(&CollectOptions::default(), &|_| {}).await.unwrap();
        drop(held);
        assert!(app.open_blob(&filled.layers[0]).await.unwrap().is_none());
        report.removed_links
    };
    let (report, removed) = tokio::join!(adopting, collecting);
    assert!(removed >= 2, "{removed}");
    assert_eq!(report.failures, []);
    assert_has(&world.repository("app"), &filled).await;
}

/// Each of them is named with what is to be done about it, the rest is adopted, and no original goes.
#[tokio::test(start_paused = true)]
async fn what_is_broken_in_the_source_is_named_and_nothing_is_removed() {
    let (world, (source, filled)) = (World::new().await, Source::filled().await);
    let mut named: Vec<(String, AdoptCause)> = Vec::new();
    let mut broken = |what: String, cause| named.push((what, cause));

    let altered = source.blob_as("altered", &sha256(b"said"), b"is something else").await;
    let manifest = source.manifest("altered", &image(std::slice::from_ref(&altered))).await;
    source.tag("altered", "v1", &manifest).await;
    broken(format!("blob {altered}"), AdoptCause::Damaged);
    broken(format!("manifest {manifest}"), AdoptCause::Damaged);
    broken("tag v1".to_owned(), AdoptCause::Damaged);

    let missing = source.manifest("missing", &image(&[sha256(b"never there")])).await;
    broken(format!("manifest {missing}"), AdoptCause::Damaged);

    let no_json = source.manifest_bytes("no-json", b"{\"schemaVersion\": 2,").await;
    broken(format!("manifest {no_json}"), AdoptCause::Damaged);

    let old = json!({"schemaVersion": 1, "name": "old", "fsLayers": []});
    let old = source.manifest("old", &old).await;
    broken(format!("manifest {old}"), AdoptCause::Unsupported);

    source.put("repositories/app/_manifests/tags/torn/current/link", "sha256:12").await;
    broken("tag torn".to_owned(), AdoptCause::Damaged);
    source.tag("app", "nowhere", &sha256(b"no manifest")).await;
    broken("tag nowhere".to_owned(), AdoptCause::Damaged);

    let sound = source.blob("links", b"sound").await;
    let link = format!("repositories/links/_layers/{}/link", path(&sound));
    source.put(&link, sha256(b"another").to_string()).await;
    broken(format!("link docker/registry/v2/{link}"), AdoptCause::Damaged);

    // Nothing is wrong with these.
    let sha512 = Digest::of(Algorithm::Sha512, b"long name");
    let sha512 = source.blob_as("sha512", &sha512, b"long name").await;
    let image = source.manifest("sha512", &image(std::slice::from_ref(&sha512))).await;
    source.tag("sha512", "v1", &image).await;
    source.put("repositories/app/_uploads/7b2d/data", "half").await;
    source.put("repositories/app/_uploads/7b2d/startedat", "2026-01-01T00:00:00Z").await;
    source.put("stray", "file").await;

    let all = source.len().await;
    let mut options = removing();
    // Strays can't be links.
    options.drop_unlinked = false;
    let mut dry = keeping();
    dry.dry_run = true;
    let dry = adopt(&world.registry, &source, dry).await;
    let report = adopt(&world.registry, &source, options).await;
    let mut found: Vec<_> =
        report.failures.iter().map(|failure| (failure.what.clone(), failure.cause)).collect();
    found.sort();
    named.sort();
    assert_eq!(found, named);
    assert_eq!((source.len().await, report.unsealed), (all, all as u64), "all originals are there");
    assert_eq!((report.uploads.objects, report.unknown), (2, vec!["docker/registry/v2/stray".to_owned()]));
    assert_has(&world.repository("app"), &filled).await;
    let repository = world.repository("sha512");
    let tagged = repository.manifest(&Reference::Tag("v1".parse().unwrap())).await.unwrap().unwrap();
    assert_eq!(tagged.digest, image);
    assert_eq!(repository.open_blob(&sha512).await.unwrap().unwrap().bytes().await.unwrap(), "long name");

    // A dry run reads no layers; but for the altered one, and what needs it, it says the same.
    assert_eq!(dry.failures.len(), report.failures.len() - 3, "{:#?}", dry.failures);
    assert_eq!((dry.manifests.objects, dry.tags), (report.manifests.objects + 1, report.tags + 1));
}

/// A registry that was not stopped: what it writes meanwhile is found, keeps the originals, and comes with the next run.
#[tokio::test(start_paused = true)]
async fn what_is_pushed_to_the_source_meanwhile_keeps_the_originals() {
    let (world, (source, filled)) = (World::new().await, Source::filled().await);
    let held = source.script.hold(Op::Get, &data_key(&filled.image));
    let pushing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        source.tag("app", "late", &filled.image).await;
        drop(held);
    };
    let (report, ()) = tokio::join!(adopt(&world.registry, &source, removing()), pushing);
    let late = "docker/registry/v2/repositories/app/_manifests/tags/late/";
    assert_eq!(report.changed.len(), 2, "{:?}", report.changed);
    assert!(report.changed.iter().all(|key| key.starts_with(late)), "{:?}", report.changed);
    assert_eq!((report.failures, report.removed.objects), (vec![], 0));

    // Even where all else is being removed already.
    let held = source.script.hold(Op::Delete, "");
    let pushing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        source.tag("app", "later", &filled.image).await;
        drop(held);
    };
    let (report, ()) = tokio::join!(adopt(&world.registry, &source, removing()), pushing);
    assert_eq!((report.failures, report.tags, report.unsealed), (vec![], 1, 2));
    let report = adopt(&world.registry, &source, removing()).await;
    assert_eq!((report.failures, report.tags, report.unsealed), (vec![], 1, 0));
    assert_has(&world.repository("app"), &filled).await;
    for tag in ["late", "later"] {
        let tag = Reference::Tag(tag.parse().unwrap());
        let found = world.repository("app").manifest(&tag).await.unwrap().unwrap();
        assert_eq!(found.digest, filled.image);
    }
}

/// A few reads that fail are named, and done by the next run; a source that is gone ends the run instead of waiting for each.
#[tokio::test(start_paused = true)]
async fn a_source_that_can_not_be_read_ends_the_run() {
    let (world, source) = (World::new().await, Source::new());
    for n in 0..150_u32 {
        source.blob("app", &n.to_le_bytes()).await;
    }
    for _ in 0..3 {
        source.script.before(Op::Get, "/blobs/", || Some(broken_connection()));
    }
    let report = adopt(&world.registry, &source, removing()).await;
    assert_eq!((report.failures.len(), report.removed.objects), (3, 0));
    assert!(report.failures.iter().all(|failure| failure.cause == AdoptCause::Unavailable));
    let report = adopt(&world.registry, &source, removing()).await;
    assert_eq!((report.sealed.objects, report.present.objects, report.unsealed), (3, 147, 0));

    let (world, source) = (World::new().await, Source::new());
    for n in 0..150_u32 {
        source.blob("app", &n.to_le_bytes()).await;
        source.script.before(Op::Get, "/blobs/", || Some(broken_connection()));
    }
    let error = world.registry.adopt(&source.bucket, removing(), &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("too much can't be read"), "{error}");
    assert_eq!(source.len().await, 300);
}

/// A tag that the store has for another manifest stays, and is named as a conflict.
#[tokio::test(start_paused = true)]
async fn a_tag_that_names_something_else_in_the_store_stays() {
    let (world, (source, filled)) = (World::new().await, Source::filled().await);
    adopt(&world.registry, &source, keeping()).await;
    source.tag("app", "v1", &filled.index).await;
    let report = adopt(&world.registry, &source, removing()).await;
    let causes: Vec<_> = report.failures.iter().map(|failure| (&*failure.what, failure.cause)).collect();
    assert_eq!(causes, [("tag v1", AdoptCause::Conflict)]);
    assert_eq!(report.removed.objects, 0);
    assert_has(&world.repository("app"), &filled).await;
}
