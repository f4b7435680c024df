//! The audit log: whole, in order, once, and no hindrance.

use std::sync::Arc;
use std::time::Duration;

use bulla::audit_format::{Checkpoint, Entry, Export, SigningKey, VerifyError};
use bulla::kek::{DenyReason, Providers, Runtime};
use bulla::{Action, AuditMode, Engine, ErrorKind, OpenOptions, Outcome, RecordMark, Store, Trust};
use bulla_testkit::runtime::SimRuntime;
use bulla_testkit::scripted::{Op, ScriptedStore, already_exists, broken_connection};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// A store with an audit log.
async fn audited() -> World {
    let world = World::new().await;
    assert!(world.store.begin_audit().await.unwrap());
    world.script.take_requests();
    world
}

async fn entries(store: &Store) -> Vec<Entry> {
    store.flush_audit().await.unwrap();
    store.audit_log().await.unwrap().entries().unwrap()
}

fn count(entries: &[Entry], action: Action) -> u64 {
    entries.iter().filter(|entry| entry.action == action).map(|entry| entry.count).sum()
}

async fn traffic(store: &Store, seconds: u32) {
    let digest = put(store, &data(10)).await.digest;
    for _ in 0..seconds {
        pass(SECOND).await;
        let _ = get(store, &digest).await;
    }
}

fn strict(world: &World) -> Engine {
    Engine::builder()
        .providers(Providers::new().with(Arc::new(world.provider.clone())))
        .runtime(Arc::new(world.runtime.clone()))
        .audit(AuditMode::Strict)
        .build()
}

fn signing_key(store: &Store) -> SigningKey {
    let runtime = SimRuntime::new(tokio::time::Instant::now(), 77);
    SigningKey::generate(&Checkpoint::origin_of(&store.id()), runtime.random()).unwrap()
}

