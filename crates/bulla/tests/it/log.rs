//! The log: one history, read contiguously, no way back.

use bulla::{ErrorKind, OpenOptions, RecordMark, Trust};
use bulla_envelope::ids::RootId;
use bulla_envelope::record::{RootEntry, RootState};
use bulla_testkit::scripted::{Op, already_exists, broken_connection};

use crate::support::*;

fn first_use(floor: Option<RecordMark>) -> OpenOptions {
    OpenOptions { trust: Trust::OnFirstUse, floor }
}

#[tokio::test(start_paused = true)]
async fn an_empty_place_is_not_a_store() {
    let world = World::new().await;
    world.remove("store/00000001.cbor").await;
    assert_eq!(world.reopen(first_use(None)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_store_is_not_made_twice() {
    let world = World::new().await;
    let again = engine(&world.runtime, &world.provider).create(bucket(&world.script), create_options()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn two_creators_make_one_store() {
    let world = World::new().await;
    world.remove("store/00000001.cbor").await;
    let engine = engine(&world.runtime, &world.provider);
    let create = || engine.create(bucket(&world.script), create_options());
    let (a, b) = tokio::join!(create(), create());
    assert!(a.is_ok() != b.is_ok());
    let lost = a.err().or(b.err()).unwrap();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
}

// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn a_record_written_with_a_lost_answer_is_written_once() {
    for (applied, answer) in [
        (true, already_exists as fn() -> object_store::Error),
        (true, broken_connection),
        (false, already_exists),
        (false, broken_connection),
    ] {
        let world = World::new().await;
        world.provider.new_version("new");
        match applied {
            true => world.script.after(Op::Create, "store/", move || Some(answer())),
            false => world.script.before(Op::Create, "store/", move || Some(answer())),
        }
        world.rotate_to("new").await.unwrap();
        assert!(world.script.is_done());
        assert_eq!(world.keys("store").await.len(), 3);
        assert!(world.reopen(world.pinned()).await.is_ok());
    }
}

// FORMAT-P2
#[tokio::test(start_paused = true)]
async fn a_gap_is_an_error() {
    let world = World::new().await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    world.remove("store/00000002.cbor").await;
    assert_eq!(world.reopen(first_use(None)).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

// FORMAT-P2
#[tokio::test(start_paused = true)]
async fn a_record_that_does_not_decode_is_an_error_and_never_skipped() {
    for bytes in [&b""[..], b"\x81\x01", b"garbage"] {
        let world = World::new().await;
        world.write("store/00000002.cbor", bytes.to_vec()).await;
        for options in [first_use(None), world.pinned()] {
            assert_eq!(world.reopen(options).await.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_below_the_newest_may_be_stubs() {
    let world = World::new().await;
    world.provider.new_version("new");
    let floor = world.store.mark();
    world.rotate_to("new").await.unwrap();
    world.write("store/00000001.cbor", &b"\x81\x01"[..]).await;
    assert!(world.reopen(first_use(None)).await.is_ok());
    let pinned = OpenOptions { trust: Trust::Anchor(world.store.anchor()), floor: Some(floor) };
    assert!(world.reopen(pinned).await.is_ok(), "its hash lives on in the history");
}

// FORMAT-P3
#[tokio::test(start_paused = true)]
async fn a_bucket_rolled_back_is_refused() {
    let world = World::new().await;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    let seen = world.pinned();
    world.remove("store/00000003.cbor").await;
    let error = world.reopen(seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("rolled back"), "{error}");
}

// FORMAT-P3
#[tokio::test(start_paused = true)]
async fn a_forked_log_is_refused() {
    let world = World::new().await;
    world.provider.new_version("a");
    world.provider.new_version("b");
    let original = world.read("store/00000001.cbor").await;
    world.rotate_to("a").await.unwrap();
    let seen = world.pinned();
    // The same first record, another history after it: by the real key, in a copy of yesterday's bucket.
    for number in [2, 3] {
        world.remove(&format!("store/0000000{number}.cbor")).await;
    }
    world.write("store/00000001.cbor", original).await;
    let (other, ..) = world.node(2).await;
    let options =
        bulla::RotateOptions { key: Some(bulla_testkit::provider::key_id("b")), ..Default::default() };
    other.rotate(options).await.unwrap();
    assert_eq!(world.reopen(seen).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn a_running_node_refuses_a_log_that_went_back() {
    let world = World::new().await;
    world.provider.new_version("new");
    let (other, ..) = world.node(2).await;
    world.rotate_to("new").await.unwrap();
    other.status().await.unwrap();
    assert_eq!(other.mark(), world.store.mark());
    world.write("store/00000004.cbor", world.read("store/00000002.cbor").await).await;
    assert_eq!(other.status().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

// FORMAT-P1
#[tokio::test(start_paused = true)]
async fn an_altered_record_is_refused() {
    let world = World::new().await;
    let good = world.read("store/00000001.cbor").await;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        world.write("store/00000001.cbor", bad).await;
        let options = OpenOptions { trust: Trust::Anchor(world.store.anchor()), floor: None };
        assert!(world.reopen(options).await.is_err(), "byte {at}");
    }
    world.write("store/00000001.cbor", good).await;
    assert!(world.reopen(world.pinned()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_anchor_is_refused_loudly() {
    let (a, b) = (World::new().await, World::new().await);
    b.write("store/00000001.cbor", a.read("store/00000001.cbor").await).await;
    // Node b's own key service can't even open it; with a's, the anchor gives it away.
    let options = OpenOptions { trust: Trust::Anchor(b.store.anchor()), floor: None };
    let same_keys = engine(&a.runtime, &a.provider).open(bucket(&b.script), options).await;
    match same_keys {
        Err(error) => assert!(error.to_string().contains("anchor"), "{error}"),
        Ok(_) => assert_eq!(a.store.anchor(), b.store.anchor(), "two stores from one seed"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_a_later_kind_is_refused_by_name() {
    let world = World::new().await;
    let (key, record) = next_record(&world, |record, root| {
        record.roots.push(RootEntry {
            id: RootId::from_bytes([1; 16]),
            state: RootState::Retiring,
            groups: Vec::new(),
            parent: Some(root.retired_root_wrapping_key().wrap_key(&[2; 32])),
        });
    })
    .await;
    world.write(&key, record).await;
    let error = world.reopen(world.pinned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("rerooted"), "{error}");
}
