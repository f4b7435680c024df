//! Meta objects: conditional writes that survive lost answers, names that nobody reads, pages in the names' order.

use std::time::Duration;

use bulla::kek::DenyReason;
use bulla::{ErrorKind, Meta, MetaKind, MetaVersion, MetaWrite};
use bulla_testkit::scripted::{Op, already_exists, broken_connection, precondition};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::support::*;

/// Repository and tag.
const TAG: MetaKind = MetaKind::new("tag", 2);
const REPOSITORY: MetaKind = MetaKind::new("repository", 1);

const PATH: [&str; 2] = ["example/app", "latest"];

async fn created(meta: &Meta, path: [&str; 2], payload: &'static str) -> MetaVersion {
    match meta.create(TAG, &path, payload).await.unwrap() {
        MetaWrite::Done(version) => version,
        MetaWrite::Changed(_) => panic!("it was there already"),
    }
}

async fn read(meta: &Meta, path: [&str; 2]) -> Option<Bytes> {
    meta.get(TAG, &path).await.unwrap().map(|entry| entry.payload)
}

#[tokio::test(start_paused = true)]
async fn what_is_made_is_read_on_every_node() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    assert_eq!(read(&other.meta(), PATH).await, None);
    let version = created(&world.store.meta(), PATH, "one").await;
    assert_eq!(read(&other.meta(), PATH).await.unwrap(), "one");
    // Nothing is cached: a change shows at once.
    assert!(other.meta().update(TAG, &PATH, "two", &version).await.unwrap().is_done());
    let entry = world.store.meta().get(TAG, &PATH).await.unwrap().unwrap();
    assert_eq!((entry.payload, entry.path), ("two".into(), vec!["example/app".into(), "latest".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_write_with_an_old_version_says_what_is_there() {
    let world = World::new().await;
    let meta = world.store.meta();
    let first = created(&meta, PATH, "one").await;
    let MetaWrite::Changed(Some(there)) = meta.create(TAG, &PATH, "two").await.unwrap() else { panic!() };
    assert_eq!((there.payload, &there.version), ("one".into(), &first));
    let MetaWrite::Done(second) = meta.update(TAG, &PATH, "two", &first).await.unwrap() else { panic!() };
    let MetaWrite::Changed(Some(there)) = meta.update(TAG, &PATH, "3", &first).await.unwrap() else {
        panic!()
    };
    assert_eq!((there.payload, &there.version), ("two".into(), &second));
    let MetaWrite::Changed(Some(_)) = meta.remove(TAG, &PATH, &first).await.unwrap() else { panic!() };
    assert_eq!(read(&meta, PATH).await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_gone_and_can_be_made_again() {
    let world = World::new().await;
    let meta = world.store.meta();
    let version = created(&meta, PATH, "one").await;
    assert!(meta.remove(TAG, &PATH, &version).await.unwrap().is_done());
    assert_eq!(read(&meta, PATH).await, None);
    assert_eq!(meta.list(TAG, &PATH[..1], None, 10).await.unwrap().names, [""; 0]);
    assert!(meta.remove(TAG, &PATH, &version).await.unwrap().is_done(), "gone already");
    assert_eq!(meta.update(TAG, &PATH, "two", &version).await.unwrap(), MetaWrite::Changed(None));
    created(&meta, PATH, "three").await;
    assert_eq!(read(&meta, PATH).await.unwrap(), "three");
}

/// Two removals of equal objects leave different tombstones, so a late write finds another version.
// FORMAT-P12
#[tokio::test(start_paused = true)]
async fn no_two_tombstones_of_meta_objects_are_alike() {
    let world = World::new().await;
    let meta = world.store.meta();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let version = created(&meta, PATH, "one").await;
        assert!(meta.remove(TAG, &PATH, &version).await.unwrap().is_done());
        seen.push(world.read(&world.only("meta").await).await);
    }
    assert_ne!(seen[0], seen[1]);
}

/// After a failed conditional write our own nonce there = done.
// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn our_own_object_after_a_lost_answer_is_success() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        let meta = world.store.meta();
        world.script.after(Op::Create, "meta/", move || Some(answer()));
        let version = created(&meta, PATH, "one").await;
        world.script.after(Op::Update, "meta/", move || Some(answer()));
        let MetaWrite::Done(version) = meta.update(TAG, &PATH, "two", &version).await.unwrap() else {
            panic!()
        };
        world.script.after(Op::Update, "meta/", move || Some(answer()));
        meta.set(TAG, &PATH, "three").await.unwrap();
        let MetaWrite::Changed(Some(entry)) = meta.remove(TAG, &PATH, &version).await.unwrap() else {
            panic!()
        };
        world.script.after(Op::Update, "meta/", move || Some(answer()));
        assert!(meta.remove(TAG, &PATH, &entry.version).await.unwrap().is_done());
        assert_eq!(read(&meta, PATH).await, None);
        assert!(world.script.is_done());
    }
}

/// After a failed conditional write what we expected there = again (S3's 409 for a conflicting request in flight).
// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn an_unchanged_object_after_a_refused_write_is_a_retry() {
    for answer in [already_exists, precondition, broken_connection] {
        let world = World::new().await;
        let meta = world.store.meta();
        world.script.before(Op::Create, "meta/", move || Some(answer()));
        let version = created(&meta, PATH, "one").await;
        world.script.before(Op::Update, "meta/", move || Some(answer()));
        let MetaWrite::Done(version) = meta.update(TAG, &PATH, "two", &version).await.unwrap() else {
            panic!()
        };
        world.script.before(Op::Update, "meta/", move || Some(answer()));
        assert!(meta.remove(TAG, &PATH, &version).await.unwrap().is_done());
        assert_eq!(read(&meta, PATH).await, None);
        assert!(world.script.is_done());
    }
}

/// Our update was applied, its answer lost, and somebody replaced it: that is not to be done a second time.
#[tokio::test(start_paused = true)]
async fn an_update_that_was_replaced_meanwhile_is_not_repeated() {
    let world = World::new().await;
    let meta = world.store.meta();
    created(&meta, PATH, "one").await;
    let key = world.only("meta").await;
    let before = world.read(&key).await;
    meta.set(TAG, &PATH, "theirs").await.unwrap();
    let theirs = world.read(&key).await;
    world.write(&key, before).await;
    let version = meta.get(TAG, &PATH).await.unwrap().unwrap().version;
    let raw = world.raw.clone();
    world.script.after(Op::Update, "meta/", move || {
        let (key, theirs) = (Path::from(key), Bytes::from(theirs));
        futures::executor::block_on(async { raw.put(&key, theirs.into()).await }).unwrap();
        Some(broken_connection())
    });
    let MetaWrite::Changed(Some(there)) = meta.update(TAG, &PATH, "two", &version).await.unwrap() else {
        panic!()
    };
    assert_eq!(there.payload, "theirs");
    assert_eq!(read(&meta, PATH).await.unwrap(), "theirs");
}

#[tokio::test(start_paused = true)]
async fn two_writers_of_one_object_decide_on_one() {
    let world = World::new().await;
    let (other, ..) = world.node(2).await;
    let (ours, theirs) = (world.store.meta(), other.meta());
    let (a, b) = tokio::join!(ours.create(TAG, &PATH, "a"), theirs.create(TAG, &PATH, "b"));
    assert!(a.unwrap().is_done() != b.unwrap().is_done());
    let (a, b) = tokio::join!(ours.set(TAG, &PATH, "c"), theirs.set(TAG, &PATH, "d"));
    let version = ours.get(TAG, &PATH).await.unwrap().unwrap().version;
    assert!([a.unwrap(), b.unwrap()].contains(&version));
}

#[tokio::test(start_paused = true)]
async fn pages_are_in_the_order_of_the_names_not_of_the_keys() {
    let world = World::new().await;
    let meta = world.store.meta();
    // Beyond 109 bytes a name is in its object only.
    let long = "v1.".to_owned() + &"0".repeat(125);
    let mut names: Vec<String> = (0..40).map(|n| format!("v{}", n * 37 % 40)).collect();
    names.push(long);
    for name in &names {
        meta.set(TAG, &["example/app", name], name.clone()).await.unwrap();
    }
    meta.set(TAG, &["example/other", "v0"], "elsewhere").await.unwrap();
    names.sort();
    let mut after: Option<String> = None;
    let mut listed = Vec::new();
    loop {
        let page = meta.list(TAG, &["example/app"], after.as_deref(), 7).await.unwrap();
        assert!(page.names.len() == 7 || !page.more);
        after = page.names.last().cloned().or(after);
        listed.extend(page.names);
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, names);
}

#[tokio::test(start_paused = true)]
async fn a_page_is_one_listing_and_reads_only_long_names() {
    let world = World::new().await;
    let meta = world.store.meta();
    for name in ["a", "b", &"c".repeat(110)] {
        meta.set(TAG, &["example/app", name], "x").await.unwrap();
    }
    world.script.take_requests();
    meta.list(TAG, &["example/app"], None, 2).await.unwrap();
    let requests = world.script.take_requests();
    assert_eq!((count(&requests, Op::List, "meta/"), count(&requests, Op::Get, "meta/")), (1, 1));
}

// FORMAT-M1
#[tokio::test(start_paused = true)]
async fn the_longest_names_fit_a_key_of_900_bytes() {
    let world = World::new().await;
    const DEEP: MetaKind = MetaKind::new("a-kind-with-a-name-of-32-letters", 4);
    let names: Vec<String> = (0..4).map(|n| format!("{n}{}", "x".repeat(108))).collect();
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    world.store.meta().set(DEEP, &path, "deep").await.unwrap();
    let key = world.only("meta").await;
    assert!(key.len() <= 900 && key.split('/').all(|part| part.len() <= 200), "{key}");
    assert_eq!(world.store.meta().list(DEEP, &path[..3], None, 1).await.unwrap().names, names[3..]);
}

/// No object's name is another's directory: the paths of a kind are equally long.
// FORMAT-M4
#[tokio::test(start_paused = true)]
async fn a_path_has_as_many_names_as_its_kind() {
    let world = World::new().await;
    let meta = world.store.meta();
    for path in [&["one"][..], &["one", "two", "three"], &["one", ""], &["one", &"x".repeat(1025)]] {
        let error = meta.set(TAG, path, "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(meta.list(TAG, &[], None, 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    let error = meta.set(TAG, &PATH, vec![0; 65_537]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    meta.set(TAG, &PATH, vec![0; 65_536]).await.unwrap();
    // The same names in another kind are another object, also where a directory has them.
    meta.set(REPOSITORY, &PATH[..1], "r").await.unwrap();
    assert_eq!(world.keys("meta").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_shows_no_name_and_no_payload() {
    let world = World::new().await;
    world.store.meta().set(TAG, &PATH, "a payload to look for").await.unwrap();
    let key = world.only("meta").await;
    let object = world.read(&key).await;
    for secret in ["example", "app", "latest", "a payload"] {
        assert!(!key.contains(secret), "{key}");
        assert!(!object.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

// FORMAT-M3
#[tokio::test(start_paused = true)]
async fn an_object_that_is_moved_or_changed_is_damage_and_set_replaces_it() {
    let world = World::new().await;
    let meta = world.store.meta();
    created(&meta, PATH, "one").await;
    let latest = world.only("meta").await;
    let object = world.read(&latest).await;
    created(&meta, ["example/app", "v1"], "two").await;
    let keys = world.keys("meta").await;
    let v1 = keys.iter().find(|key| **key != latest).unwrap();
    world.write(v1, object.clone()).await;
    let error = meta.get(TAG, &["example/app", "v1"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let mut flipped = object;
    *flipped.last_mut().unwrap() ^= 1;
    world.write(&latest, flipped).await;
    assert_eq!(meta.get(TAG, &PATH).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(meta.create(TAG, &PATH, "x").await.unwrap_err().kind(), ErrorKind::Corrupt);
    meta.set(TAG, &PATH, "healed").await.unwrap();
    assert_eq!(read(&meta, PATH).await.unwrap(), "healed");
}

// FORMAT-N1
#[tokio::test(start_paused = true)]
async fn foreign_objects_are_left_alone_and_names_that_are_not_ours_are_damage() {
    let world = World::new().await;
    let meta = world.store.meta();
    meta.set(TAG, &PATH, "one").await.unwrap();
    let key = world.only("meta").await;
    let directory = key.rsplit_once('/').unwrap().0.to_owned();
    let list = || meta.list(TAG, &PATH[..1], None, 10);
    for name in [".DS_Store", "mfrgg", "README", "_", "_mfrgg", "sub/folder"] {
        world.write(&format!("{directory}/{name}"), "x").await;
        assert_eq!(list().await.unwrap().names, ["latest"], "{name}");
    }
    // Of the right form, as another place's would be.
    for name in ["a".repeat(32), format!("_{}", "a".repeat(52))] {
        let key = format!("{directory}/{name}");
        world.write(&key, "x").await;
        assert_eq!(list().await.unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        world.raw.delete(&Path::from(key)).await.unwrap();
    }
    assert_eq!(list().await.unwrap().names, ["latest"]);
}

// FORMAT-P11
#[tokio::test(start_paused = true)]
async fn no_meta_object_is_read_or_written_without_a_live_lease() {
    let world = World::new().await;
    let meta = world.store.meta();
    let version = created(&meta, PATH, "one").await;
    world.provider.deny("k", DenyReason::Forbidden);
    pass(R + Duration::from_secs(1)).await;
    let before = world.read(&world.only("meta").await).await;
    let errors = [
        meta.get(TAG, &PATH).await.map(drop).unwrap_err(),
        meta.list(TAG, &PATH[..1], None, 10).await.map(drop).unwrap_err(),
        meta.create(TAG, &PATH, "two").await.map(drop).unwrap_err(),
        meta.update(TAG, &PATH, "two", &version).await.map(drop).unwrap_err(),
        meta.set(TAG, &PATH, "two").await.map(drop).unwrap_err(),
        meta.remove(TAG, &PATH, &version).await.map(drop).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Revoked), "{errors:?}");
    assert_eq!(world.read(&world.only("meta").await).await, before);
    world.provider.allow("k");
    pass(R).await;
    assert_eq!(read(&meta, PATH).await.unwrap(), "one");
}

/// The key is taken away while the object is on its way: nothing of it is released.
// FORMAT-P11
#[tokio::test(start_paused = true)]
async fn nothing_is_released_after_the_lease_ended_under_way() {
    let world = World::new().await;
    let meta = world.store.meta();
    created(&meta, PATH, "one").await;
    let (provider, runtime) = (world.provider.clone(), world.runtime.clone());
    world.script.after(Op::Get, "meta/", move || {
        provider.deny("k", DenyReason::Disabled);
        runtime.suspend(R);
        None
    });
    assert_eq!(meta.get(TAG, &PATH).await.unwrap_err().kind(), ErrorKind::Revoked);
}