async fn export(store: &Store) -> (Export, Checkpoint) {
    store.flush_audit().await.unwrap();
    let log = store.audit_log().await.unwrap();
    Export::new(log.leaves, log.log.into(), &signing_key(store)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_store_has_no_audit_log_until_one_is_begun() {
    let world = World::new().await;
    traffic(&world.store, 100).await;
    world.reopen(world.pinned()).await.unwrap().close().await;
    assert_eq!(world.keys("audit").await, Vec::<String>::new());
    assert_eq!(world.store.audit_log().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(world.store.begin_audit().await.unwrap());
    assert!(!world.store.begin_audit().await.unwrap());
    let begun = entries(&world.store).await;
    assert_eq!((begun.len(), begun[0].action), (1, Action::AuditBegin));
    assert_eq!(begun[0].log, Some(world.store.mark().into()));
}

#[tokio::test(start_paused = true)]
async fn it_tells_which_key_versions_opened_the_store_and_when() {
    let world = audited().await;
    traffic(&world.store, 100).await;
    world.provider.new_version("k2");
    world.rotate_to("k2").await.unwrap();
    let (node, runtime, _) = world.node(2).await;
    traffic(&node, 40).await;
    node.close().await;
    let entries = entries(&world.store).await;
    let opened = entries.iter().find(|entry| entry.action == Action::Open).unwrap();
    assert!(opened.keys[0].contains("/k2/"), "{opened:?}");
    assert!(opened.first.abs_diff(runtime.now().unix_ms()) < 50_000);
    let rotated = entries.iter().find(|entry| entry.action == Action::RotateEnd).unwrap();
    assert_eq!(rotated.log.map(|log| log.number), Some(3));
    let renewed: Vec<&Entry> = entries.iter().filter(|entry| entry.action == Action::Renew).collect();
    assert!(renewed.iter().any(|entry| entry.count >= 3 && entry.keys[0].contains("/k/")), "{renewed:?}");
    assert!(renewed.iter().any(|entry| entry.node != renewed[0].node));
    assert!(renewed.iter().all(|entry| entry.first <= entry.last));
}

#[tokio::test(start_paused = true)]
async fn it_tells_that_a_rewrap_counted_zero_before_the_old_key_was_retired() {
    let world = audited().await;
    for i in 0..5 {
        world.put(&[i; 100]).await;
    }
    let old = world.store.status().await.unwrap().store_keys[0].0;
    world.store.rewrap(bulla::SweepOptions::default(), |_| {}).await.unwrap();
    let log = entries(&world.store).await;
    let at = |action: Action| log.iter().position(|entry| entry.action == action).unwrap();
    let (begun, counted, retired) = (at(Action::SweepBegin), at(Action::SweepEnd), at(Action::Retire));
    assert!(begun < counted && counted < retired);
    assert_eq!(log[counted].swept, Some(bulla::SweepCount { seen: 5, left: 0, failed: 0 }));
    assert_eq!((log[counted].store_key, log[retired].store_key), (Some(old), Some(old)));
    assert_ne!(log[begun].store_key, Some(old));
    assert!(log[retired].log.unwrap().number > log[begun].log.unwrap().number);
}

#[tokio::test(start_paused = true)]
async fn it_tells_when_the_last_wrap_of_an_old_key_was_destroyed() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let world = audited().await;
    world.put(&data(100)).await;
    let old_store_key = world.store.status().await.unwrap().store_keys[0].0;
    world.provider.new_version("new");
    world.rotate_to("new").await.unwrap();
    world.store.rewrap(bulla::SweepOptions::default(), |_| {}).await.unwrap();
    let shred = async || {
        pass(2 * DAY).await;
        world.store.shred(DAY, bulla::SweepOptions::default(), |_| {}).await.unwrap();
        let log = entries(&world.store).await;
        log.into_iter().filter(|entry| entry.action == Action::Shred).collect::<Vec<_>>()
    };
    // The store key is still in the record before the one that leaves it out.
    let shredded = shred().await;
    assert_eq!(shredded.len(), 1, "{shredded:?}");
    assert!(shredded[0].keys[0].contains("/keys/k/"), "the old KEK version: {shredded:?}");
    let shredded = shred().await;
    assert_eq!((shredded.len(), shredded[1].store_key), (2, Some(old_store_key)), "{shredded:?}");
    assert_eq!(shred().await.len(), 2);
    // Counted once more before.
    let log = entries(&world.store).await;
    let zero =
        |entry: &&Entry| entry.store_key == Some(old_store_key) && entry.swept.is_some_and(|n| n.left == 0);
    assert_eq!(log.iter().filter(zero).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn routine_is_merged_and_written_in_few_objects() {
    let world = audited().await;
    traffic(&world.store, 3600).await;
    world.store.flush_audit().await.unwrap();
    let batches = world.store.audit_log().await.unwrap().batches;
    assert!((10..=14).contains(&batches), "{batches}");
    let entries = entries(&world.store).await;
    assert!(entries.len() < 60, "{}", entries.len());
    assert!(count(&entries, Action::Renew) >= 118);
    assert_eq!(count(&entries, Action::Renew), count(&entries, Action::Unwrap));
}

#[tokio::test(start_paused = true)]
async fn what_was_denied_is_written_after_the_restoring_with_its_own_time() {
    let world = audited().await;
    let digest = world.put(&data(20)).await.digest;
    world.provider.deny("k", DenyReason::Disabled);
    let before = world.keys("audit").await;
    let mut denied_at = 0;
    for second in 0..300 {
        pass(SECOND).await;
        let read = get(&world.store, &digest).await;
        if denied_at == 0 && read.is_err_and(|error| error.kind() == ErrorKind::Revoked) {
            denied_at = world.runtime.now().unix_ms();
        }
        assert!(second < 40 || denied_at > 0);
    }
    assert_eq!(world.keys("audit").await, before, "nothing can be sealed");
    world.provider.allow("k");
    pass(60 * SECOND).await;
    let restored_at = world.runtime.now().unix_ms();
    get(&world.store, &digest).await.unwrap();
    // By itself, without being asked.
    pass(SECOND).await;
    let log = world.store.audit_log().await.unwrap().entries().unwrap();
    let only = |action| {
        let found: Vec<&Entry> = log.iter().filter(|entry| entry.action == action).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    };
    let (denial, restoring) = (only(Action::Deny), only(Action::Restore));
    assert_eq!((denial.outcome, denial.reason.as_deref()), (Outcome::Denied, Some("Disabled")));
    assert!(denial.first.abs_diff(denied_at) <= 2000, "{} {denied_at}", denial.first);
    assert!(denial.keys[0].contains("/k/"));
    assert!(restoring.first > denial.first + 200_000 && restoring.first <= restored_at);
    assert!(count(&log, Action::Refuse) > 200);
    assert!(log.len() < 40, "{log:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_store_makes_no_calls_for_its_audit_log() {
    let world = audited().await;
    traffic(&world.store, 40).await;
    pass(2 * R).await;
    // What waited was written before the lease ran out.
    let batches = world.keys("audit").await.len();
    assert!(batches >= 2);
    let calls = world.provider.calls();
    world.script.take_requests();
    pass(100 * R).await;
    assert_eq!(world.provider.calls(), calls);
    assert_eq!(world.script.take_requests(), []);
    let written = world.store.audit_log().await.unwrap().entries().unwrap();
    assert!(count(&written, Action::Renew) >= 1);
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_prolongs_no_lease() {
    let world = audited().await;
    let calls = world.provider.calls();
    for _ in 0..100 {
        pass(SECOND).await;
        let _ = world.store.flush_audit().await;
    }
    // The renewal at R/2 is for the use before; then the lease runs out whatever is written.
    assert!(world.provider.calls().unwrap <= calls.unwrap + 1);
    assert!(!matches!(world.store.key_state(), bulla::KeyState::Live { .. }));
}

// FORMAT-T4
#[tokio::test(start_paused = true)]
async fn two_nodes_append_to_one_log() {
    let world = audited().await;
    let (other, _, _) = world.node(2).await;
    let (third, _, _) = world.node(3).await;
    for round in 0..5 {
        world.provider.new_version("k");
        let nodes = [&world.store, &other, &third];
        let rotate = nodes.map(|node| async move {
            let _ = node.rotate(bulla::RotateOptions::default()).await;
            let flushed = node.flush_audit().await;
            assert!(flushed.is_ok(), "{round}: {flushed:?}");
        });
        futures::future::join_all(rotate).await;
        pass(SECOND).await;
    }
    let log = entries(&world.store).await;
    assert_eq!(count(&log, Action::Open), 2);
    let nodes: std::collections::BTreeSet<&str> = log.iter().map(|entry| &*entry.node).collect();
    assert_eq!(nodes.len(), 3);
    let ended = |entry: &&Entry| entry.action == Action::RotateEnd && entry.outcome == Outcome::Done;
    assert!(log.iter().filter(ended).count() >= 5);
    let (export, _) = export(&other).await;
    export.verify(&signing_key(&other).public_key(), None).unwrap();
}

// FORMAT-T4
#[tokio::test(start_paused = true)]
async fn a_batch_written_with_a_lost_answer_is_written_once() {
    for applied in [true, false] {
        for error in [broken_connection, already_exists] {
            let world = audited().await;
            match applied {
                true => world.script.after(Op::Create, "audit/", move || Some(error())),
                false => world.script.before(Op::Create, "audit/", move || Some(error())),
            }
            world.provider.new_version("k");
            world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
            let log = entries(&world.store).await;
            assert!(world.script.is_done());
            assert_eq!((count(&log, Action::RotateBegin), count(&log, Action::RotateEnd)), (1, 1));
        }
    }
}

/// The answer of the create is lost, and so is that of reading it back: the flush fails, and the next must not write
/// the same again.
#[tokio::test(start_paused = true)]
async fn a_flush_that_failed_after_it_was_applied_is_not_repeated() {
    let world = audited().await;
    world.script.after(Op::Create, "audit/", || Some(broken_connection()));
    world.script.before(Op::Get, "audit/", || Some(broken_connection()));
    world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    pass(200 * SECOND).await;
    let log = entries(&world.store).await;
    assert!(world.script.is_done());
    assert_eq!((count(&log, Action::RotateBegin), count(&log, Action::RotateEnd)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_operation_fails_or_waits_because_the_audit_log_does() {
    let world = audited().await;
    for _ in 0..2000 {
        world.script.before(Op::Create, "audit/", || Some(broken_connection()));
        world.script.before(Op::Head, "audit/", || Some(broken_connection()));
    }
    let store = world.reopen(world.pinned()).await.unwrap();
    world.provider.new_version("k");
    let before = tokio::time::Instant::now();
    store.rotate(bulla::RotateOptions::default()).await.unwrap();
    put(&store, &data(100)).await;
    assert!(before.elapsed() < SECOND);
    assert!(store.flush_audit().await.is_err());
}

// FORMAT-T4
#[tokio::test(start_paused = true)]
async fn a_log_altered_cut_or_swapped_in_the_bucket_is_refused() {
    let world = audited().await;
    for _ in 0..4 {
        world.provider.new_version("k");
        world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
        world.store.flush_audit().await.unwrap();
    }
    let keys = world.keys("audit").await;
    assert!(keys.len() >= 4, "{keys:?}");
    let good = world.read(&keys[1]).await;
    let third = world.read(&keys[2]).await;
    let corrupt = async |what: &str| {
        let error = world.store.audit_log().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    };
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut altered = good.clone();
        altered[at] ^= 1;
        world.write(&keys[1], altered).await;
        corrupt("altered").await;
    }
    world.write(&keys[1], third.clone()).await;
    corrupt("in another's place").await;
    world.remove(&keys[1]).await;
    corrupt("removed").await;
    world.write(&keys[1], good).await;
    world.write("audit/notes.txt", "x").await;
    corrupt("a foreign object").await;
    world.remove("audit/notes.txt").await;
    world.store.audit_log().await.unwrap();
}

/// The batch that a node tried to write and lost with is authentic, but not part of the log.
#[tokio::test(start_paused = true)]
async fn a_batch_that_lost_its_place_can_not_be_put_there_later() {
    let world = audited().await;
    let (other, _, _) = world.node(2).await;
    other.flush_audit().await.unwrap();
    let keys = world.keys("audit").await;
    let last = keys.last().unwrap().clone();
    let overheard = world.read(&last).await;
    // The same node wrote there in another course of events.
    world.remove(&last).await;
    world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    world.store.flush_audit().await.unwrap();
    world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    world.store.flush_audit().await.unwrap();
    world.store.audit_log().await.unwrap();
    world.write(&last, overheard).await;
    assert_eq!(world.store.audit_log().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn a_running_node_does_not_write_above_a_log_that_went_back() {
    let world = audited().await;
    world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    world.store.flush_audit().await.unwrap();
    let keys = world.keys("audit").await;
    world.remove(keys.last().unwrap()).await;
    world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    let error = world.store.flush_audit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(world.keys("audit").await.len(), keys.len() - 1);
}

#[tokio::test(start_paused = true)]
async fn a_rolled_back_bucket_is_refused_with_a_newer_checkpoint_at_hand() {
    let world = audited().await;
    traffic(&world.store, 40).await;
    world.store.flush_audit().await.unwrap();
    let yesterday = snapshot(&world).await;
    let (_, old) = export(&world.store).await;
    world.provider.new_version("k");
    world.store.rotate(bulla::RotateOptions::default()).await.unwrap();
    let (_, new) = export(&world.store).await;
    for checkpoint in [&old, &new] {
        world.store.check_checkpoint(checkpoint).await.unwrap();
    }
    let anchor = world.store.anchor();
    world.store.close().await;
    roll_back(&world, &yesterday).await;
    // A fresh node without the checkpoint sees nothing wrong.
    let trust = Trust::Anchor(anchor);
    world.reopen(OpenOptions { trust, floor: None }).await.unwrap().close().await;
    let floor = Some(RecordMark::from(new.log));
    let error = world.reopen(OpenOptions { trust, floor }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let fresh = world.reopen(OpenOptions { trust, floor: Some(old.log.into()) }).await.unwrap();
    fresh.check_checkpoint(&old).await.unwrap();
    assert_eq!(fresh.check_checkpoint(&new).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Between two records of the store's log nothing but the audit log changes; a checkpoint still tells.
#[tokio::test(start_paused = true)]
async fn a_rollback_between_two_records_is_refused_with_a_newer_checkpoint() {
    let world = audited().await;
    let yesterday = snapshot(&world).await;
    traffic(&world.store, 40).await;
    let (_, new) = export(&world.store).await;
    let anchor = world.store.anchor();
    world.store.close().await;
    roll_back(&world, &yesterday).await;
    let options = OpenOptions { trust: Trust::Anchor(anchor), floor: Some(new.log.into()) };
    let fresh = world.reopen(options).await.unwrap();
    assert_eq!(fresh.check_checkpoint(&new).await.unwrap_err().kind(), ErrorKind::Corrupt);
    // Emptied altogether, and begun anew.
    for key in world.keys("audit").await {
        world.remove(&key).await;
    }
    assert_eq!(fresh.check_checkpoint(&new).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let again = world.reopen(options).await.unwrap();
    for _ in 0..40 {
        again.begin_audit().await.unwrap();
        traffic(&again, 40).await;
        again.flush_audit().await.unwrap();
    }
    assert_eq!(again.check_checkpoint(&new).await.unwrap_err().kind(), ErrorKind::Corrupt);
    // And whoever exports it is told by the auditor.
    let (forked, _) = export(&again).await;
    let error = forked.verify(&signing_key(&again).public_key(), Some(&new)).unwrap_err();
    assert!(matches!(error, VerifyError::Rewritten | VerifyError::Older { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_store_is_none() {
    let (world, other) = (audited().await, audited().await);
    let (_, checkpoint) = export(&other.store).await;
    let elsewhere = Checkpoint { origin: "bulla-audit/elsewhere".into(), ..checkpoint };
    assert_eq!(world.store.check_checkpoint(&elsewhere).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn strict_means_in_the_log_before_acknowledged() {
    let world = World::new().await;
    let error = strict(&world).open(bucket(&world.script), world.pinned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    world.store.begin_audit().await.unwrap();
    let store = strict(&world).open(bucket(&world.script), world.pinned()).await.unwrap();
    let actions = async |store: &Store| -> Vec<Action> {
        let log = store.audit_log().await.unwrap().entries().unwrap();
        log.iter().map(|entry| entry.action).collect()
    };
    assert!(actions(&world.store).await.ends_with(&[Action::Open]));
    world.provider.new_version("k");
    store.rotate(bulla::RotateOptions::default()).await.unwrap();
    assert!(actions(&world.store).await.ends_with(&[Action::RotateEnd]));
    for _ in 0..2000 {
        world.script.before(Op::Create, "audit/", || Some(broken_connection()));
    }
    let error = strict(&world).open(bucket(&world.script), world.pinned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_strict_engine_makes_stores_with_an_audit_log() {
    let world = World::new().await;
    let script = ScriptedStore::new(Arc::new(object_store::memory::InMemory::new()));
    let store = strict(&world).create(bucket(&script), create_options()).await.unwrap();
    let log = store.audit_log().await.unwrap().entries().unwrap();
    let actions: Vec<Action> = log.iter().map(|entry| entry.action).collect();
    assert!(actions.contains(&Action::AuditBegin) && actions.ends_with(&[Action::Create]), "{actions:?}");
}

#[tokio::test(start_paused = true)]
async fn the_bucket_shows_nothing_of_what_happened() {
    let world = audited().await;
    world.provider.deny("k", DenyReason::Firewall);
    traffic(&world.store, 60).await;
    world.provider.allow("k");
    pass(20 * SECOND).await;
    entries(&world.store).await;
    for key in world.keys("audit").await {
        let object = world.read(&key).await;
        for word in ["Firewall", "sim.vault", "system", "node-"] {
            assert!(!object.windows(word.len()).any(|window| window == word.as_bytes()), "{word} in {key}");
        }
    }
}

type Snapshot = Vec<(String, Vec<u8>)>;

async fn snapshot(world: &World) -> Snapshot {
    let mut all = Vec::new();
    for prefix in ["store", "audit", "blobs"] {
        for key in world.keys(prefix).await {
            all.push((key.clone(), world.read(&key).await));
        }
    }
    all
}

async fn roll_back(world: &World, to: &Snapshot) {
    for prefix in ["store", "audit", "blobs"] {
        for key in world.keys(prefix).await {
            world.remove(&key).await;
        }
    }
    for (key, object) in to {
        world.write(key, object.clone()).await;
    }
}
